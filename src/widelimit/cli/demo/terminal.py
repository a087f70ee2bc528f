"""What the demonstration shows in the terminal: the network's code and the table."""

from __future__ import annotations

from pathlib import Path

from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table

from widelimit.cli.demo.experiment import Results
from widelimit.cli.demo.network import source
from widelimit.cli.shared import screen


class Screen(screen.Screen):
    """Progress, the code and the results."""

    def __enter__(self) -> Screen:
        code = Syntax(source().rstrip(), "python", theme="ansi_dark", background_color="default")
        self.out.print(Panel(code, title="The network, in plain JAX", expand=False))
        super().__enter__()
        return self

    def show(self, results: Results, report: Path) -> None:
        """Print the table and where the report is."""
        s = results.settings
        table = Table(
            title=f"{s.test} unseen digits, after {s.train} labelled ones",
            caption="NLL in nats and calibration error: lower is better. Seconds of wall clock.",
        )
        table.add_column("predictor")
        for name in ("accuracy", "NLL", "calibration error", "seconds"):
            table.add_column(name, justify="right")
        for row in results.rows:
            table.add_row(
                row.name, f"{row.accuracy:.2%}", f"{row.nll:.4f}", f"{row.ece:.4f}",
                f"{row.seconds:.1f}", end_section=row.kind == "ntk",
            )  # fmt: skip
        self.out.print(table)
        last = results.finite[-1]
        self.out.print(
            f"At width {last.width} a trained network is within {min(last.difference):.0%} of the "
            f"NTK limit and names the same digit on {max(last.agreement):.1%} of the images; "
            f"the difference falls as width^{results.slope:.2f}."
        )
        self.out.print(f"Report: {report}  ({results.seconds:.0f} s in all)", soft_wrap=True)
