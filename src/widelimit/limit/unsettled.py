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
from widelimit.limit.evaluate import ZERO, Evaluation, Pairing
from widelimit.limit.moments import moment
from widelimit.limit.tangents import tangent

_STEP = 1e-3
_JUMP, _BEND = 0.05, 0.05
"""Changes of the value, and of the slope, within a step, that no smooth function makes."""
_NOTHING = 1e-12
"""A variance that is this small beside the largest is none."""


def watched(nodes: tuple[n.Node, ...]) -> list[n.Apply]:
    """The functions that act on a fluctuating mean."""
    return [x for x in nodes if isinstance(x, n.Apply) and x.fluctuates]


def flags(ev: Evaluation, nodes: list[n.Apply], real: tuple[Any, Any] | None) -> Any:
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


def _flag(ev: Evaluation, node: n.Apply, pairing: Pairing, operand: int, count: Any) -> Any:
    root, rank = node.root, len(node.shape)
    variance = ev.at(moment, root.node, root.dims, root.node, root.dims, rank, pairing)
    if variance is ZERO:
        variance = jnp.zeros((1,) * (1 + rank), ev.dtype)
    values = [ev.value_at(v.node, v.dims, rank, operand, pairing) for v in node.values]  # type: ignore[arg-type]
    function = ev.activations.of(node).fn
    shape = jnp.broadcast_shapes(variance.shape, *(v.shape for v in values))
    below, here, above = (
        function(jnp.full(shape, step, ev.dtype), *values) for step in (-_STEP, 0.0, _STEP)
    )
    bad = jnp.maximum(jnp.abs(above - here), jnp.abs(here - below)) > _JUMP
    if ev.with_tangent:
        slope = ev.at(tangent, root.node, root.dims, root.node, root.dims, rank, pairing)
        if slope is not ZERO:
            bad = bad | ((jnp.abs(above + below - 2 * here) > _BEND * _STEP) & (slope > 0))
    bad = bad & (variance <= _NOTHING * jnp.max(variance))
    if count is not None:
        rows = jnp.arange(bad.shape[0]) < count
        bad = bad & rows.reshape(-1, *(1,) * (bad.ndim - 1))
    return jnp.any(bad)


def refusal(node: n.Apply, *, tangents: bool) -> AmbiguousScaleError:
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
