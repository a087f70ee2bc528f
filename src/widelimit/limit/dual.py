"""The dual of two pointwise nodes, value and derivative from one computation."""

from __future__ import annotations

from typing import Any

from widelimit.graph import nodes as n
from widelimit.limit.evaluate import ZERO, Evaluation, Pairing, barrier
from widelimit.limit.expectation import Factor, expect, factors_of, pair


def dual(
    ev: Evaluation, a: n.Apply, ta: tuple, b: n.Apply, tb: tuple, rank: int, p: Pairing
) -> tuple[Any, Any]:
    """(E[φ(u) ψ(v)], E[φ'(u) ψ'(v)]); the second only where tangent kernels are wanted."""
    from widelimit.limit.moments import relabel

    ((_, (f,)),) = factors_of(a)
    ((_, (g,)),) = factors_of(b)
    left: tuple[Factor, int] = (relabel(f, ta), 0)
    right: tuple[Factor, int] = (relabel(g, tb), 1)
    if not ev.related(f.root.node, g.root.node):
        return expect(ev, (left, right), rank, p), ZERO
    if ev.with_tangent:
        ev.activations.check_derivative(a)
        ev.activations.check_derivative(b)
    out = pair(ev, left, right, rank, p, derivative=ev.with_tangent)
    value, slope = (out.value, out.derivative) if ev.with_tangent else (out, ZERO)
    return barrier(value), barrier(slope)
