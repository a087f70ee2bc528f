"""The parameters of a network while it is read: what is known of each, and how each is used."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from widelimit.errors import (
    MisalignedWidthError,
    NarrowWidthWarning,
    TransposedWeightError,
    WideLimitError,
)
from widelimit.graph import nodes as n
from widelimit.graph.build import Builder
from widelimit.graph.index import fingerprint, rows_agree
from widelimit.trace.arrays import Array, Atom, Channel, Operand, Parameter, Repeat


@dataclass(frozen=True)
class Leaf:
    """One parameter array: its name, its mean, and whether it is the same in every draw.

    ``std`` is only a hint of size: None where it is not a number yet.
    """

    name: str
    shape: tuple[int, ...]
    mean: float
    constant: bool
    std: float | None = None


@dataclass
class Use:
    """Entries of a parameter that were used together: ``rows`` axes of sums, then their terms."""

    entries: np.ndarray
    rows: int

    @cached_property
    def key(self) -> tuple:
        """Equal for equal uses."""
        return (self.rows, fingerprint(self.entries))

    @cached_property
    def table(self) -> np.ndarray:
        """The entries as (sums, terms)."""
        return self.entries.reshape(
            math.prod(self.entries.shape[: self.rows]), math.prod(self.entries.shape[self.rows :])
        )


@dataclass
class Leaves:
    """All parameters, and the groups of entries each was contracted in so far."""

    infos: tuple[Leaf, ...]
    uses: dict[int, list[Use]] = field(default_factory=dict)

    def use(self, b: Builder, leaf: int, entries: np.ndarray, rows: int) -> None:
        """Record that entries of a parameter are used together: sums first, then their terms.

        Raises
        ------
        TransposedWeightError
            If another use sums over other groups of the same entries, as W and its transpose do.
        """
        new = Use(entries, rows)
        earlier = self.uses.setdefault(leaf, [])
        if any(other.key == new.key for other in earlier):
            return
        for other in earlier:
            if not rows_agree(other.table, new.table):
                name = self.infos[leaf].name
                raise TransposedWeightError(
                    f"parameter `{name}` is used in two ways that share entries",
                    why="for example as W and as its transpose, or contracted and elementwise: "
                    "the two uses are correlated in the limit, which the recursion for "
                    "independent draws does not describe.",
                    remedy="give each use its own parameter (untie the weights).",
                    where=b.where,
                )
        earlier.append(new)


NARROW = 3
"""A contracted axis of at most this size is hardly wide."""
NARROW_MEAN = 15
"""A mean over so few channels is hardly deterministic."""


def narrow(b: Builder, size: int, limit: int = NARROW) -> None:
    """Warn when a very short axis is about to be treated as infinitely wide."""
    if size <= limit:
        place = f" at {b.where}" if b.where else ""
        warnings.warn(
            f"an axis of size {size} is treated as infinitely wide{place}; the limit may be far "
            "from this network",
            NarrowWidthWarning,
            stacklevel=2,
        )


def constant_along(index: np.ndarray, axis: int) -> bool:
    """Whether the entries repeat along an axis."""
    if index.shape[axis] == 1 or index.strides[axis] == 0:
        return True
    first = tuple(int(k == axis) for k in range(index.ndim))
    if index.size and index[first] != index.flat[0]:
        return False
    return bool(np.all(index == np.take(index, [0], axis=axis)))


def entries(b: Builder, leaves: Leaves, p: Parameter) -> Array:
    """A parameter used elementwise: its mean plus its random entries."""
    axes: list[tuple[Atom, ...]] = []
    index = p.index
    channels: list[int] = []
    take: list[object] = []
    for k, size in enumerate(index.shape):
        if size == 1:
            axes.append(())
            take.append(0)
        elif constant_along(index, k):
            axes.append((Repeat(size),))
            take.append(0)
        else:
            axes.append((Channel(len(channels)),))
            channels.append(size)
            take.append(slice(None))
    block = index[tuple(take)]  # type: ignore[index]
    info = leaves.infos[p.leaf]
    if len(np.unique(block)) != block.size:
        raise MisalignedWidthError(
            f"entries of parameter `{info.name}` are repeated by indexing",
            why="repeated entries are not independent of each other.",
            remedy="index every entry at most once.",
            where=b.where,
        )
    leaves.use(b, p.leaf, block, block.ndim)
    draw = b.draw(p.leaf, block, block.ndim)
    shape = tuple(channels)
    if info.constant:
        one = n.Part(b.constant(np.ones(())), ())
        random: n.Field = b.tangent(draw, p.scale, one, (), shape, shared=False)
    else:
        random = b.entry(draw, p.scale, shape)
    if info.mean:
        mean = n.Part(b.constant(np.asarray(info.mean * p.scale)), ())
        random = b.add((), shape, (mean, n.whole(random)))
    return Array(random, tuple(axes))


def as_array(b: Builder, leaves: Leaves, operand: Operand) -> Array:
    """An operand as a value or a field; joined pieces of different kinds have no such form."""
    if isinstance(operand, Parameter):
        return entries(b, leaves, operand)
    if isinstance(operand, Array):
        return operand
    raise WideLimitError(
        "an array joined from different kinds is used as a whole",
        why="its parts (known inputs and wide fields, or fields of different layers) have no "
        "common description here.",
        remedy="apply a dense layer to the joined array, or work on the parts before joining.",
        where=b.where,
    )
