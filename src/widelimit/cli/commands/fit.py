"""``widelimit fit``: learn a column of a table from the others."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from widelimit.cli.exits import print_json
from widelimit.cli.shared.files import require_apart, require_writable, write


class Task(StrEnum):
    """What kind of answer is predicted."""

    auto = "auto"
    regression = "regression"
    classification = "classification"


class Kind(StrEnum):
    """Which covariance the network has."""

    nngp = "nngp"
    ntk = "ntk"


def fit(
    table: Annotated[Path, typer.Argument(help="A CSV or Parquet file.", show_default=False)],
    target: Annotated[
        str, typer.Option(help="The column to predict.", show_default=False)
    ],
    task: Annotated[
        Task, typer.Option(help="Numbers or classes; by default as the target looks.")
    ] = Task.auto,
    network: Annotated[
        str,
        typer.Option(
            help="Activation and hidden layers: 'relu x 3', 'residual gelu x 4', "
            "'normalised tanh x 2'."
        ),
    ] = "relu x 3",
    kind: Annotated[Kind, typer.Option(help="The kernel.")] = Kind.nngp,
    drop: Annotated[
        list[str] | None,
        typer.Option(help="A column not to use; may be repeated.", show_default=False),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation.")] = 5,
    model: Annotated[Path, typer.Option(help="Where to write the model.")] = Path("model.wide"),
    report: Annotated[
        Path, typer.Option(help="Where to write the HTML report.")
    ] = Path("report.html"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds and of the search.")] = 0,
    relevance: Annotated[
        bool,
        typer.Option("--relevance", help="Learn a factor for each feature, however few the rows."),
    ] = False,
    learn: Annotated[
        bool,
        typer.Option("--learn/--no-learn", help="Learn scales and noise, or keep the defaults."),
    ] = True,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Compare with scikit-learn.")
    ] = True,
    max_rows: Annotated[
        int, typer.Option(min=10, max=20_000, help="Use at most so many rows, drawn at random.")
    ] = 5000,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON instead of tables.")
    ] = False,
) -> None:
    """Learn a column of a table from the others, with an infinitely wide network.

    Cross-validates the network beside simple and strong baselines, fits it to all rows, and
    writes a model file for `widelimit predict` and a self-contained HTML report. Numbers,
    categories, booleans, dates and missing values are taken care of, and what was done to each
    column is in the report.
    """
    require_apart({"--model": model, "--report": report}, {"the table": table})
    require_writable(model, "model", "--model")
    require_writable(report, "report", "--report")
    # Imported here so that `widelimit --help` starts without pandas and scikit-learn.
    from widelimit.cli.fit import page, terminal
    from widelimit.cli.fit.experiment import Settings, run
    from widelimit.cli.shared.screen import Screen
    from widelimit.cli.tabular import archive

    settings = Settings(
        table, target, task.value, network, kind.value, tuple(drop or ()), folds, max_rows,
        relevance, learn, baselines, seed,
    )  # fmt: skip
    with Screen(quiet_output=as_json) as screen:
        results = run(settings, screen)
        text = screen.stage("Draw the report", lambda: page.render(results))
        packed = screen.stage("Pack the model", lambda: archive.pack(results.model))
    write(model, packed, "model")
    write(report, text, "report")
    if as_json:
        print_json({**results.as_json(), "model": str(model), "report": str(report)})
    else:
        terminal.show(screen.out, results, model, report)
