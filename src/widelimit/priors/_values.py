"""What the reader of a constructor knows about each intermediate value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from widelimit.priors._laws import Law


@dataclass(frozen=True, eq=False)
class Known:
    """A concrete array; a constant fill is stored once and broadcast."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return self.array.shape

    def fill(self) -> Any | None:
        """The one number that every entry equals, or None."""
        array = self.array
        if array.size == 0:
            return None
        first = array.reshape(-1)[0] if array.ndim else array[()]
        if all(stride == 0 for stride in array.strides) or array.size == 1:
            return first
        return first if bool(np.all(array == first)) else None


@dataclass(frozen=True, eq=False)
class Keys:
    """Random keys, each known by where it came from."""

    tokens: np.ndarray


@dataclass(frozen=True, eq=False)
class Words:
    """The raw words of keys: pairs (token, position)."""

    tokens: np.ndarray


@dataclass(frozen=True, eq=False)
class Source:
    """Which random numbers an array consists of, in which order.

    Two arrays with the same source hold functions of the same numbers at the same places.

    Attributes
    ----------
    draws
        Which draws they come from: pairs (number of the key, number of the draw).
    identities
        Computes a number for each entry, different for different random numbers; None when an
        entry combines several.
    whole
        Whether it holds every number of its draws exactly once.
    """

    draws: frozenset[tuple[int, int]]
    identities: Callable[[], np.ndarray] | None
    whole: bool = True


@dataclass(frozen=True, eq=False)
class Random:
    """An array of identically distributed entries, independent unless they share numbers."""

    source: Source
    law: Law
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Bits:
    """Raw random bits: ``width`` of them, shifted right by ``shift``, then or-ed with ``ones``."""

    source: Source
    shape: tuple[int, ...]
    width: int
    shift: int = 0
    ones: int = 0


@dataclass(frozen=True, eq=False)
class Opaque:
    """A value that is not understood, and the reason.

    ``factor`` follows a QR factorisation: ("q", id, rows, source), ("r", id) or ("sign", id).
    """

    reason: str
    factor: tuple = field(default=())


Value = Any  # one of the classes above
