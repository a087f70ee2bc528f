"""Second moments E[a bᵀ] of any two nodes: the NNGP recursion, one rule per kind of node."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp

from widelimit.errors import MisalignedWidthError
from widelimit.graph import nodes as n
from widelimit.graph.index import Relation
from widelimit.limit.evaluate import ZERO, Evaluation, Pairing, Rule, add, times
from widelimit.limit.expectation import expect, factors_of
from widelimit.limit.maps import mapped
from widelimit.limit.particles import drawn_moment
from widelimit.limit.place import diagonal, eye, stretch
from widelimit.limit.sources import gather, overlap_pair, source_pair
from widelimit.limit.together import sampled_moment

Targets = tuple[int, ...]


def moment(
    ev: Evaluation, a: n.Node, ta: Targets, b: n.Node, tb: Targets, rank: int, p: Pairing
) -> Any:
    """E[a b] per channel, in ``rank`` label axes; equal labels in ``ta``, ``tb`` are tied."""
    drawn = drawn_pair(moment, partial(drawn_moment, moment), ev, a, ta, b, tb, rank, p)
    if drawn is not NotImplemented:
        return drawn
    if isinstance(a, n.Value):
        return times(ev.value_at(a, ta, rank, 0, p), ev.mean_at(b, tb, rank, 1, p))
    if isinstance(b, n.Value):
        return times(ev.mean_at(a, ta, rank, 0, p), ev.value_at(b, tb, rank, 1, p))
    if isinstance(a, n.Tangent) or isinstance(b, n.Tangent):
        return ZERO
    if not ev.related(a, b):
        return times(ev.mean_at(a, ta, rank, 0, p), ev.mean_at(b, tb, rank, 1, p))
    if (a.several or b.several) and n.of_overlaps(a) and n.of_overlaps(b):
        return sampled_moment(moment, ev, a, ta, b, tb, rank, p)
    found = bilinear(moment, ev, a, ta, b, tb, rank, p)
    if found is not NotImplemented:
        return found
    if _own_weights(a, b) or _own_weights(b, a):
        return ZERO
    match a, b:
        case n.Source(), n.Source():
            if not same_draw(a, b):
                return ZERO
            return source_pair(ev, a, ta, b, tb, rank, p, gathered=gathered, tangent=None)
        case n.Overlap(), n.Overlap():
            return overlap_pair(moment, ev, a, ta, b, tb, rank, p)
        case n.Entry(), n.Entry():
            if same_draw(a, b):
                shape = (1,) * (ev.batch(p) + rank)
                return jnp.full(shape, ev.variance(a.draw.leaf) * (a.scale * b.scale), ev.dtype)
            return ZERO
    return products(ev, a, ta, b, tb, rank, p)


def gathered(
    ev: Evaluation, a: n.Source, ta: Targets, b: n.Source, tb: Targets, rank: int, p: Pairing
) -> Any:
    """The second moment of two uses of one parameter, but for the scale and the variance."""
    return gather(moment, ev, a, ta, b, tb, rank, p, known=True)


def drawn_pair(
    kind: Rule, integral: Rule, ev: Evaluation, a: n.Node, ta: Targets, b: n.Node, tb: Targets,
    rank: int, p: Pairing,
) -> Any:
    """``kind`` of fields that are drawn; a side that cannot be is taken apart first."""
    if not (ev.is_entangled(a) or ev.is_entangled(b)):
        return NotImplemented
    left, right = (isinstance(x, n.Field) and not x.drawable for x in (a, b))
    if not (left or right):
        return integral(ev, a, ta, b, tb, rank, p)
    assert isinstance(a, n.Field)
    assert isinstance(b, n.Field)
    return bilinear(kind, ev, a, ta, b, tb, rank, p, (left, right))


def _own_weights(a: n.Field, b: n.Field) -> bool:
    """Whether a parameter multiplies every channel of ``a`` and is nowhere in ``b``."""
    return isinstance(a, n.Weighted) and all(
        a.draw.relation(d) is Relation.DISJOINT for d in n.draws_of(b)
    )


def same_draw(a: n.Source | n.Entry | n.Tangent, b: n.Source | n.Entry | n.Tangent) -> bool:
    """Whether two fields are made of the same random numbers.

    Raises
    ------
    MisalignedWidthError
        If they share some numbers, but not channel by channel.
    """
    relation = a.draw.relation(b.draw)
    if relation is Relation.OVERLAP:
        raise MisalignedWidthError(
            "different channels of one random field meet",
            why="the same random numbers appear in both at different places of the wide axis "
            "(a roll, a flip or an overlapping slice), so channels are not independent.",
            remedy="combine equal or disjoint slices of the wide axis only.",
            where=a.where,
        )
    return relation is Relation.SAME


# --------------------------------------------------------------------------- bilinear rules


def bilinear(
    kind: Rule, ev: Evaluation, a: n.Field, ta: Targets, b: n.Field, tb: Targets, rank: int,
    p: Pairing, sides: tuple[bool, bool] = (True, True),
) -> Any:
    """Rules that hold for every bilinear form: sums, factors, linear maps, joins, spreads.

    ``sides`` says which of the two may be taken apart.
    """
    left, right = sides
    if left and isinstance(a, n.Sum):
        total: Any = ZERO
        for t in a.terms:
            inner = tuple(ta[k] for k in t.dims)
            total = add(total, ev.at(kind, t.node, inner, b, tb, rank, p))
        return total
    if right and isinstance(b, n.Sum):
        total = ZERO
        for t in b.terms:
            inner = tuple(tb[k] for k in t.dims)
            total = add(total, ev.at(kind, a, ta, t.node, inner, rank, p))
        return total
    if left and isinstance(a, n.Scale):
        inner = tuple(ta[k] for k in a.operand.dims)
        outer = tuple(ta[k] for k in a.factor.dims)
        factor = ev.value_at(a.factor.node, outer, rank, 0, p)  # type: ignore[arg-type]
        return times(ev.at(kind, a.operand.node, inner, b, tb, rank, p), factor)
    if right and isinstance(b, n.Scale):
        inner = tuple(tb[k] for k in b.operand.dims)
        outer = tuple(tb[k] for k in b.factor.dims)
        factor = ev.value_at(b.factor.node, outer, rank, 1, p)  # type: ignore[arg-type]
        return times(ev.at(kind, a, ta, b.operand.node, inner, rank, p), factor)
    if left and isinstance(a, n.Copied):
        return ev.at(kind, a.operand, ta, b, tb, rank, p)
    if right and isinstance(b, n.Copied):
        return ev.at(kind, a, ta, b.operand, tb, rank, p)
    if isinstance(a, n.Map) or isinstance(b, n.Map):
        return mapped(kind, ev, a, ta, b, tb, rank, p)
    if isinstance(a, n.Join) or isinstance(b, n.Join):
        return _joined(kind, ev, a, ta, b, tb, rank, p)
    if isinstance(a, n.Spread) and isinstance(b, n.Spread):
        inner = ev.at(kind, a.operand, ta[:-1], b.operand, tb[:-1], rank, p)
        if ta[-1] == tb[-1]:
            return inner
        same = eye(a.shape[-1], ta[-1], tb[-1], rank, ev.batch(p), ev.dtype)
        total = times(inner, same)
        if kind is moment:
            means = times(
                ev.mean_at(a.operand, ta[:-1], rank, 0, p),
                ev.mean_at(b.operand, tb[:-1], rank, 1, p),
            )
            total = add(total, times(means, 1 - same))
        return total
    return NotImplemented


def _joined(
    kind: Rule, ev: Evaluation, a: n.Field, ta: Targets, b: n.Field, tb: Targets, rank: int,
    p: Pairing,
) -> Any:
    if isinstance(a, n.Join):
        node, t, other, operand = a, ta, tb, 0
    else:
        assert isinstance(b, n.Join)
        node, t, other, operand = b, tb, ta, 1
    label = t[node.axis]
    sizes = [q.shape[node.axis] for q in node.pieces]
    partner = b if operand == 0 else a
    batch = ev.batch(p)
    if label in other:
        axis = other.index(label)
        if (
            isinstance(partner, n.Join)
            and partner.axis == axis
            and [q.shape[axis] for q in partner.pieces] == sizes
        ):
            pieces = [
                ev.at(kind, x, t, y, other, rank, p)
                if operand == 0
                else ev.at(kind, y, other, x, t, rank, p)
                for x, y in zip(node.pieces, partner.pieces)
            ]
            return _concatenate(ev, pieces, sizes, batch + label, rank, p)
        loose = tuple(rank if k == axis else x for k, x in enumerate(other))
        pair = (a, t, b, loose) if operand == 0 else (a, loose, b, t)
        full = ev.at(kind, *pair, rank + 1, p)
        if full is ZERO:
            return ZERO
        i, j = batch + label, batch + rank
        return diagonal(full, i, j)
    pieces = [
        ev.at(kind, x, t, b, tb, rank, p) if operand == 0 else ev.at(kind, a, ta, x, t, rank, p)
        for x in node.pieces
    ]
    return _concatenate(ev, pieces, sizes, batch + label, rank, p)


def _concatenate(
    ev: Evaluation, pieces: list[Any], sizes: list[int], axis: int, rank: int, p: Pairing
) -> Any:
    if all(x is ZERO for x in pieces):
        return ZERO
    blank = jnp.zeros((1,) * (ev.batch(p) + rank), ev.dtype)
    filled = [blank if x is ZERO else x for x in pieces]
    filled = [stretch(x, axis, s) for x, s in zip(filled, sizes)]
    shape = [
        max(x.shape[k] for x in filled) if k != axis else None for k in range(filled[0].ndim)
    ]
    full = [
        jnp.broadcast_to(x, [x.shape[k] if s is None else s for k, s in enumerate(shape)])
        for x in filled
    ]
    return jnp.concatenate(full, axis)


# --------------------------------------------------------------------------- products


def products(
    ev: Evaluation, a: n.Field, ta: Targets, b: n.Field, tb: Targets, rank: int, p: Pairing
) -> Any:
    """Functions and products of Gaussian roots, through their joint Gaussian law."""
    from widelimit.limit.dual import dual

    if isinstance(a, n.Apply) and isinstance(b, n.Apply):
        return ev.at(dual, a, ta, b, tb, rank, p)[0]
    total: Any = ZERO
    for left_known, left in factors_of(a):
        for right_known, right in factors_of(b):
            items = [(relabel(f, ta), 0) for f in left] + [(relabel(f, tb), 1) for f in right]
            value = expect(ev, tuple(items), rank, p)
            value = coefficients(ev, value, left_known, ta, right_known, tb, rank, p)
            total = add(total, value)
    return total


def relabel(f: Any, t: Targets) -> Any:
    """A factor in the labels of a moment."""
    from dataclasses import replace

    move = lambda part: n.Part(part.node, tuple(t[k] for k in part.dims))
    return replace(f, root=move(f.root), values=tuple(move(v) for v in f.values))


def coefficients(
    ev: Evaluation, value: Any, left: Any, ta: Targets, right: Any, tb: Targets, rank: int,
    p: Pairing,
) -> Any:
    """Multiply by the known coefficients of both sides."""
    for known, t, operand in ((left, ta, 0), (right, tb, 1)):
        for c in known:
            at = tuple(t[k] for k in c.dims)
            value = times(value, ev.value_at(c.node, at, rank, operand, p))
    return value
