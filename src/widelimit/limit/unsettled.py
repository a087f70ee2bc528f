"""Functions that jump or bend where the limit leaves nothing but a fluctuation.

``sign(h - mean(h))`` at a position where h is zero is 0 in the limit; at any finite width the mean
over channels is not quite zero, and its sign is the result. A kink does the same to the slope that
a tangent kernel sees. Whether a position is like that depends on the inputs.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from widelimit.errors import AmbiguousScaleError
from widelimit.graph import nodes as n
from widelimit.limit.evaluate import ZERO, Evaluation, Pairing, Rule
from widelimit.limit.moments import moment
from widelimit.limit.tangents import tangent

_STEP = 1e-3
_JUMP, _BEND = 0.05, 0.05
"""Changes of the value, and of the slope, within a step, that no smooth function makes."""
_NOTHING = 1e-12
"""A variance that is this small beside the largest is none."""


Function = n.Apply | n.Mixed


def watched(nodes: tuple[n.Node, ...]) -> list[Function]:
    """The functions that act on a fluctuating mean."""
    return [x for x in nodes if isinstance(x, Function) and x.fluctuates]


def flags(ev: Evaluation, nodes: list[Function], real: tuple[Any, Any] | None) -> Any:
    """For each function, whether it jumps or bends where its argument is fluctuation alone.

    Parameters
    ----------
    ev
        An evaluation of both batches.
    nodes
        From :func:`watched`.
    real
        How many examples of each batch are not filled up; None for all.
    """
    sides: list[tuple[Pairing, int]] = [("left", 0)]
    if not ev.symmetric:
        sides.append(("right", 1))
    found = []
    for node in nodes:
        one = [
            _flag(ev, node, pairing, k, None if real is None else real[k]) for pairing, k in sides
        ]
        found.append(jnp.any(jnp.stack(one)))
    return jnp.stack(found) if found else jnp.zeros((0,), bool)


def _flag(ev: Evaluation, node: Function, pairing: Pairing, operand: int, count: Any) -> Any:
    rank = len(node.shape)
    if isinstance(node, n.Apply):
        fields, known = [node.root], list(node.values)
        call = ev.activations.of(node).fn
    else:
        is_known = [isinstance(p.node, n.Value) for p in node.operands]
        order = sorted(range(len(is_known)), key=is_known.__getitem__)
        first = is_known.count(False)
        fields = [node.operands[k] for k in order[:first]]
        known = [node.operands[k] for k in order[first:]]
        call = lambda *x: node.function(*(x[order.index(k)] for k in range(len(order))))
    values = [ev.value_at(v.node, v.dims, rank, operand, pairing) for v in known]  # type: ignore[arg-type]
    at = [_mean(ev, p, rank, operand, pairing) for p in fields]
    variance = sum(_own(ev, moment, p, rank, pairing) - m**2 for p, m in zip(fields, at))
    shape = jnp.broadcast_shapes(variance.shape, *(v.shape for v in (*values, *at)))
    known_there = [jnp.broadcast_to(v, shape) for v in values]
    below, here, above = (
        call(*(jnp.broadcast_to(m + step, shape) for m in at), *known_there).astype(ev.dtype)
        for step in (-_STEP, 0.0, _STEP)
    )
    bad = jnp.maximum(jnp.abs(above - here), jnp.abs(here - below)) > _JUMP
    if ev.with_tangent:
        slope = sum(_own(ev, tangent, p, rank, pairing) for p in fields)
        bad = bad | ((jnp.abs(above + below - 2 * here) > _BEND * _STEP) & (slope > 0))
    bad = bad & (variance <= _NOTHING * jnp.max(variance))
    if count is not None:
        rows = jnp.arange(bad.shape[0]) < count
        bad = bad & rows.reshape(-1, *(1,) * (bad.ndim - 1))
    return jnp.any(bad)


def _own(ev: Evaluation, rule: Rule, part: n.Part, rank: int, pairing: Pairing) -> Any:
    """A second moment or tangent kernel of a field with itself at each position."""
    found = ev.at(rule, part.node, part.dims, part.node, part.dims, rank, pairing)
    return jnp.zeros((1,) * (1 + rank), ev.dtype) if found is ZERO else found


def _mean(ev: Evaluation, part: n.Part, rank: int, operand: int, pairing: Pairing) -> Any:
    found = ev.mean_at(part.node, part.dims, rank, operand, pairing)
    return jnp.zeros((1,) * (1 + rank), ev.dtype) if found is ZERO else found


def refusal(node: Function, *, tangents: bool) -> AmbiguousScaleError:
    """The error for a function that was flagged."""
    what = "jumps or bends" if tangents else "jumps"
    return AmbiguousScaleError(
        f"a function {what} at a value that is nothing but the fluctuation of a mean",
        why="at some position of these inputs the field itself is zero, as behind zero padding or "
        "an empty background; in the limit the mean over channels that is added vanishes too, but "
        "at any finite width its sign decides on which side of the jump or kink the value falls.",
        remedy="give the field a bias with a spread, use a smooth function, or ask for the NNGP "
        "alone if the function only bends.",
        where=node.where,
    )
