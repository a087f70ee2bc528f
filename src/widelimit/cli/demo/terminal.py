"""What the demonstration shows in the terminal: progress, the network's code, the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.syntax import Syntax
from rich.table import Table

from widelimit.cli.demo.experiment import Results
from widelimit.cli.demo.network import source

T = TypeVar("T")


class Screen:
    """Progress on stderr, results on stdout."""

    def __init__(self, *, quiet_output: bool) -> None:
        self._out = Console(quiet=quiet_output, highlight=False)
        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def __enter__(self) -> Screen:
        code = Syntax(source().rstrip(), "python", theme="ansi_dark", background_color="default")
        self._out.print(Panel(code, title="The network, in plain JAX", expand=False))
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def stage(self, title: str, work: Callable[[], T]) -> T:
        """Run ``work`` under a bar without an end in sight."""
        task = self._progress.add_task(title, total=None)
        result = work()
        self._progress.update(task, total=1, completed=1)
        return result

    def steps(self, title: str, total: int, work: Callable[[Callable[[int], None]], T]) -> T:
        """Run ``work`` under a bar with an estimate of the time left."""
        task = self._progress.add_task(title, total=total)
        return work(lambda count: self._progress.advance(task, count))

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
        self._out.print(table)
        last = results.finite[-1]
        self._out.print(
            f"At width {last.width} a trained network is within {min(last.difference):.0%} of the "
            f"NTK limit and names the same digit on {max(last.agreement):.1%} of the images; "
            f"the difference falls as width^{results.slope:.2f}."
        )
        self._out.print(f"Report: {report}  ({results.seconds:.0f} s in all)", soft_wrap=True)
