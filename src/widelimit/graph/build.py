"""Builders: every node is made here, once for the same contents.

A Gaussian field with a mean is always a flat sum of known values and of fields of mean zero (see
``apart.py``). The formulas for Gaussian fields rely on it, as they are those of mean zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from widelimit.errors import Where
from widelimit.graph import apart, joins
from widelimit.graph import nodes as n
from widelimit.graph.arrange import over_axes
from widelimit.graph.index import Draw, fingerprint
from widelimit.graph.nodes import Part, Shape, whole
from widelimit.graph.scalar import Scalar
from widelimit.graph.sizes import Size, Sizes
from widelimit.graph.terms import collected
from widelimit.graph.windows import Window


class Builder:
    """Makes the nodes of one graph, and returns the same node for the same contents."""

    def __init__(self, stds: tuple[float | None, ...] = ()) -> None:
        self.sizes = Sizes(stds)
        self._table: dict[tuple, Any] = {}
        self._keep: list[Any] = []  # keys hold identities, so what they identify must stay alive
        self.where: Where | None = None
        self.nodes: list[n.Node] = []
        self.suspects: list[tuple[n.Field, Where | None]] = []

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        if key not in self._table:
            self._table[key] = node = make()
            if isinstance(node, n.Node):
                self.nodes.append(node)
        return self._table[key]

    def draw(self, leaf: int, entries: np.ndarray, own: int) -> Draw:
        """The draw of these entries, ``own`` axes of channels first; equal views are one object."""
        data = entries.__array_interface__["data"][0]
        view = (data, entries.strides, entries.shape, entries.dtype.str, own)
        known = self._table.get(("view", leaf, view))
        if known is None:
            self._keep.append(entries)
            key = ("draw", leaf, own, fingerprint(entries))
            known = self._once(key, lambda: Draw(leaf, entries, own))
            self._table[("view", leaf, view)] = known
        return known

    # ----------------------------------------------------------------- values

    def constant(self, array: np.ndarray) -> n.Constant:
        """A value that is the same for every example."""
        array = np.asarray(array)
        key = ("constant", array.shape, array.dtype.str, array.tobytes())
        return self._once(key, lambda: n.Constant(array.shape, array.dtype, array))

    def compute(
        self,
        name: str,
        function: Callable[..., Any],
        arguments: tuple[n.Value, ...],
        shape: Shape,
        dtype: Any,
        output: int | None = None,
    ) -> n.Value:
        """A function of values, not shared: functions have no equality to compare."""
        node = n.Compute(shape, dtype, name, function, arguments, output)
        self.nodes.append(node)
        return node

    def one_hot(self, index: n.Value, size: int) -> n.Value:
        """What is one at the place ``index`` names, along a new last axis."""
        key = ("one hot", id(index), size)
        shape = (*index.shape, size)
        return self._once(key, lambda: n.OneHot(shape, np.dtype(np.float64), index))

    def expectation(self, operand: n.Field, dtype: Any) -> n.Value:
        """The mean of a field."""
        key = ("mean", id(operand))
        return self._once(key, lambda: n.Expectation(operand.shape, dtype, operand))

    # ----------------------------------------------------------------- fields

    def source(
        self,
        draw: Draw,
        operand: n.Node,
        kept: tuple[int, ...],
        summed: tuple[int, ...],
        separate: tuple[int, ...],
        count: int,
        scale: float,
        channels: Shape,
        windows: tuple[tuple[int, Window], ...] = (),
        kind: type[n.Source] = n.Source,
    ) -> n.Source:
        """A parameter contracted with ``operand``."""
        options = (kept, summed, separate, count, scale, windows)
        key = (kind, id(draw), id(operand), channels, *options)
        seen = dict(windows)
        shape = tuple(
            seen[k].outputs(operand.shape[k]) if k in seen else operand.shape[k] for k in kept
        )
        return self._once(
            key, lambda: kind(shape, channels, self.where, draw, operand, *options)
        )

    def resourced(
        self, node: n.Source, channels: Shape, *, draw: Draw | None = None,
        operand: n.Node | None = None,
    ) -> n.Source:
        """The same contraction of other channels."""
        return self.source(
            draw or node.draw, operand or node.operand, node.kept, node.summed, node.separate,
            node.count, node.scale, channels, node.windows, type(node),
        )

    def overlap(self, operand: n.Field, summed: int) -> n.Overlap:
        """The sum over the last ``summed`` channels of a field of mean zero."""
        key = ("overlap", id(operand), summed)
        kept = len(operand.channels) - summed
        count = math.prod(operand.channels[kept:])
        channels = operand.channels[:kept]
        return self._once(
            key, lambda: n.Overlap(operand.shape, channels, self.where, operand, count)
        )

    def together(
        self, function: Callable[..., Any], operands: tuple[n.Node, ...], shape: Shape,
        channels: Shape, name: str,
    ) -> n.Together:
        """A function of several positions at once."""
        self._keep.append(function)
        key = ("together", id(function), *(id(x) for x in operands), shape, channels)
        return self._once(
            key, lambda: n.Together(shape, channels, self.where, function, operands, name)
        )

    def copied(self, operand: n.Field, channels: Shape, own: tuple[int, ...]) -> n.Field:
        """A field repeated along channels other than its ``own``."""
        if len(own) == len(channels):
            return operand
        match operand:
            case n.Sum() | n.Scale() | n.Product() | n.Apply() | n.Mixed():
                # Inside, so that a mean stays a known term of the sum.
                inside = lambda p: (
                    Part(self.copied(p.node, channels, own), p.dims)
                    if isinstance(p.node, n.Field) else p
                )
                return self.rebuild(operand, operand.shape, channels, inside)
        key = ("copied", id(operand), channels, own)
        return self._once(
            key, lambda: n.Copied(operand.shape, channels, self.where, operand, own)
        )

    def entry(self, draw: Draw, scale: float, channels: Shape) -> n.Entry:
        """The entries of a random parameter, less their mean."""
        key = ("entry", id(draw), scale, channels)
        return self._once(key, lambda: n.Entry((), channels, self.where, draw, scale))

    def tangent(
        self, draw: Draw, scale: float, factor: Part, shape: Shape, channels: Shape, shared: bool
    ) -> n.Tangent:
        """A constant parameter's direction of training."""
        key = ("tangent", id(draw), scale, *_key(factor), shape, channels, shared)
        return self._once(
            key, lambda: n.Tangent(shape, channels, self.where, draw, scale, factor, shared)
        )

    def add(self, shape: Shape, channels: Shape, terms: Iterable[Part]) -> n.Field:
        """The sum of parts, at least one of them a field; like terms are one, zeros dropped."""
        flat = [t for t in apart.flattened(terms) if not _is_zero(t.node)]
        kept = tuple(collected(self, flat))
        if len(kept) == 1:
            (only,) = kept
            as_it_is = only.node.shape == shape and only.dims == tuple(range(len(shape)))
            if as_it_is and isinstance(only.node, n.Field):
                return only.node
        if not kept:
            kept = (Part(self.constant(np.zeros(())), ()),)
        key = ("add", shape, channels, *(_key(t) for t in kept))
        return self._once(key, lambda: n.Sum(shape, channels, self.where, kept))

    def scale(self, shape: Shape, channels: Shape, factor: Part, operand: Part) -> n.Field:
        """A field times a value."""
        one = isinstance(factor.node, n.Constant) and np.all(factor.node.array == 1)
        if one and operand.node.shape == shape and operand.dims == tuple(range(len(shape))):
            assert isinstance(operand.node, n.Field)
            return operand.node
        if n.shifted(operand.node):
            return apart.scale(self, shape, channels, factor, operand)
        key = ("scale", shape, channels, _key(factor), _key(operand))
        return self._once(key, lambda: n.Scale(shape, channels, self.where, factor, operand))

    def product(self, shape: Shape, channels: Shape, factors: Iterable[Part]) -> n.Field:
        """The product of fields; constant parameters among them become tangents."""
        factors = tuple(factors)
        for i, f in enumerate(factors):
            if isinstance(f.node, n.Tangent) and _is_one(f.node.factor.node):
                rest = factors[:i] + factors[i + 1 :]
                inner = rest[0] if len(rest) == 1 else Part(
                    self.product(shape, channels, rest), tuple(range(len(shape)))
                )
                # A tangent has no positions of its own unless it was spread over them.
                if f.node.shape == ():
                    return self.tangent(
                        f.node.draw, f.node.scale, inner, shape, channels, f.node.shared
                    )
        key = ("product", shape, channels, *(_key(f) for f in factors))
        return self._once(key, lambda: n.Product(shape, channels, self.where, factors))

    def apply(
        self,
        shape: Shape,
        channels: Shape,
        expression: Scalar,
        root: Part,
        values: tuple[Part, ...],
    ) -> n.Field:
        """A scalar function of one Gaussian field."""
        self._keep.append(expression)
        key = ("apply", shape, channels, id(expression), _key(root), *(_key(v) for v in values))
        return self._once(
            key, lambda: n.Apply(shape, channels, self.where, expression, root, values)
        )

    def mixed(
        self, shape: Shape, channels: Shape, function: Callable[..., Any],
        operands: tuple[Part, ...], name: str,
    ) -> n.Field:
        """A scalar function of several fields."""
        self._keep.append(function)
        key = ("mixed", shape, channels, id(function), *(_key(x) for x in operands))
        return self._once(
            key, lambda: n.Mixed(shape, channels, self.where, function, operands, name)
        )

    def spread(self, operand: n.Field, channel: int) -> n.Field:
        """Read a channel axis as a new last position axis."""
        size = operand.channels[channel]
        shape = (*operand.shape, size)
        channels = operand.channels[:channel] + operand.channels[channel + 1 :]
        match operand:
            case n.Sum() | n.Scale() | n.Product() | n.Apply() | n.Mixed():
                new = len(operand.shape)

                def inside(p: Part) -> Part:
                    if not isinstance(p.node, n.Field) or not p.node.channels:
                        return p
                    return Part(self.spread(p.node, channel), (*p.dims, new))

                return self.rebuild(operand, shape, channels, inside)
        key = ("spread", id(operand), channel)
        return self._once(key, lambda: n.Spread(shape, channels, self.where, operand))

    def map(
        self,
        operand: n.Field,
        acted: tuple[int, ...],
        out: Shape,
        function: Callable[..., Any],
        values: tuple[n.Value, ...] = (),
        *,
        selects: bool = False,
        pure: bool = False,
        name: str = "map",
        along: Callable[..., Any] | None = None,
        matrix: Callable[..., Any] | None = None,
    ) -> n.Field:
        """A linear map over position axes; a pure selection goes inside pointwise nodes."""
        untouched = tuple(k for k in range(len(operand.shape)) if k not in acted)
        shape = (*(operand.shape[k] for k in untouched), *out)
        new_axis = {k: i for i, k in enumerate(untouched)}
        if pure and isinstance(operand, n.POINTWISE):
            parts = n.pointwise_parts(operand)
            if all(set(acted) <= set(p.dims) or not set(acted) & set(p.dims) for p in parts):

                def inside(p: Part) -> Part:
                    if not set(acted) & set(p.dims):
                        return Part(p.node, tuple(new_axis[d] for d in p.dims))
                    own = tuple(p.dims.index(a) for a in acted)
                    node = self.select_any(p.node, own, out, function, name, along)
                    rest = tuple(new_axis[d] for k, d in enumerate(p.dims) if k not in own)
                    return Part(node, (*rest, *range(len(untouched), len(shape))))

                return self.rebuild(operand, shape, operand.channels, inside)
        if n.shifted(operand):
            known, rest = apart.split(self, operand, operand.channels)
            run = over_axes(function, len(operand.shape), acted)
            moved = self.compute(name, run, (known, *values), shape, known.dtype)
            terms = 1 if selects or pure else math.prod(operand.shape[k] for k in acted)
            self.sizes.note(moved, self.sizes.of(known).times(Size(math.log(max(terms, 1)))))
            assert isinstance(rest, n.Field)
            options = {
                "selects": selects, "pure": pure, "name": name, "along": along, "matrix": matrix,
            }
            linear = self.map(rest, acted, out, function, values, **options)  # type: ignore[arg-type]
            return self.add(shape, operand.channels, [whole(moved), whole(linear)])
        self._keep.append(function)
        key = ("map", id(operand), acted, out, id(function), *(id(v) for v in values))
        return self._once(
            key,
            lambda: n.Map(
                shape,
                operand.channels,
                self.where,
                operand,
                acted,
                len(out),
                function,
                values,
                selects or pure,
                name,
                along,
                matrix,
            ),
        )

    def select_any(
        self,
        node: n.Node,
        acted: tuple[int, ...],
        out: Shape,
        function: Callable[..., Any],
        name: str,
        along: Callable[..., Any] | None = None,
    ) -> n.Node:
        """A pure selection of a field or of a value."""
        if isinstance(node, n.Field):
            return self.map(node, acted, out, function, pure=True, name=name, along=along)
        assert isinstance(node, n.Value)
        untouched = tuple(k for k in range(len(node.shape)) if k not in acted)
        shape = (*(node.shape[k] for k in untouched), *out)
        apply = over_axes(function, len(node.shape), acted)
        if isinstance(node, n.Constant):
            return self.constant(np.asarray(apply(node.array)))
        selected = self.compute(name, apply, (node,), shape, node.dtype)
        self.sizes.note(selected, self.sizes.of(node))
        return selected

    def join(self, pieces: tuple[n.Node, ...], axis: int, channels: Shape) -> n.Field:
        """Join nodes along a position axis."""
        shape = list(pieces[0].shape)
        shape[axis] = sum(p.shape[axis] for p in pieces)
        found = joins.merged(self, pieces, axis, tuple(shape), channels)
        if found is not None:
            return found
        gaussian = all(isinstance(p, n.Value) or n.is_gaussian(p) for p in pieces)
        if gaussian and not all(n.zero_mean(p) for p in pieces):
            means, centred = zip(*(apart.split(self, p, channels) for p in pieces))
            known = apart.joined(self, means, axis, tuple(shape))
            rest = self.join(centred, axis, channels)
            return self.add(tuple(shape), channels, [whole(known), whole(rest)])
        key = ("join", axis, *(id(p) for p in pieces))
        return self._once(key, lambda: n.Join(tuple(shape), channels, self.where, pieces, axis))

    def rebuild(
        self, node: n.Field, shape: Shape, channels: Shape, change: Callable[[Part], Part]
    ) -> n.Field:
        """The same pointwise node over changed parts."""
        match node:
            case n.Sum(terms=terms):
                return self.add(shape, channels, tuple(change(t) for t in terms))
            case n.Scale(factor=factor, operand=operand):
                return self.scale(shape, channels, change(factor), change(operand))
            case n.Product(factors=factors):
                return self.product(shape, channels, tuple(change(f) for f in factors))
            case n.Apply(expression=expression, root=root, values=values):
                return self.apply(
                    shape, channels, expression, change(root), tuple(change(v) for v in values)
                )
            case n.Mixed(function=function, operands=operands, name=name):
                changed = tuple(change(x) for x in operands)
                return self.mixed(shape, channels, function, changed, name)
        msg = f"{type(node).__name__} is not pointwise"
        raise TypeError(msg)


def _key(part: Part) -> tuple:
    return (id(part.node), part.dims)


def _is_zero(node: n.Node) -> bool:
    return isinstance(node, n.Constant) and not np.any(node.array)


def _is_one(node: n.Node) -> bool:
    return isinstance(node, n.Constant) and bool(np.all(node.array == 1))
