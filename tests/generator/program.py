"""Random networks as Python source, written as functions of the width ``n``.

A network is text, so that a failing one can be read, cut down and filed as it is.
"""

from __future__ import annotations

import linecache
import random
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from vocabulary import PRELUDE


class Stage(NamedTuple):
    """One comparison: so many draws at a width, and the deviation that needs another look.

    Deviations are in units of the standard error and of 3 / width, in squares.
    """

    width: int
    draws: int
    limit: float


STAGES = (Stage(128, 32, 3), Stage(512, 32, 4.5), Stage(1024, 48, 5.5))
"""From cheap to certain; a stage runs only if the last one doubts."""


@dataclass
class Value:
    """A name in the program: its width as text, its positions, whether it is Gaussian."""

    name: str
    width: str
    positions: int | None
    gaussian: bool


@dataclass
class Program:
    """A network as source text."""

    seed: int
    shapes: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    input_shapes: Any = None
    features: list[str] = field(default_factory=list)
    stages: tuple[Stage, ...] = STAGES

    @property
    def source(self) -> str:
        """The text of ``f(p, x)``."""
        return "def f(p, x):\n" + "\n".join("    " + line for line in self.lines) + "\n"

    def at(self, n: int) -> tuple[Any, dict[str, tuple[int, ...]]]:
        """The function and its parameter shapes at width ``n``."""
        name = f"<network {self.seed} at {n}>"
        text = PRELUDE + self.source
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        space: dict[str, Any] = {"jax": jax, "jnp": jnp, "np": np, "n": n}
        exec(compile(text, name, "exec"), space)
        shapes = {k: tuple(eval(s, {"n": n})) for k, s in self.shapes.items()}
        return space["f"], shapes


class Draft:
    """A program being written, line by line."""

    def __init__(self, seed: int, illegal: float = 0.12) -> None:
        self.r = random.Random(seed)
        self.p = Program(seed)
        self.illegal = illegal
        self.count = 0
        self.values: list[Any] = []

    def note(self, name: str) -> None:
        self.p.features.append(name)

    def fresh(self, prefix: str = "h") -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def let(self, text: str, prefix: str = "h") -> str:
        name = self.fresh(prefix)
        self.p.lines.append(f"{name} = {text}")
        return name

    def param(self, shape: str, prefix: str = "W") -> str:
        name = self.fresh(prefix)
        self.p.shapes[name] = f"({shape},)"
        return f'p["{name}"]'

    def maybe(self, probability: float) -> bool:
        return self.r.random() < probability
