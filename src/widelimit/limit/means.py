"""The mean of a field for each example: what sums over width tend to."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from widelimit.graph import nodes as n
from widelimit.limit.evaluate import ZERO, Evaluation, add, times
from widelimit.limit.expectation import expect, factors_of
from widelimit.limit.particles import drawn_mean
from widelimit.limit.place import place, stretch
from widelimit.limit.together import sampled_mean


def mean(ev: Evaluation, node: n.Node, side: int) -> Any:
    """E[node], shape (n or 1, *shape), or ZERO."""
    rank = len(node.shape)
    if isinstance(node, n.Field) and ev.is_entangled(node):
        from widelimit.limit.moments import moment

        return drawn_mean(moment, ev, node, side)

    def of(part: n.Part) -> Any:
        if isinstance(part.node, n.Value):
            return place(ev.value(part.node, side), 1, part.dims, rank)
        return place(ev.mean(part.node, side), 1, part.dims, rank)

    match node:
        case n.Value():
            return ev.value(node, side)
        case n.Source() | n.Overlap() | n.Entry() | n.Tangent():
            return ZERO
        case n.Sum(terms=terms):
            total: Any = ZERO
            for t in terms:
                total = add(total, of(t))
            return total
        case n.Scale(factor=factor, operand=operand):
            return times(of(factor), of(operand))
        case n.Spread(operand=operand):
            return ev.mean(operand, side)[..., None]
        case n.Together():
            return sampled_mean(ev, node, side)
        case n.Copied(operand=operand):
            return ev.mean(operand, side)
        case n.Map():
            return _mapped(ev, node, side)
        case n.Join(pieces=pieces, axis=axis):
            blocks = []
            for p in pieces:
                block = ev.value(p, side) if isinstance(p, n.Value) else ev.mean(p, side)
                blocks.append(block)
            count = max(x.shape[0] for x in blocks)
            full = [
                jnp.broadcast_to(x, (count, *p.shape)) for x, p in zip(blocks, pieces)
            ]
            return jnp.concatenate(full, axis + 1)
        case n.Apply() | n.Product():
            pairing = "left" if side == 0 else "right"
            total = ZERO
            for coefficients, factors in factors_of(node):
                value = expect(ev, tuple((f, 0) for f in factors), rank, pairing)
                for c in coefficients:
                    value = times(value, ev.value_at(c.node, c.dims, rank, 0, pairing))
                total = add(total, value)
            return total
    msg = f"no mean for {type(node).__name__}"
    raise TypeError(msg)


def _mapped(ev: Evaluation, node: n.Map, side: int) -> Any:
    block = ev.mean(node.operand, side)
    for k, size in enumerate(node.operand.shape):
        if k in node.acted:
            block = stretch(block, k + 1, size)
    moved = jnp.transpose(block, (0, *(k + 1 for k in (*node.untouched, *node.acted))))
    values = [ev.value(v, side) for v in node.values]
    count = max([moved.shape[0], *(v.shape[0] for v in values)])
    moved = jnp.broadcast_to(moved, (count, *moved.shape[1:]))
    values = [jnp.broadcast_to(v, (count, *v.shape[1:])) for v in values]

    def one(block: Any, *values: Any) -> Any:
        call = lambda t: node.function(t, *values)
        for _ in node.untouched:
            call = jax.vmap(call)
        return call(block)

    return jax.vmap(one)(moved, *values)
