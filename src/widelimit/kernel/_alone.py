"""What is asked of each example alone, computed once for each example and not for each tile.

The moments of a pair need variances of both examples. Where something is pooled below a
nonlinearity, or attends, a variance is itself a sum over pairs of positions, and costs as much as
the moments of the pair. Tiles hold few such pairs, so that most of their time would go into it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.limit.evaluate import Evaluation

SHARE = 0.1
"""The part of a tile's entries from which it is worth a program of its own."""


@dataclass(frozen=True)
class Alone:
    """Moments and means of examples with themselves.

    Attributes
    ----------
    asked
        Their keys, and how to ask an evaluation for them.
    tree
        The structure of their values, some of which are tuples and some nothing.
    share
        Their entries for one example as a part of a pair's entries.
    """

    asked: dict[tuple, Callable[[Evaluation], Any]]
    tree: Any
    share: float

    @classmethod
    def of(cls, ev: Evaluation) -> Alone:
        """What an evaluation of two examples with two was asked for."""
        alone, pairs = ev.work()
        asked = dict(ev.asked)
        tree = jax.tree.structure([ask(ev) for ask in asked.values()])
        return cls(asked, tree, alone / max(pairs, 1))

    def worthwhile(self, size: int) -> bool:
        """Whether tiles of this size would spend much of their time on it."""
        return bool(self.asked) and 2 * self.share > SHARE * size

    def compute(self, ev: Evaluation, count: int) -> tuple[list[Any], Any]:
        """All of it for ``count`` examples, and whether some variable is empty."""
        found = jax.tree.leaves([ask(ev) for ask in self.asked.values()])
        full = lambda x: jnp.broadcast_to(x, (count, *x.shape[1:]))
        empty = jnp.any(jnp.stack(ev.empty)) if ev.empty else jnp.zeros((), bool)
        return [full(x) for x in found], empty

    def given(self, *sides: list[Any]) -> dict[tuple, Any]:
        """What was computed for one side or two, as an evaluation of these takes it."""
        out = {}
        for side, found in enumerate(sides):
            values = jax.tree.unflatten(self.tree, found)
            for key, value in zip(self.asked, values, strict=True):
                out[(*key, side if key[0] == "mean" else ("left", "right")[side])] = value
        return out
