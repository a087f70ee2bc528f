"""How commands end: exit codes, and sentences in place of tracebacks."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import os
from collections.abc import Callable
from typing import Any

import typer

from widelimit.errors import WideLimitError

EXIT_CODES = (
    "Exit codes: 0 success; 1 the computation failed, or a limit was refused or found wrong; 2 "
    "wrong usage, or a file that cannot be read, used or written; 130 interrupted. Set "
    "WIDELIMIT_TRACEBACK=1 to see tracebacks."
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
    """The command with every exception turned into a sentence on stderr and an exit code.

    With ``--json`` the sentence is also printed on stdout, as ``{"error": ..., "code": ...}``.
    """

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except KeyboardInterrupt:
            sentence, code = "Interrupted; no half-written files are left.", 130
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if os.environ.get("WIDELIMIT_TRACEBACK"):
                raise
            sentence, code = _sentence(error), error.code if isinstance(error, Failure) else 1
        if options.get("as_json"):
            typer.echo(json.dumps({"error": sentence, "code": code}, indent=2))
        typer.echo(f"widelimit: {sentence}", err=True)
        raise typer.Exit(code)

    return run


def print_json(data: Any) -> None:
    """Print one JSON object on stdout; numbers that are not finite become null."""
    typer.echo(json.dumps(_finite(data), indent=2, ensure_ascii=False))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def installed_version() -> str:
    """The version of the installed package; "(not installed)" when run from a source tree."""
    try:
        return importlib.metadata.version("widelimit")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _sentence(error: Exception) -> str:
    if isinstance(error, Failure | WideLimitError):
        return str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return "There is not enough memory for this computation."
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return (
        f"Unexpected {type(error).__name__}: {first} "
        "(WIDELIMIT_TRACEBACK=1 shows where it happened)"
    )
