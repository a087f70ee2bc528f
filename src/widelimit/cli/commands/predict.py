"""``widelimit predict``: a fitted model on new rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from widelimit.cli.exits import print_json
from widelimit.cli.shared.files import require_apart, require_writable, write


def predict(
    model: Annotated[
        Path, typer.Argument(help="A model file of `widelimit fit`.", show_default=False)
    ],
    table: Annotated[Path, typer.Argument(help="A CSV or Parquet file.", show_default=False)],
    output: Annotated[
        Path, typer.Option(help="Where to write the table with predictions, as CSV.",
                           show_default=False)
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was done as JSON.")
    ] = False,
) -> None:
    """Predict the rows of a table with a model that `widelimit fit` wrote.

    Adds to the table, for a number, TARGET_mean and TARGET_std, the standard deviation of a new
    observation (noise included); for a class, TARGET_predicted and a column TARGET_p_CLASS with
    the probability of each class.
    """  # fmt: skip
    require_apart({"--output": output}, {"the model": model, "the table": table})
    require_writable(output, "predictions", "--output")
    from widelimit.cli.shared.screen import Screen
    from widelimit.cli.tabular import apply, archive
    from widelimit.cli.tabular.read import read

    with Screen(quiet_output=as_json) as screen:
        fitted = screen.stage("Read the model", lambda: archive.load(model))
        given = screen.stage("Read the table", lambda: read(table))
        values, notes = apply.values(fitted, given)
        found = screen.steps(
            "Predict", len(given.frame), lambda advance: fitted.predict(values, advance)
        )
        text = apply.as_csv(fitted, given, found)
    write(output, text, "predictions")
    training = fitted.training
    if as_json:
        print_json(
            {
                "schema": 1,
                "task": training.task,
                "target": training.target,
                "rows": len(given.frame),
                "columns": [*apply.columns(fitted, found)],
                "notes": notes,
                "output": str(output),
            }
        )
        return
    for note in notes:
        screen.out.print(note, markup=False)
    added = ", ".join(apply.columns(fitted, found))
    screen.out.print(f"Added: {added}", markup=False)
    if training.task == "regression":
        screen.out.print(
            f"{training.target}_std is the standard deviation of a new observation.", markup=False
        )
    screen.out.print(f"{len(given.frame)} rows: {output}", markup=False, soft_wrap=True)
