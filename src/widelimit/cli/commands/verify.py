"""``widelimit verify``: the limit of a network in a file, against finite networks."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from widelimit.cli.exits import print_json


def verify(
    network: Annotated[
        str,
        typer.Argument(
            metavar="PATH:NAME",
            help="A Python file and a name in it: an Equinox or Flax module, a pair (f, params), "
            "or a function without arguments that returns one of these.",
            show_default=False,
        ),
    ],
    x: Annotated[
        str | None,
        typer.Option(
            metavar="SHAPE|FILE.npy",
            help="The shape of one example, like 4 or 8x8x3, for Gaussian inputs; or inputs, "
            "shape (n, ...). By default what the network says of its input.",
            show_default=False,
        ),
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The parameters of a function f(params, x), by their name in the "
            "file.", show_default=False,
        ),
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="How many Gaussian inputs.")] = 4,
    draws: Annotated[
        int | None,
        typer.Option(min=2, help="Random networks at each width; by default what the tolerance "
                     "asks for.", show_default=False),
    ] = None,
    multipliers: Annotated[
        str, typer.Option(help="Multiples of the network's widths.")
    ] = "1,2,4,8",
    tolerance: Annotated[
        float, typer.Option(help="The relative error that the verdict is about.")
    ] = 0.03,
    ntk: Annotated[
        bool, typer.Option("--ntk/--no-ntk", help="Compare tangent kernels too.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of inputs and networks.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON instead of a table.")
    ] = False,
) -> None:
    """Compare the infinite-width limit of your network with finite networks of growing width.

    The file is run as Python does it. Ends with exit code 1 if the network has no limit as
    written, or if finite networks disagree with it.
    """  # fmt: skip
    # Whatever the file prints must not end up between the results.
    with contextlib.redirect_stdout(sys.stderr):
        from widelimit.cli.userfile import inputs, load

        model = load.network(network, params, seed)
        batch = inputs.inputs(x, model, examples, seed)
        report = load.run(
            model, batch, draws=draws, multipliers=inputs.numbers(multipliers, "--multipliers"),
            tolerance=tolerance, ntk=ntk, seed=seed,
        )  # fmt: skip
    if as_json:
        print_json({"schema": 1, "network": network, **report.to_dict()})
    else:
        from rich.console import Console

        Console(highlight=False).print(report)
    if report.verdict == "disagrees":
        raise typer.Exit(1)


