"""How large a node is, and how large what the law of large numbers left out of it.

A mean over n channels is read as its expectation; its fluctuation, smaller by n^(-1/2), is
dropped. That is right as long as the fluctuation stays small beside the field it ends up in. A
factor that grows with the width, on a field whose other terms are small, undoes it: in
``tanh(h) + sqrt(n) * (mean(h) + 0 * h)`` the mean alone is zero in the limit, and the product is
a random number of order one. Sizes are followed here as natural logarithms through every node.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from widelimit.graph import nodes as n

NOTHING = -math.inf
_USUAL = math.log(3.0)


@dataclass(frozen=True)
class Size:
    """Logarithms of the size of what is kept and of what was dropped.

    ``width`` is the number of channels of the mean whose fluctuation was dropped. ``cancels`` says
    that what is kept may be smaller, as terms that share random numbers were added; ``unknown``
    that it may be larger, as a mean that may be zero or not was counted as nothing.
    """

    kept: float = 0.0
    dropped: float = NOTHING
    width: int = 0
    cancels: bool = False
    unknown: bool = False

    def times(self, other: Size) -> Size:
        """The size of a product."""
        dropped = max(
            self.dropped + other.kept, self.kept + other.dropped, self.dropped + other.dropped
        )
        width, cancels = max(self.width, other.width), self.cancels or other.cancels
        unknown = self.unknown or other.unknown
        return Size(self.kept + other.kept, dropped, width, cancels, unknown)


@dataclass(frozen=True)
class Doubt:
    """What is kept of a mean if that of none of its summands is zero."""

    kept: float
    summands: tuple[n.Node, ...]


class Sizes:
    """The sizes of the nodes of one graph; inputs and layers of unknown scale count as one."""

    def __init__(self, stds: tuple[float | None, ...] = ()) -> None:
        self._stds = stds
        self._known: dict[n.Node, Size] = {}
        self._noted: dict[n.Value, Size] = {}
        self.doubts: dict[n.Value, Doubt] = {}

    def settled(self, zero: set[n.Node]) -> Sizes:
        """The same, where it is known of which fields the mean is zero."""
        other = Sizes(self._stds)
        for value, size in self._noted.items():
            doubt = self.doubts.get(value)
            if doubt is None or zero.intersection(doubt.summands):
                other.note(value, replace(size, unknown=False))
            else:
                other.note(value, replace(size, kept=doubt.kept, unknown=False))
        return other

    def doubt(self, value: n.Value, size: Size, doubt: Doubt) -> None:
        """Remember the size of a value that may be zero: nothing is kept until it is known."""
        self.note(value, replace(size, kept=NOTHING, unknown=True))
        self.doubts[value] = doubt

    def note(self, value: n.Value, size: Size) -> None:
        """Remember the size of a value that came from a sum over width."""
        self._known[value] = self._noted[value] = size

    def of(self, node: n.Node) -> Size:
        """The size of a node."""
        if node not in self._known:
            self._known[node] = self._find(node)
        return self._known[node]

    def largest(self, nodes: Iterable[n.Node]) -> Size:
        """The size of a sum, or of several side by side."""
        return _sum([self.of(x) for x in nodes])

    def factor(self, node: n.Node) -> float:
        """The logarithm of the constants that multiply a field of order one.

        The spread of a layer's weights is no such constant where it is near what keeps the layer
        of order one.
        """
        constant = 0.0
        while isinstance(node, n.Scale) and isinstance(node.factor.node, n.Constant):
            constant += _log(float(np.max(np.abs(node.factor.node.array), initial=0.0)))
            node = node.operand.node
        match node:
            case n.Source():
                # In NTK parameterization the constant and the weights' spread make one layer of
                # order one, in the standard one the spread alone does.
                own = self._weight(node, _terms(node)).kept
                return max(constant + _unusual(own), _unusual(constant + own))
            case n.Product(factors=factors):
                return constant + sum(self.factor(f.node) for f in factors)
            case n.Sum(terms=terms):
                return constant + max(self.factor(t.node) for t in terms)
            case n.Scale() | n.Rearranged() | n.Join():
                return constant + max((self.factor(p.node) for p in node.parts), default=0.0)
        return constant

    def _find(self, node: n.Node) -> Size:
        match node:
            case n.Constant(array=array):
                numbers = np.abs(np.asarray(array, np.complex128))
                return Size(_log(float(np.max(numbers, initial=0.0))))
            case n.Compute(arguments=arguments):
                # A value is of order one whatever it was made of; what it dropped stays.
                inner = [self.of(a) for a in arguments]
                return _sum([Size(), *(Size(0.0, s.dropped, s.width) for s in inner)])
            case n.Source(operand=operand):
                return self.of(operand).times(self._weight(node, _terms(node)))
            case n.Overlap(operand=operand, count=count):
                return self.of(operand).times(Size(math.log(count) / 2))
            case n.Entry():
                return self._weight(node, 1)
            case n.Tangent(factor=factor):
                return self.of(factor.node).times(Size(_log(abs(node.scale))))
            case n.Scale(factor=factor, operand=operand):
                return self.of(factor.node).times(self.of(operand.node))
            case n.Product(factors=factors):
                size = Size()
                for f in factors:
                    size = size.times(self.of(f.node))
                return size
            case n.Apply() | n.Mixed():
                s = _sum([self.of(p.node) for p in n.pointwise_parts(node)])
                # A function may be bounded; what was dropped stays small beside its argument.
                dropped = s.dropped - max(s.kept, 0.0)
                return replace(s, kept=min(s.kept, 0.0), dropped=dropped)
            case n.Map(operand=operand, acted=acted, selects=False):
                # At most as many terms as there are positions, all of one sign.
                terms = math.prod(operand.shape[k] for k in acted)
                size = self.of(operand).times(Size(math.log(max(terms, 1))))
                if node.matrix is not None:
                    for v in node.values:
                        size = size.times(self.of(v))
                return replace(size, cancels=size.cancels or terms > 1)
            case n.Sum(terms=terms):
                size = self.largest(t.node for t in terms)
                return replace(size, cancels=size.cancels or _related([t.node for t in terms]))
            case n.Field():
                return self.largest(p.node for p in node.parts)
        return Size()

    def _weight(self, node: n.Source | n.Entry, terms: int) -> Size:
        """A parameter's factor; where its std is not known yet, the layer is of order one."""
        std = self._stds[node.draw.leaf] if node.draw.leaf < len(self._stds) else None
        return Size() if std is None else Size(_log(abs(node.scale) * std * math.sqrt(terms)))


def _terms(node: n.Source) -> int:
    """How many entries of the parameter add up in one channel; of a table one is looked up."""
    return 1 if isinstance(node.operand, n.OneHot) else node.draw.count


def _unusual(size: float) -> float:
    return 0.0 if abs(size) < _USUAL else size


def _sum(sizes: list[Size]) -> Size:
    return Size(
        max(s.kept for s in sizes), max(s.dropped for s in sizes), max(s.width for s in sizes),
        any(s.cancels for s in sizes), any(s.unknown for s in sizes),
    )


def _related(nodes: list[n.Node]) -> bool:
    """Whether two of them are made of one parameter's random numbers."""
    leaves = [leaf for x in nodes for leaf in {d.leaf for d in n.draws_of(x)}]
    return len(leaves) > len(set(leaves))


def _log(x: float) -> float:
    return math.log(x) if x > 0 else NOTHING
