"""The command line: options common to all commands, and the entry point."""

from __future__ import annotations

from typing import Annotated

import typer

from widelimit.cli.commands import COMMANDS
from widelimit.cli.exits import EXIT_CODES, installed_version, sentences

app = typer.Typer(
    name="widelimit",
    help="Infinite-width limits of any network you can write in JAX.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"widelimit {installed_version()}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    del version


for _command in COMMANDS:
    app.command(epilog=EXIT_CODES)(sentences(_command))


def main() -> None:
    """Run the command line; ends the process with one of the documented exit codes."""
    app()
