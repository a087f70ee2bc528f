"""Which output axes a kernel keeps: all pairs of entries, the diagonal, or the mean of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Axes:
    """The treatment of one output's axes.

    Attributes
    ----------
    shape
        The output's shape for one example.
    trace
        Axes that the kernel is averaged over.
    diagonal
        Axes of which only equal pairs are kept.
    """

    shape: tuple[int, ...]
    trace: tuple[int, ...]
    diagonal: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], trace: Any, diagonal: Any) -> Axes:
        """From what the caller asked for; negative axes count from the end."""
        chosen = [_canonical(axes, len(shape), name) for axes, name in (
            (trace, "trace_axes"), (diagonal, "diagonal_axes")
        )]
        both = sorted(set(chosen[0]) & set(chosen[1]))
        if both:
            msg = f"output axes {both} are in trace_axes and in diagonal_axes"
            raise ValueError(msg)
        if any(shape[a] == 0 for a in chosen[0]):
            msg = f"the mean over an output axis of size 0, of an output of shape {shape}"
            raise ValueError(msg)
        return cls(shape, *chosen)

    @property
    def tied(self) -> tuple[int, ...]:
        """Axes whose index is the same on both sides."""
        return tuple(sorted((*self.trace, *self.diagonal)))

    @property
    def free(self) -> tuple[int, ...]:
        """Axes with an index for each side."""
        return tuple(k for k in range(len(self.shape)) if k not in self.tied)

    @property
    def scale(self) -> float:
        """Of the mean, relative to the sum."""
        return 1 / math.prod(self.shape[k] for k in self.trace)

    @property
    def result(self) -> tuple[int, ...]:
        """The kernel's shape after the two axes of examples."""
        return tuple(self.arranged(self.shape, self.shape))

    def arranged(self, left: Sequence[Any], right: Sequence[Any]) -> list[Any]:
        """One thing for each axis of the kernel: diagonal ones, then left ones, then right."""
        return [
            *(left[k] for k in self.diagonal),
            *(left[k] for k in self.free),
            *(right[k] for k in self.free),
        ]

    def traced(self, left: Sequence[Any]) -> list[Any]:
        """The things of the axes that are averaged over."""
        return [left[k] for k in self.trace]

    def swapped(self) -> tuple[int, ...]:
        """The order of a kernel's axes that exchanges the two sides."""
        d, f = len(self.diagonal), len(self.free)
        inner = [*range(d), *range(d + f, d + 2 * f), *range(d, d + f)]
        return (1, 0, *(2 + k for k in inner))


def _canonical(axes: Any, count: int, name: str) -> tuple[int, ...]:
    chosen = (axes,) if isinstance(axes, int) else tuple(axes)
    for a in chosen:
        if isinstance(a, bool) or not isinstance(a, int) or not -count <= a < count:
            msg = f"{name}: {a!r} is no axis of an output with {count} axes"
            raise ValueError(msg)
    out = tuple(sorted({a % count for a in chosen}))
    if len(out) != len(chosen):
        msg = f"{name}={axes!r} names an axis twice"
        raise ValueError(msg)
    return out
