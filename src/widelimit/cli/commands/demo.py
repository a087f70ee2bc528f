"""``widelimit demo``: the library on real data, in a minute or two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from widelimit.cli.shared.files import require_writable, write


def demo(
    out: Annotated[
        Path, typer.Option(help="Where to write the HTML report.")
    ] = Path("widelimit-report.html"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON instead of tables.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer images and narrower networks; seconds.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and of the networks.")] = 0,
) -> None:
    """Predict handwritten digits with an infinitely wide network, and check it by training.

    Reads a small network written in plain JAX, computes its NNGP and NTK kernels, predicts
    held-out images exactly with both, trains the same function at finite widths, and writes
    everything side by side into one self-contained HTML file.
    """
    require_writable(out, "report", "--out")
    # Imported here so that `widelimit --help` starts without Matplotlib and scikit-learn.
    from widelimit.cli.demo import page, terminal
    from widelimit.cli.demo.experiment import QUICK, STANDARD, run

    with terminal.Screen(quiet_output=as_json) as screen:
        results = run(QUICK if quick else STANDARD, seed, screen)
        text = screen.stage("Draw the report", lambda: page.render(results))
    write(out, text, "report")
    if as_json:
        typer.echo(json.dumps({**results.as_json(), "report": str(out)}, indent=2))
    else:
        screen.show(results, out)

