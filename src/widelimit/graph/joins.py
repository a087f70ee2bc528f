"""Pieces joined along positions that are one thing: the same function, or one field's places.

Padding by wrapping, reflecting or repeating joins slices of one field. Kept as pieces, every pair
of them would be a block of its own, at every layer again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from widelimit.graph import nodes as n
from widelimit.graph.nodes import Part, Shape

if TYPE_CHECKING:
    from widelimit.graph.build import Builder

Along = Callable[[Any, int], Any]


def merged(
    b: Builder, pieces: tuple[n.Node, ...], axis: int, shape: Shape, channels: Shape
) -> n.Field | None:
    """The join as one pointwise node or one selection; None if it is neither."""
    fields = [p for p in pieces if isinstance(p, n.Field)]
    if len(fields) < len(pieces):
        return None
    return _one_function(b, fields, axis, shape, channels) or _one_selection(b, fields, axis, shape)


def _one_function(
    b: Builder, pieces: list[n.Field], axis: int, shape: Shape, channels: Shape
) -> n.Field | None:
    """Pieces that differ in their parts only: the same node over joined parts."""
    first = pieces[0]
    if not isinstance(first, n.POINTWISE):
        return None
    parts = [n.pointwise_parts(p) for p in pieces if type(p) is type(first)]
    if len(parts) < len(pieces) or len({len(p) for p in parts}) > 1:
        return None
    if isinstance(first, n.Apply) and any(p.expression is not first.expression for p in pieces):  # type: ignore[attr-defined]
        return None
    if isinstance(first, n.Mixed) and any(p.function is not first.function for p in pieces):  # type: ignore[attr-defined]
        return None
    together: dict[int, Part] = {}
    for alike in zip(*parts):
        part = _joined_part(b, alike, axis)
        if part is None:
            return None
        together[id(alike[0])] = part
    return b.rebuild(first, shape, channels, lambda p: together[id(p)])


def _joined_part(b: Builder, alike: tuple[Part, ...], axis: int) -> Part | None:
    first = alike[0]
    if any(p.dims != first.dims for p in alike):
        return None
    if axis not in first.dims:
        return first if all(p.node is first.node for p in alike) else None
    nodes = tuple(p.node for p in alike)
    if not all(isinstance(x, n.Field) for x in nodes):
        return None
    own = first.dims.index(axis)
    inner = list(first.node.shape)
    inner[own] = sum(x.shape[own] for x in nodes)
    node = merged(b, nodes, own, tuple(inner), nodes[0].channels)  # type: ignore[attr-defined]
    return None if node is None else Part(node, first.dims)


def _one_selection(
    b: Builder, pieces: list[n.Field], axis: int, shape: Shape
) -> n.Field | None:
    """Pieces of one field, each some of its places along one axis: one selection of places."""
    if axis != len(shape) - 1:
        return None
    chains = [dict(_chain(x)) for x in pieces]
    common = [start for start in chains[0] if all(start in c for c in chains)]
    if not common or all(len(x) == 1 for x in chains):
        return None
    base, moved = common[0]
    walks = [c[base, moved] for c in chains]
    along = lambda t, k: jnp.concatenate([w(t, k) for w in walks], k)
    return b.map(
        base, (moved,), shape[-1:], lambda t: along(t, 0), selects=True, name="join", along=along
    )


def _chain(x: n.Field) -> Iterator[tuple[tuple[n.Field, int], Along]]:
    """What the last axis of ``x`` is a selection of: fields, their axis, and how to select."""
    moved = len(x.shape) - 1
    along: Along = lambda t, k: t  # noqa: ARG005
    yield (x, moved), along
    while isinstance(x, n.Map) and x.along is not None and x.selects and x.n_out == 1:
        if x.values or moved != len(x.shape) - 1:
            return
        along = lambda t, k, first=x.along, then=along: then(first(t, k), k)
        x, (moved,) = x.operand, x.acted
        yield (x, moved), along


def reopened(b: Builder, field: n.Field) -> n.Field | None:
    """A field of single places with the axis they were taken from, of size one, as its last.

    None if some part of it with positions was not taken from an axis.
    """
    match field:
        case n.Map(n_out=0, along=along) if along is not None and len(field.acted) == 1:
            return b.map(
                field.operand, field.acted, (1,), lambda t: along(t, 0), selects=True, pure=True,
                name=field.name, along=along,
            )
        case n.Sum() | n.Scale() | n.Product() | n.Apply() | n.Mixed():
            last = len(field.shape)
            opened: dict[int, Part] = {}
            for p in n.pointwise_parts(field):
                if not p.node.shape and not _is_taken(p.node):
                    opened[id(p)] = p
                    continue
                inner = reopened(b, p.node) if isinstance(p.node, n.Field) else None
                if inner is None:
                    return None
                opened[id(p)] = Part(inner, (*p.dims, last))
            shape = (*field.shape, 1)
            return b.rebuild(field, shape, field.channels, lambda p: opened[id(p)])
    return None


def _is_taken(node: n.Node) -> bool:
    if isinstance(node, n.POINTWISE):
        return any(_is_taken(p.node) for p in n.pointwise_parts(node))
    return isinstance(node, n.Map) and node.n_out == 0
