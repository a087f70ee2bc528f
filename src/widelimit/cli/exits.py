"""How commands end: exit codes, and sentences in place of tracebacks."""

from __future__ import annotations

import functools
import importlib.metadata
import os
from collections.abc import Callable
from typing import Any

import typer

from widelimit.errors import WideLimitError

EXIT_CODES = (
    "Exit codes: 0 success; 1 the computation failed; 2 wrong usage, or a file that cannot be "
    "read or written; 130 interrupted. Set WIDELIMIT_TRACEBACK=1 to see tracebacks."
)


class Failure(Exception):
    """An end with a sentence for the user.

    Attributes
    ----------
    code
        The exit code.
    """

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code


def sentences(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with every exception turned into a sentence on stderr and an exit code."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except KeyboardInterrupt:
            typer.echo("Interrupted; nothing was written.", err=True)
            raise typer.Exit(130) from None
        except typer.Exit:
            raise
        except Exception as error:
            if os.environ.get("WIDELIMIT_TRACEBACK"):
                raise
            typer.echo(f"widelimit: {_sentence(error)}", err=True)
            raise typer.Exit(error.code if isinstance(error, Failure) else 1) from None

    return run


def installed_version() -> str:
    """The version of the installed package; "(not installed)" when run from a source tree."""
    try:
        return importlib.metadata.version("widelimit")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _sentence(error: Exception) -> str:
    if isinstance(error, Failure | WideLimitError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory for this computation."
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return (
        f"Unexpected {type(error).__name__}: {first} "
        "(WIDELIMIT_TRACEBACK=1 shows where it happened)"
    )
