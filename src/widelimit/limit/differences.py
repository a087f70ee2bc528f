"""E[(a(x1) − a(x2))²] without cancellation, for inputs that are nearly the same.

Near a duplicate, 1 − ρ is the small difference of large numbers, and arccos takes its square
root: half the digits are lost, and Gram matrices stop being positive semidefinite. The squared
distance is additive over independent parts, so it travels through the network beside the moment.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from widelimit import duals
from widelimit.graph import nodes as n
from widelimit.limit.evaluate import ZERO, Evaluation, Pairing, add, is_mask, times

CLOSE = {4: 1e-3, 8: 1e-6}
"""Relative squared distance below which a float of this many bytes loses digits that matter."""


def difference(
    ev: Evaluation, a: n.Node, ta: tuple, b: n.Node, tb: tuple, rank: int, p: Pairing
) -> Any:
    """E[(a − b)²] for one node ``a is b`` on the two sides of a pairing."""
    assert a is b
    if ev.is_entangled(a):
        return _plain(ev, a, ta, tb, rank, p)
    inside = lambda part: tuple(ta[k] for k in part.dims)
    inside_b = lambda part: tuple(tb[k] for k in part.dims)
    match a:
        case n.Entry() | n.Tangent():
            return ZERO
        case n.Source() if not a.separate and not a.windows:
            return _source(ev, a, ta, tb, rank, p)
        case n.Sum(terms=terms) if _independent(ev, terms):
            total: Any = ZERO
            for t in terms:
                total = add(
                    total, ev.at(difference, t.node, inside(t), t.node, inside_b(t), rank, p)
                )
            return total
        case n.Scale(factor=factor, operand=operand):
            inner = ev.at(
                difference, operand.node, inside(operand), operand.node, inside_b(operand), rank, p
            )
            f1 = ev.value_at(factor.node, inside(factor), rank, 0, p)  # type: ignore[arg-type]
            f2 = ev.value_at(factor.node, inside_b(factor), rank, 1, p)  # type: ignore[arg-type]
            if isinstance(factor.node, n.Constant) and factor.node.shape == ():
                return times(inner, f1 * f2)
            q1 = _second(ev, operand.node, inside(operand), rank, p, 0)
            q2 = _second(ev, operand.node, inside_b(operand), rank, p, 1)
            if is_mask(f1):
                alone = times(q1, f1 & ~f2) + times(q2, f2 & ~f1)
                return add(times(inner, f1 & f2), alone)
            return add(times(inner, f1 * f2), (f1 - f2) * (f1 * q1 - f2 * q2))
        case n.Apply(root=root):
            return _apply(ev, a, root, ta, tb, rank, p)
    return _plain(ev, a, ta, tb, rank, p)


def _independent(ev: Evaluation, terms: tuple[n.Part, ...]) -> bool:
    fields = [t.node for t in terms]
    if not all(isinstance(f, n.Field) for f in fields):
        return False
    return not any(
        ev.related(x, y) for i, x in enumerate(fields) for y in fields[i + 1 :]
    )


def _second(ev: Evaluation, node: n.Node, t: tuple, rank: int, p: Pairing, operand: int) -> Any:
    from widelimit.limit.moments import moment

    alone = ev.alone(operand, p)
    out = ev.at(moment, node, t, node, t, rank, alone)
    if out is ZERO:
        return jnp.zeros((1,) * (ev.batch(p) + rank), ev.dtype)
    return ev.into(out, operand, p) if alone != p else out


def _plain(ev: Evaluation, a: n.Node, ta: tuple, tb: tuple, rank: int, p: Pairing) -> Any:
    """By the moments themselves, with their cancellation."""
    from widelimit.limit.moments import moment

    c = ev.at(moment, a, ta, a, tb, rank, p)
    q1, q2 = _second(ev, a, ta, rank, p, 0), _second(ev, a, tb, rank, p, 1)
    return q1 + q2 if c is ZERO else duals.default_gap(q1, q2, c)


def _apply(
    ev: Evaluation, a: n.Apply, root: n.Part, ta: tuple, tb: tuple, rank: int, p: Pairing
) -> Any:
    from widelimit.limit.moments import moment

    if a.values:
        return _plain(ev, a, ta, tb, rank, p)
    ra, rb = tuple(ta[k] for k in root.dims), tuple(tb[k] for k in root.dims)
    q1 = _second(ev, root.node, ra, rank, p, 0)
    q2 = _second(ev, root.node, rb, rank, p, 1)
    c = ev.at(moment, root.node, ra, root.node, rb, rank, p)
    d = ev.at(difference, root.node, ra, root.node, rb, rank, p)
    if c is ZERO or d is ZERO:
        return _plain(ev, a, ta, tb, rank, p)
    out = duals.difference(ev.activations.of(a), q1, q2, c, d)
    return jax.lax.optimization_barrier(out)


def _source(ev: Evaluation, a: n.Source, ta: tuple, tb: tuple, rank: int, p: Pairing) -> Any:
    fresh = tuple(range(rank, rank + len(a.summed)))

    def inner(t: tuple) -> tuple[int, ...]:
        out = [0] * len(a.operand.shape)
        for i, k in enumerate(a.kept):
            out[k] = t[i]
        for i, k in enumerate(a.summed):
            out[k] = fresh[i]
        return tuple(out)

    scale = ev.variance(a.draw.leaf) * (a.scale * a.scale * a.count)
    if isinstance(a.operand, n.Value):
        if rank == 0 and p == "cross" and a.summed:
            return scale * _squared_distances(ev, a, p)
        return _plain(ev, a, ta, tb, rank, p)
    out = ev.at(difference, a.operand, inner(ta), a.operand, inner(tb), rank + len(fresh), p)
    if out is ZERO:
        return ZERO
    batch = ev.batch(p)
    for i, k in enumerate(a.summed):
        from widelimit.limit.place import stretch

        out = stretch(out, batch + rank + i, a.operand.shape[k])
    total = jnp.sum(out, axis=tuple(batch + x for x in fresh)) if fresh else out
    return scale * total


def _squared_distances(ev: Evaluation, a: n.Source, p: Pairing) -> Any:
    assert isinstance(a.operand, n.Value)

    def flat(side: int) -> Any:
        block = ev.value(a.operand, side)  # type: ignore[arg-type]
        block = jnp.transpose(block, (0, *(k + 1 for k in a.summed)))
        return block.reshape(block.shape[0], -1)

    left, right = flat(ev.side_of(0, p)), flat(ev.side_of(1, p))
    return squared_distances(left, right, symmetric=ev.symmetric)


def squared_distances(left: Any, right: Any, *, symmetric: bool = False) -> Any:
    """Σ_j (x_j − y_j)² for all pairs of rows: by a matrix product, and directly for close pairs.

    Parameters
    ----------
    left, right
        Shapes (n1, d) and (n2, d).
    symmetric
        ``left`` is ``right``: the diagonal is zero.
    """
    q1, q2 = jnp.sum(left**2, -1)[:, None], jnp.sum(right**2, -1)[None, :]
    fast = jnp.maximum(q1 + q2 - 2 * (left @ right.T), 0.0)
    close = fast <= CLOSE[left.dtype.itemsize] * (q1 + q2)
    if symmetric:
        on = jnp.eye(left.shape[0], dtype=bool)
        fast, close = jnp.where(on, 0.0, fast), close & ~on

    def directly() -> Any:
        def row(item: Any) -> Any:
            x, near, quick = item
            return jax.lax.cond(
                jnp.any(near),
                lambda: jnp.where(near, jnp.sum((x - right) ** 2, -1), quick),
                lambda: quick,
            )

        return jax.lax.map(row, (left, close, fast))

    return jax.lax.cond(jnp.any(close), directly, lambda: fast)


def has_close_pairs(left: Any, right: Any, real: Any, *, symmetric: bool) -> Any:
    """Whether some pair among the ``real`` first rows is so close that digits would be lost."""
    q1, q2 = jnp.sum(left**2, -1)[:, None], jnp.sum(right**2, -1)[None, :]
    close = q1 + q2 - 2 * (left @ right.T) <= CLOSE[left.dtype.itemsize] * (q1 + q2)
    close = close & (jnp.arange(left.shape[0]) < real[0])[:, None]
    close = close & (jnp.arange(right.shape[0]) < real[1])[None, :]
    if symmetric:
        close = close & ~jnp.eye(left.shape[0], dtype=bool)
    return jnp.any(close)
