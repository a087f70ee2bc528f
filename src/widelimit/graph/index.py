"""Which entries of a parameter an array holds: flat indices, as views of one shared range.

A parameter travels through transposes, reshapes and slices as the array of its own flat indices.
Two uses of a parameter are the same draw when their indices agree, independent when they are
disjoint, and anything in between breaks the independence that the limit rests on.
"""

from __future__ import annotations

import enum
import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_RANGE = np.arange(1 << 16, dtype=np.int32)


def full_index(shape: tuple[int, ...]) -> np.ndarray:
    """The flat indices of a whole array of this shape, without memory of its own.

    Parameters
    ----------
    shape
        The shape of the parameter.

    Returns
    -------
    A view of a shared range, shaped like the parameter.
    """
    global _RANGE
    size = int(np.prod(shape, dtype=np.int64))
    if size > _RANGE.size:
        _RANGE = np.arange(size, dtype=np.int32 if size < 2**31 else np.int64)
    return _RANGE[:size].reshape(shape)


def fingerprint(index: np.ndarray) -> tuple:
    """A key that is equal for index arrays with equal entries.

    Views of the shared range are told by how they walk through it, without reading them.
    """
    if index.size and np.may_share_memory(index, _RANGE):
        strides = tuple(s if n > 1 else 0 for s, n in zip(index.strides, index.shape))
        return ("view", index.dtype.str, int(index.flat[0]), index.shape, strides)
    flat = np.ascontiguousarray(index)
    return (index.shape, hashlib.sha1(flat.astype(np.int64, copy=False)).hexdigest())


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two index arrays hold the same entries in the same places."""
    if a is b:
        return True
    if a.shape != b.shape:
        return False
    if a.size and (a.flat[0] != b.flat[0] or a.flat[-1] != b.flat[-1]):
        return False
    identical_view = (
        a.__array_interface__["data"] == b.__array_interface__["data"]
        and a.strides == b.strides
        and a.dtype == b.dtype
    )
    return identical_view or bool(np.array_equal(a, b))


def disjoint(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two index arrays have no entry in common."""
    if a.size == 0 or b.size == 0:
        return True
    if a.max() < b.min() or b.max() < a.min():
        return True
    return np.intersect1d(a, b).size == 0


class Relation(enum.Enum):
    """How two uses of one parameter relate."""

    SAME = "same"
    DISJOINT = "disjoint"
    OVERLAP = "overlap"


@dataclass(frozen=True, eq=False)
class Draw:
    """Random numbers of one parameter: some axes of channels, then the axes of one channel's.

    Attributes
    ----------
    leaf
        The number of the parameter.
    entries
        Flat indices, as a view where they are one.
    own
        The number of axes that are channels.
    """

    leaf: int
    entries: np.ndarray
    own: int

    @cached_property
    def index(self) -> np.ndarray:
        """The flat indices with one axis per channel, then one flat axis."""
        return self.entries.reshape(*self.entries.shape[: self.own], self.count)

    @property
    def count(self) -> int:
        """The number of entries of a channel."""
        return math.prod(self.entries.shape[self.own :])

    def relation(self, other: Draw) -> Relation:
        """Whether two draws are the same numbers, different ones, or overlap otherwise."""
        if self is other:
            return Relation.SAME
        if self.leaf != other.leaf:
            return Relation.DISJOINT
        if same(self.index, other.index):
            return Relation.SAME
        if disjoint(self.entries, other.entries):
            return Relation.DISJOINT
        return Relation.OVERLAP


def rows_agree(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two contractions of one parameter sum over the same groups of entries.

    ``a`` and ``b`` have shape (channels, contracted). Each row of one must equal a row of the
    other or share no entry with it; a parameter and its transpose do not.
    """
    if same(a, b) or disjoint(a, b):
        return True
    if a.shape[1] != b.shape[1]:
        return False
    first = {int(row[0]): i for i, row in enumerate(a)}
    matched_a, matched_b = [], []
    for j, row in enumerate(b):
        i = first.get(int(row[0]))
        if i is not None and np.array_equal(a[i], row):
            matched_a.append(i)
            matched_b.append(j)
    rest_a = np.delete(a, matched_a, axis=0)
    rest_b = np.delete(b, matched_b, axis=0)
    return disjoint(rest_a, b) and disjoint(rest_b, a)
