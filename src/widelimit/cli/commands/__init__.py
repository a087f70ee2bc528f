"""The commands, one file each; a command is a function with Typer annotations."""

from collections.abc import Callable
from typing import Any

from widelimit.cli.commands.demo import demo
from widelimit.cli.commands.fit import fit
from widelimit.cli.commands.predict import predict
from widelimit.cli.commands.verify import verify

COMMANDS: tuple[Callable[..., Any], ...] = (demo, fit, predict, verify)
