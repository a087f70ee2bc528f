"""The commands, one file each; a command is a function with Typer annotations."""

from collections.abc import Callable
from typing import Any

from widelimit.cli.commands.demo import demo

COMMANDS: tuple[Callable[..., Any], ...] = (demo,)
