"""What a fit shows in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from widelimit.cli.fit.experiment import Results
from widelimit.cli.fit.measures import MEASURES, best, shown


def show(out: Console, results: Results, model: Path, report: Path) -> None:
    """Print the table of scores, what was assumed, and where the files are."""
    measures = MEASURES[results.target.task]
    table = Table(
        title=f"{results.target.task} of {escape(results.settings.target)}: "
        f"{len(results.answers)} rows, {results.folds}-fold cross-validation",
        caption=_CAPTION[results.target.task],
    )
    table.add_column("predictor", no_wrap=True)
    for measure in (*(m.title for m in measures), "s"):
        table.add_column(measure, justify="right")
    top = {m.key: best(m, [r.scores[m.key] for r in results.rows]) for m in measures}
    for row in results.rows:
        cells = []
        for m in measures:
            text = shown(m, row.scores[m.key])
            cells.append(f"[bold]{text}[/bold]" if row.scores[m.key] == top[m.key] else text)
        table.add_row(
            row.name, *cells, f"{row.seconds:.1f}", end_section=row.kind == "network"
        )
    out.print(table)
    out.print(f"Task: {results.target.task}, because {results.target.why}.", markup=False)
    for column in results.columns:
        if column.kind == "dropped":
            out.print(f"Not used: {column.name!r}, {column.why}.", markup=False)
    for column in results.columns:
        for note in column.notes:
            out.print(f"Column {column.name!r}: {note}", markup=False)
    for note in results.notes:
        out.print(note, markup=False)
    out.print(f"Model: {model}", markup=False, soft_wrap=True)
    out.print(
        f"Report: {report}  ({results.seconds:.0f} s in all)", markup=False, soft_wrap=True
    )


_CAPTION = {
    "regression": "RMSE in units of the target, NLL in nats: lower is better. 50%, 90%, 95%: "
    "how many answers are inside the intervals of that probability.",
    "classification": "NLL in nats and calibration error (ECE): lower is better.",
}
