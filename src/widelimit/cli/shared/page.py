"""Reports: one HTML file that needs nothing else."""

from __future__ import annotations

import html
import importlib.resources
from collections.abc import Mapping
from string import Template
from types import ModuleType

from widelimit.cli import shared


def fill(package: ModuleType, values: Mapping[str, object]) -> str:
    """The ``page.html`` of a package with its blanks filled in, and the common style."""
    template = importlib.resources.files(package).joinpath("page.html").read_text("utf-8")
    style = importlib.resources.files(shared).joinpath("page.css").read_text("utf-8")
    return Template(template).substitute(values, style=style.rstrip())


def pairs(values: dict[str, str]) -> str:
    """Names and values on a line."""
    return " · ".join(f"{html.escape(k)} {html.escape(v)}" for k, v in values.items())
