"""The graph of a network: values known for each example, and random fields over width.

A *value* is an array that is deterministic given the example. A *field* is a family of random
variables: one for each position, and independent copies of it along every channel axis (an axis
whose size goes to infinity). Fields carry their position axes in ``shape`` and their channel axes
in ``channels``. Nodes are immutable and compared by identity; the builders in ``build.py`` return
the same node for the same contents, so that identity means equality of the random variable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from widelimit.errors import Where
from widelimit.graph.index import Draw, Relation
from widelimit.graph.scalar import Scalar
from widelimit.graph.values import Compute as Compute
from widelimit.graph.values import Constant as Constant
from widelimit.graph.values import Input as Input
from widelimit.graph.values import Node as Node
from widelimit.graph.values import OneHot as OneHot
from widelimit.graph.values import Part as Part
from widelimit.graph.values import Shape as Shape
from widelimit.graph.values import Value as Value
from widelimit.graph.values import whole as whole
from widelimit.graph.values import within as within
from widelimit.graph.windows import Window


@dataclass(frozen=True, eq=False)
class Expectation(Value):
    """The mean of a field: what a sum over width tends to, divided by the width."""

    operand: Field


# --------------------------------------------------------------------------- fields


@dataclass(frozen=True, eq=False)
class Field(Node):
    """Random variables over positions, independent copies of them over channels."""

    channels: Shape
    where: Where | None = field(repr=False)

    gaussian = False

    @cached_property
    def draws(self) -> tuple[Draw, ...]:
        """The random numbers the field depends on directly, not through a deeper layer."""
        return unique_draws(d for p in self.parts for d in draws_of(p.node))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The nodes that this one is made of, at the same layer."""
        return ()

    @cached_property
    def overlaps(self) -> tuple[Overlap, ...]:
        """The sums over width, scaled to stay random, that it is made of at the same layer."""
        found = [x for p in self._inner for x in p.overlaps]
        return tuple({id(x): x for x in found}.values())

    @cached_property
    def alike(self) -> frozenset[int]:
        """The channel axes along which some part of it is one random variable."""
        return frozenset().union(*(p.alike for p in self._inner))

    @cached_property
    def alone(self) -> bool:
        """Whether some part of it is one random number, with no independent copies beside it."""
        return any(p.alone for p in self._inner)

    @cached_property
    def several(self) -> bool:
        """Whether some part of it is a function of several positions at once."""
        return any(p.several for p in self._inner)

    @cached_property
    def drawable(self) -> bool:
        """Whether it is a function, place by place, of Gaussian fields and of known values."""
        if self.gaussian:
            return True
        if isinstance(self, Copied):
            return self.operand.drawable
        if not isinstance(self, POINTWISE):
            return False
        return all(p.node.drawable for p in pointwise_parts(self) if isinstance(p.node, Field))

    @property
    def _inner(self) -> list[Field]:
        return [p.node for p in self.parts if isinstance(p.node, Field)]


@dataclass(frozen=True, eq=False)
class Drawn(Field):
    """A Gaussian field made of a parameter's own random numbers."""

    draw: Draw = field(repr=False)

    gaussian = True

    @cached_property
    def draws(self) -> tuple[Draw, ...]:
        """The parameter's own numbers."""
        return (self.draw,)


@dataclass(frozen=True, eq=False)
class Source(Drawn):
    """A parameter contracted with ``operand``: Gaussian by the central limit theorem.

    The axes of the operand are, in this order, those in ``kept`` (they become the positions),
    and those in ``summed``. Along the kept axes listed in ``separate`` the parameter has an axis
    too, so that different positions see different draws. A convolution has further axes of taps,
    one for each pair (kept axis, window) in ``windows``, in that order.
    """

    operand: Node = field(repr=False)
    kept: tuple[int, ...]
    summed: tuple[int, ...]
    separate: tuple[int, ...]
    count: int
    scale: float
    windows: tuple[tuple[int, Window], ...] = ()


@dataclass(frozen=True, eq=False)
class Weighted(Source):
    """Each channel of ``operand`` times its own entries, summed over few taps: not Gaussian.

    No axis that is summed is wide, as in a depthwise convolution. The second moments are those of
    a source; the law is that of a product.
    """

    gaussian = False

    @cached_property
    def draws(self) -> tuple[Draw, ...]:
        """The parameter's own numbers, and those of the operand that they multiply."""
        return unique_draws((self.draw, *draws_of(self.operand)))

    @cached_property
    def alike(self) -> frozenset[int]:
        """As the operand: weights of their own do not make copies independent."""
        return self.operand.alike if isinstance(self.operand, Field) else frozenset()

    @cached_property
    def alone(self) -> bool:
        """As the operand."""
        return isinstance(self.operand, Field) and self.operand.alone


OVERLAPS = Draw(-1, np.zeros((1,), int), 0)
"""Stands for the random numbers of all overlaps: which of them are related, their moments say."""


@dataclass(frozen=True, eq=False)
class Overlap(Field):
    """The sum of ``operand``, of mean zero, over its last channels: Gaussian over the others.

    Attention logits scaled by 1/sqrt(d) are of this kind. By the central limit theorem the sum is
    independent of any finite number of the channels summed.
    """

    operand: Field = field(repr=False)
    count: int

    gaussian = True

    @cached_property
    def overlaps(self) -> tuple[Overlap, ...]:
        """Itself."""
        return (self,)

    @cached_property
    def draws(self) -> tuple[Draw, ...]:
        """Numbers of its own."""
        return (OVERLAPS,)


@dataclass(frozen=True, eq=False)
class Entry(Drawn):
    """The entries of a parameter themselves, less their mean: a bias."""

    scale: float


@dataclass(frozen=True, eq=False)
class Tangent(Drawn):
    """A constant parameter's entry times ``factor``: no variance, but a direction of training.

    The parameter's value is in the rest of the graph; this node is the displacement around it,
    zero at initialisation. ``shared`` says that one entry serves all channels.
    """

    scale: float
    factor: Part
    shared: bool


@dataclass(frozen=True, eq=False)
class Rearranged(Field):
    """One field, its entries placed or added anew along positions: Gaussian if that field is."""

    operand: Field

    @property
    def gaussian(self) -> bool:  # type: ignore[override]
        """As the operand."""
        return self.operand.gaussian

    @property
    def parts(self) -> tuple[Part, ...]:
        """The operand."""
        return (whole(self.operand),)


@dataclass(frozen=True, eq=False)
class Spread(Rearranged):
    """A channel axis read as the last position axis: independent from place to place."""


@dataclass(frozen=True, eq=False)
class Copied(Rearranged):
    """A field repeated along further channel axes: channel k of the operand is ``own[k]`` here.

    The copies along the other axes are one random variable, as the attention weights of a head
    are for all channels of its values. A sum over those axes is over all of the channels.
    """

    own: tuple[int, ...]

    @property
    def copies(self) -> tuple[int, ...]:
        """The channel axes along which nothing changes."""
        return tuple(k for k in range(len(self.channels)) if k not in self.own)

    @cached_property
    def alone(self) -> bool:
        """Whether no channels are left but copies."""
        return not self.own or self.operand.alone

    @cached_property
    def alike(self) -> frozenset[int]:
        """The copies, and what the operand shares along its own channels."""
        return frozenset((*self.copies, *(self.own[k] for k in self.operand.alike)))


@dataclass(frozen=True, eq=False)
class Sum(Field):
    """The sum of fields and values."""

    terms: tuple[Part, ...]

    @cached_property
    def gaussian(self) -> bool:  # type: ignore[override]
        """A sum of Gaussian fields and known values is Gaussian."""
        return all(isinstance(p.node, Value) or is_gaussian(p.node) for p in self.terms)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The terms."""
        return self.terms


@dataclass(frozen=True, eq=False)
class Scale(Field):
    """A field times a known value."""

    factor: Part
    operand: Part

    @property
    def gaussian(self) -> bool:  # type: ignore[override]
        """As the operand."""
        return is_gaussian(self.operand.node)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The operand."""
        return (self.operand,)


@dataclass(frozen=True, eq=False)
class Map(Rearranged):
    """A linear map over some position axes of ``operand``.

    ``function(block, *values)`` takes the ``acted`` axes of one example, in that order, and
    returns the last ``n_out`` axes of this node. ``selects`` says that each output is one of the
    inputs or zero, so that the map commutes with taking the diagonal. A map of one axis to one
    axis may come with ``along(array, axis)``, the same map of one axis of any array. A
    product with a known array comes with ``matrix(value)``, of shape (batch, outputs, inputs).
    """

    acted: tuple[int, ...]
    n_out: int
    function: Callable[..., Any] = field(repr=False)
    values: tuple[Value, ...]
    selects: bool
    name: str
    along: Callable[..., Any] | None = field(default=None, repr=False)
    matrix: Callable[..., Any] | None = field(default=None, repr=False)

    @property
    def untouched(self) -> tuple[int, ...]:
        """The operand's axes that pass through; they come first."""
        return tuple(k for k in range(len(self.operand.shape)) if k not in self.acted)


@dataclass(frozen=True, eq=False)
class Join(Field):
    """Nodes joined along position axis ``axis``; all have this node's other axes."""

    pieces: tuple[Node, ...]
    axis: int

    @cached_property
    def gaussian(self) -> bool:  # type: ignore[override]
        """All pieces are Gaussian or known."""
        return all(isinstance(p, Value) or is_gaussian(p) for p in self.pieces)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The pieces."""
        return tuple(whole(p) for p in self.pieces)


@dataclass(frozen=True, eq=False)
class Apply(Field):
    """A scalar function of one zero-mean Gaussian field and of known values.

    ``fluctuates`` says that among the values were means over width, which vanish in the limit only.
    """

    expression: Scalar
    root: Part
    values: tuple[Part, ...]
    fluctuates: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """The root."""
        return (self.root,)


@dataclass(frozen=True, eq=False)
class Product(Field):
    """The product of fields."""

    factors: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The factors."""
        return self.factors


@dataclass(frozen=True, eq=False)
class Together(Field):
    """A function of several positions at once, such as a softmax of attention logits.

    ``function`` takes the blocks of ``operands`` of one channel of one example.
    """

    function: Callable[..., Any] = field(repr=False)
    operands: tuple[Node, ...]
    name: str

    several = True

    @property
    def parts(self) -> tuple[Part, ...]:
        """The fields among the operands."""
        return tuple(whole(x) for x in self.operands if isinstance(x, Field))


@dataclass(frozen=True, eq=False)
class Mixed(Field):
    """A scalar function of several fields, place by place, that are no functions of one Gaussian.

    ``function`` takes the ``operands`` one number each, or broadcast arrays of them. The state of
    a gated recurrent cell is of this kind. ``fluctuates`` is as in :class:`Apply`.
    """

    function: Callable[..., Any] = field(repr=False)
    operands: tuple[Part, ...]
    name: str
    fluctuates: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """The operands."""
        return self.operands


POINTWISE = (Sum, Scale, Apply, Product, Mixed)
"""Fields that are computed place by place, and can be rebuilt over other parts."""


# --------------------------------------------------------------------------- questions


def pointwise_parts(node: Field) -> tuple[Part, ...]:
    """All that a node is made of at its own layer, known values included."""
    match node:
        case Scale(factor=factor, operand=operand):
            return (factor, operand)
        case Apply(root=root, values=values):
            return (root, *values)
    return node.parts


def of_overlaps(node: Node) -> bool:
    """Whether a field is made of nothing random but sums over width that stay random."""
    return isinstance(node, Field) and node.draws == (OVERLAPS,)


def is_gaussian(node: Node) -> bool:
    """Whether the node is a field with jointly Gaussian entries."""
    return isinstance(node, Field) and bool(node.gaussian)


def draws_of(node: Node) -> tuple[Draw, ...]:
    """The draws of a field; none for a value."""
    return node.draws if isinstance(node, Field) else ()


def related(a: Node, b: Node) -> bool:
    """Whether two nodes share random numbers at their own layer."""
    return any(
        x.leaf == y.leaf and x.relation(y) is not Relation.DISJOINT
        for x in draws_of(a) for y in draws_of(b)
    )


def unique_draws(draws: Any) -> tuple[Draw, ...]:
    """The draws without repetition."""
    seen: dict[int, Draw] = {}
    for draw in draws:
        seen.setdefault(id(draw), draw)
    return tuple(seen.values())


def shifted(node: Node) -> bool:
    """Whether this is a Gaussian field with a mean: a sum of values and of centred fields."""
    return isinstance(node, Sum) and node.gaussian and not zero_mean(node)


def zero_mean(node: Node) -> bool:
    """Whether a node has mean zero whatever the input."""
    match node:
        case Constant(array=array):
            return not np.any(array)
        case Value():
            return False
        case Source() | Overlap() | Entry() | Tangent():
            return True
        case Sum() | Scale() | Map() | Spread() | Join() | Copied():
            return all(zero_mean(p.node) for p in node.parts)
        case Product(factors=factors):
            draws = [draws_of(f.node) for f in factors]
            alone = [
                all(not set(d) & set(other) for j, other in enumerate(draws) if j != i)
                for i, d in enumerate(draws)
            ]
            return any(zero_mean(f.node) and a for f, a in zip(factors, alone))
    return False
