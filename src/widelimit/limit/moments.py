"""Second moments E[a bᵀ] of any two nodes: the NNGP recursion, one rule per kind of node."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.errors import MisalignedWidthError
from widelimit.graph import nodes as n
from widelimit.graph.index import Relation
from widelimit.limit.evaluate import ZERO, Evaluation, Pairing, Rule, add, times
from widelimit.limit.expectation import expect, factors_of
from widelimit.limit.particles import drawn_moment
from widelimit.limit.place import eye, stretch
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
        return _mapped(kind, ev, a, ta, b, tb, rank, p)
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


def _mapped(
    kind: Rule, ev: Evaluation, a: n.Field, ta: Targets, b: n.Field, tb: Targets, rank: int,
    p: Pairing,
) -> Any:
    in_place = _along(kind, ev, a, ta, b, tb, rank, p)
    if in_place is not NotImplemented:
        return in_place
    if isinstance(a, n.Map) and isinstance(b, n.Map) and _same_selection(a, ta, b, tb):
        n_in = len(a.acted)
        fresh = tuple(range(rank, rank + n_in))
        inner = ev.at(
            kind, a.operand, _operand_targets(a, ta, fresh),
            b.operand, _operand_targets(b, tb, fresh), rank + n_in, p,
        )
        return _apply(ev, a, inner, fresh, ta[len(a.untouched) :], 0, p)
    if isinstance(a, n.Map):
        node, t, operand = a, ta, 0
    else:
        assert isinstance(b, n.Map)
        node, t, operand = b, tb, 1
    other = tb if operand == 0 else ta
    out = t[len(node.untouched) :]
    fresh = tuple(range(rank, rank + len(node.acted)))
    inner_targets = _operand_targets(node, t, fresh)
    if operand == 0:
        # Axes of b tied to an output of the map stay free until the map has acted.
        tied = [k for k, x in enumerate(other) if x in out]
        loose = {k: rank + len(fresh) + i for i, k in enumerate(tied)}
        free_tb = tuple(loose.get(k, x) for k, x in enumerate(other))
        total = rank + len(fresh) + len(tied)
        inner = ev.at(kind, node.operand, inner_targets, b, free_tb, total, p)
        pairs = [(loose[k], other[k]) for k in tied]
    else:
        tied = [k for k, x in enumerate(other) if x in out]
        loose = {k: rank + len(fresh) + i for i, k in enumerate(tied)}
        free_ta = tuple(loose.get(k, x) for k, x in enumerate(other))
        total = rank + len(fresh) + len(tied)
        inner = ev.at(kind, a, free_ta, node.operand, inner_targets, total, p)
        pairs = [(loose[k], other[k]) for k in tied]
    if inner is ZERO:
        return ZERO
    batch = ev.batch(p)
    mapped = _apply(ev, node, inner, fresh, out, operand, p)
    for extra, target in sorted(pairs, reverse=True):
        i, j = batch + target, batch + extra - len(fresh)
        mapped = jnp.moveaxis(_diagonal(mapped, i, j), -1, i)
    return mapped


def _along(
    kind: Rule, ev: Evaluation, a: n.Field, ta: Targets, b: n.Field, tb: Targets, rank: int,
    p: Pairing,
) -> Any:
    """A map of one axis to one axis, carried out on that axis of the operand's moment."""
    together = isinstance(a, n.Map) and isinstance(b, n.Map) and _same_selection(a, ta, b, tb)
    left, right = (a, ta), (b, tb)
    if isinstance(a, n.Map) and _has_own_label(a, ta, () if together else tb):
        node, label, left = a, ta[-1], (a.operand, _in_place(a, ta))
        if together:
            assert isinstance(b, n.Map)
            right = (b.operand, _in_place(b, tb))
    elif isinstance(b, n.Map) and not together and _has_own_label(b, tb, ta):
        node, label, right = b, tb[-1], (b.operand, _in_place(b, tb))
    else:
        return NotImplemented
    inner = ev.at(kind, *left, *right, rank, p)
    if inner is ZERO:
        return ZERO
    axis = ev.batch(p) + label
    assert node.along is not None
    return node.along(stretch(inner, axis, node.operand.shape[node.acted[0]]), axis)


def _has_own_label(node: n.Map, t: Targets, other: Targets) -> bool:
    one = node.along is not None and node.n_out == 1 and not node.values
    return one and t.count(t[-1]) == 1 and t[-1] not in other


def _in_place(node: n.Map, t: Targets) -> Targets:
    """The operand's labels, its moved axis under the label of the axis that it becomes."""
    return _operand_targets(node, t, t[-1:])


def _diagonal(array: Any, i: int, j: int) -> Any:
    size = max(array.shape[i], array.shape[j])
    array = stretch(stretch(array, i, size), j, size)
    return jnp.diagonal(array, axis1=i, axis2=j)


def _operand_targets(node: n.Map, t: Targets, fresh: Targets) -> Targets:
    inner = [0] * len(node.operand.shape)
    for i, k in enumerate(node.untouched):
        inner[k] = t[i]
    for i, k in enumerate(node.acted):
        inner[k] = fresh[i]
    return tuple(inner)


def _same_selection(a: n.Map, ta: Targets, b: n.Map, tb: Targets) -> bool:
    same = a.function is b.function and a.acted == b.acted and a.values == b.values
    return a.selects and same and ta[len(a.untouched) :] == tb[len(b.untouched) :]


def _apply(
    ev: Evaluation, node: n.Map, inner: Any, fresh: Targets, out: Targets, operand: int,
    p: Pairing,
) -> Any:
    """Apply a map to the ``fresh`` axes of a moment and put its results at ``out``."""
    if inner is ZERO:
        return ZERO
    batch = ev.batch(p)
    for i, k in zip(fresh, node.acted):
        inner = stretch(inner, batch + i, node.operand.shape[k])
    # Output labels are new in `inner`, hence of size one there: drop them.
    inner = jnp.squeeze(inner, tuple(batch + x for x in out)) if out else inner
    left = [x for x in range(inner.ndim + len(out)) if x - batch not in out]
    acted = [left.index(batch + x) for x in fresh]
    rest = [k for k in range(inner.ndim) if k not in acted and k >= batch]
    moved = jnp.transpose(inner, (*range(batch), *rest, *acted))
    values = [ev.into(ev.value(v, ev.side_of(operand, p)), operand, p) for v in node.values]
    call: Any = node.function
    for _ in rest:
        call = jax.vmap(call, in_axes=(0, *(None for _ in values)))
    shape = [
        max([moved.shape[k], *(v.shape[k] for v in values)]) for k in range(batch)
    ]
    for level in reversed(range(batch)):
        axes = [None if v.shape[level] == 1 and shape[level] != 1 else 0 for v in values]
        call = jax.vmap(call, in_axes=(0, *axes))
    moved = jnp.broadcast_to(moved, (*shape, *moved.shape[batch:]))
    values = _squeeze_unused(values, shape, batch)
    result = call(moved, *values)
    # Result axes: batch, rest, out -> put `out` labels back in place.
    labels = [left[k] - batch for k in rest] + list(out)
    order = sorted(range(len(labels)), key=lambda k: labels[k])
    return jnp.transpose(result, (*range(batch), *(batch + k for k in order)))


def _squeeze_unused(values: list[Any], shape: list[int], batch: int) -> list[Any]:
    out = []
    for v in values:
        drop = tuple(k for k in range(batch) if v.shape[k] == 1 and shape[k] != 1)
        out.append(jnp.squeeze(v, drop))
    return out


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
        return jnp.moveaxis(_diagonal(full, i, j), -1, i)
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
