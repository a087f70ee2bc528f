"""Deep networks whose kernel is a function of one angle, as one short series.

A network that sees its input through inner products only has a kernel k(|x|, |x'|, angle). Where
all inputs have one length, every layer is a function of the angle θ alone, and so is their
composition; so it is for any lengths where the network is positively homogeneous, as with ReLU and
no biases: k = (|x| |x'|)^p f(θ). The layers have square roots of 1 - cos θ in them; in θ they are
analytic, and a Chebyshev series on [0, π] converges geometrically, whatever the depth.

The series is that of the library's own kernel, evaluated in double precision for pairs of vectors
at the Chebyshev points. It is used where its terms fall below rounding and it meets the kernel
between the points; otherwise the layers are evaluated as ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from widelimit.graph import nodes as n
from widelimit.graph.walk import children, reachable
from widelimit.trace import Graph

LAYERS = 3
"""Nonlinearities from which the series is faster than the layers."""
POINTS = 160
"""Points of the series, none of them at its ends, where angles have half the digits."""
TERMS = 96
"""Terms of the longest series that is used."""
TOLERANCES = {4: (2e-7,), 8: (1e-13, 1e-12)}
"""Of what is cut off and of the error between the points, relative to the largest value.

The first that can be met; very deep networks lose digits themselves.
"""
LENGTHS = 8
"""Roundings that squared lengths may differ by."""
TILE = 4096
"""Inputs per tile, at most."""
SCALES, DEGREES, EXACT = (0.31, 1.7, 5.3), 4, 1e-10
"""Lengths at which homogeneity is tried, degrees that are tried, and to what precision."""
WORK = 2 * 10**7
"""Pairs of inputs times nonlinearities from which a series is worth fitting."""
CONDITION = 4
"""How much larger than the kernel its powers of 2θ/π - 1 may be together, to be summed as such."""

PLAIN = 8
"""Fits of a network before its evaluation at the points is worth compiling."""
KNOWN = 16
"""Series that are kept, of other inputs and scales of the weights."""

Evaluate = Callable[[np.ndarray, np.ndarray], Sequence[np.ndarray]]
"""Two batches of vectors -> kernels of all pairs."""


def layers(graph: Graph) -> int:
    """The number of nonlinearities."""
    return sum(isinstance(x, n.Apply) for x in graph.nodes)


def depends_on_angle(graph: Graph) -> bool:
    """Whether a network is deep, and its inputs matter through one inner product only."""
    if layers(graph) < LAYERS:
        return False
    if any(o.node.shape or not isinstance(o.node, n.Field) for o in graph.outputs):
        return False
    nodes = reachable([o.node for o in graph.outputs])
    inputs = [x for x in nodes if isinstance(x, n.Input)]
    readers = [x for x in nodes if any(isinstance(c, n.Input) for c in children(x))]
    whole = lambda x: isinstance(x, n.Source) and not (x.kept or x.windows or x.separate)
    return len(inputs) == 1 and len(inputs[0].shape) == 1 and all(map(whole, readers))


def has_biases(graph: Graph) -> bool:
    """Whether a bias rules out that lengths matter as a power only."""
    return any(isinstance(x, n.Entry) for x in graph.nodes)


@dataclass(frozen=True)
class Lengths:
    """The least and the largest squared length of some rows, all above zero."""

    least: float
    most: float

    @classmethod
    def of(cls, *batches: Any) -> Lengths | None:
        """Of all rows; None if one is zero or not finite."""
        found = [np.asarray(x) for x in batches]
        squares = np.concatenate([np.einsum("ij,ij->i", x, x, dtype=float) for x in found])
        least, most = float(squares.min()), float(squares.max())
        return cls(least, most) if least > 0 and math.isfinite(most) else None

    def equal(self, dtype: Any) -> bool:
        """Whether they agree to rounding."""
        return self.most - self.least <= LENGTHS * float(np.finfo(dtype).eps) * self.most


@dataclass(frozen=True)
class Series:
    """Coefficients of a series in 2θ/π - 1, one row for each kernel.

    ``degrees`` are the powers of the lengths by which each is multiplied, of a homogeneous network.
    ``powers`` says that the coefficients are those of powers, and not of Chebyshev polynomials.
    """

    coefficients: np.ndarray
    degrees: tuple[int, ...]
    powers: bool

    @classmethod
    def fitted(
        cls, evaluate: Evaluate, features: int, square: float, itemsize: int, *, equal: bool
    ) -> Series | None:
        """The series of a kernel for vectors of this squared length.

        None if it converges too slowly, or if lengths are not ``equal`` and matter otherwise than
        as a power.
        """
        points = math.pi / 2 * (1 + np.cos((np.arange(POINTS) + 0.5) * (math.pi / POINTS)))
        between = math.pi / 2 * (1 + np.cos(np.arange(13, POINTS - 12, 5) * (math.pi / POINTS)))
        # What happens nearer to angle zero than any point, as with high frequencies, is seen here.
        between = np.concatenate([between, [0.0], np.logspace(-12, -1, 34)])
        # Vectors of different lengths at small angles lose digits.
        wide = np.abs(between - math.pi / 2) < 1
        tried = between[wide]
        angles = np.concatenate([points, between, np.tile(tried, len(SCALES))])
        ones = np.ones(len(points) + len(between))
        lengths = np.concatenate([ones, np.repeat(SCALES, len(tried))])
        first, second = np.zeros((1, features)), np.zeros((len(angles), features))
        first[0, 0] = 1
        second[:, 0], second[:, 1] = lengths * np.cos(angles), lengths * np.sin(angles)
        found = evaluate(math.sqrt(square) * first, math.sqrt(square) * second)
        values = np.stack([np.asarray(f, float).reshape(-1) for f in found])
        if not np.all(np.isfinite(values)):
            return None
        sections = np.cumsum([len(points), len(between)])
        own, other, scaled = np.split(values, sections, axis=1)
        largest = np.maximum(np.abs(own).max(1, keepdims=True), np.finfo(float).tiny)
        degrees = (0,) * len(values)
        if not equal:
            degrees = tuple(map(_degree, other[:, wide] / largest, scaled / largest))
            if None in degrees:
                return None
        terms = _terms(own)
        kept = _shortest(terms / largest, 2 * between / math.pi - 1, other / largest, itemsize)
        if kept is None:
            return None
        # Half the operations, where they cancel little.
        monomials = np.stack([np.polynomial.chebyshev.cheb2poly(row) for row in kept])
        powers = bool(np.all(np.abs(monomials).sum(1) <= CONDITION))
        lengths = square ** np.array(degrees, float)[:, None]
        return cls((monomials if powers else kept) * largest / lengths, degrees, powers)


class Fits:
    """The series that a network was given before, and for which kernels there is none."""

    def __init__(self) -> None:
        self._known: dict[tuple, Series] = {}
        self._declined: set[tuple] = set()
        self._count = 0

    def declined(self, key: tuple) -> bool:
        """Whether a series was tried in vain."""
        return key in self._declined

    def of(self, key: tuple, values: tuple, fit: Callable[[bool], Series | None]) -> Series | None:
        """The series for these values; fitted, by a compiled program or not, if it is new."""
        if (key, values) in self._known:
            return self._known[key, values]
        found = fit(self._count >= PLAIN)
        self._count += 1
        if found is None:
            self._declined.add(key)
            return None
        if len(self._known) == KNOWN:
            del self._known[next(iter(self._known))]
        self._known[key, values] = found
        return found


def _terms(values: np.ndarray) -> np.ndarray:
    """Chebyshev coefficients from the values at cos((k + 1/2) π / n), in rows."""
    n = values.shape[1]
    cosines = np.cos(np.outer(np.arange(n) + 0.5, np.arange(n)) * (math.pi / n))
    return values @ cosines * np.where(np.arange(n) == 0, 1 / n, 2 / n)


def _shortest(
    terms: np.ndarray, x: np.ndarray, values: np.ndarray, itemsize: int
) -> np.ndarray | None:
    """The terms that are needed for rows of values of size one; None if there are too many."""
    rest = np.cumsum(np.abs(terms[:, ::-1]), 1)[:, ::-1]
    for bound in TOLERANCES[itemsize]:
        enough = np.flatnonzero(np.all(rest <= bound, 0))
        if not len(enough) or enough[0] > TERMS:
            continue
        # Multiples of four: few lengths are few programs.
        kept = terms[:, : -(-int(enough[0]) // 4) * 4]
        error = np.polynomial.chebyshev.chebval(x, kept.T) - values
        if np.all(np.abs(error) <= 2 * bound):
            return kept
    return None


def _degree(values: np.ndarray, scaled: np.ndarray) -> int | None:
    """The power of a vector's length that a kernel grows by; None if it is no small power."""
    for degree in range(DEGREES):
        powers = np.repeat(np.array(SCALES) ** float(degree), len(values))
        if np.all(np.abs(scaled - powers * np.tile(values, len(SCALES))) <= EXACT * powers):
            return degree
    return None
