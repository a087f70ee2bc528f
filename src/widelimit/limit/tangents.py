"""Tangent kernels Σ_θ ⟨∂a/∂θ, ∂b/∂θ⟩ of any two nodes: the NTK recursion."""

from __future__ import annotations

from functools import partial
from typing import Any

from widelimit.errors import SharedAcrossWidthError
from widelimit.graph import nodes as n
from widelimit.limit.dual import dual
from widelimit.limit.evaluate import ZERO, Evaluation, Pairing, add, times
from widelimit.limit.expectation import differentiated, expect, factors_of
from widelimit.limit.moments import (
    Targets,
    bilinear,
    coefficients,
    drawn_pair,
    gathered,
    moment,
    relabel,
    same_draw,
)
from widelimit.limit.particles import drawn_tangent
from widelimit.limit.sources import overlap_pair, source_pair
from widelimit.limit.together import sampled_tangent


def tangent(
    ev: Evaluation, a: n.Node, ta: Targets, b: n.Node, tb: Targets, rank: int, p: Pairing
) -> Any:
    """Σ_θ ⟨∂a/∂θ, ∂b/∂θ⟩ per channel, in ``rank`` label axes.

    Averages over width do not contribute: their tangent is spread over all channels.
    """
    if isinstance(a, n.Value) or isinstance(b, n.Value) or not ev.related(a, b):
        return ZERO
    assert isinstance(a, n.Field)
    assert isinstance(b, n.Field)
    integral = partial(drawn_tangent, moment, tangent)
    drawn = drawn_pair(tangent, integral, ev, a, ta, b, tb, rank, p)
    if drawn is not NotImplemented:
        return drawn
    if (a.several or b.several) and n.of_overlaps(a) and n.of_overlaps(b):
        return sampled_tangent(moment, tangent, ev, a, ta, b, tb, rank, p)
    found = bilinear(tangent, ev, a, ta, b, tb, rank, p)
    if found is not NotImplemented:
        return found
    match a, b:
        case n.Source(), n.Source():
            if not same_draw(a, b):
                return ZERO
            return source_pair(ev, a, ta, b, tb, rank, p, gathered=gathered, tangent=tangent)
        case n.Overlap(), n.Overlap():
            return overlap_pair(tangent, ev, a, ta, b, tb, rank, p)
        case n.Entry(), n.Entry():
            if not same_draw(a, b) or not ev.trainable[a.draw.leaf]:
                return ZERO
            import jax.numpy as jnp

            return jnp.full((1,) * (ev.batch(p) + rank), a.scale * b.scale, ev.dtype)
        case n.Tangent(), n.Tangent():
            return _constant_parameter(ev, a, ta, b, tb, rank, p)
    if isinstance(a, n.Apply) and isinstance(b, n.Apply):
        ra, rb = a.root, b.root
        ia, ib = tuple(ta[k] for k in ra.dims), tuple(tb[k] for k in rb.dims)
        inner = ev.at(tangent, ra.node, ia, rb.node, ib, rank, p)
        if inner is ZERO:
            return ZERO
        return times(inner, ev.at(dual, a, ta, b, tb, rank, p)[1])
    return _products(ev, a, ta, b, tb, rank, p)


def _constant_parameter(
    ev: Evaluation, a: n.Tangent, ta: Targets, b: n.Tangent, tb: Targets, rank: int, p: Pairing
) -> Any:
    if not same_draw(a, b) or not ev.trainable[a.draw.leaf]:
        return ZERO
    if a.shared or b.shared:
        raise SharedAcrossWidthError(
            "the tangent kernel of one trained number that serves all channels",
            why="the derivative with respect to it is random even at infinite width, so the "
            "tangent kernel has no deterministic limit; the NNGP is not affected.",
            remedy="freeze it (trainable=...), or give every channel its own.",
            where=a.where,
        )
    fa, fb = a.factor, b.factor
    ia, ib = tuple(ta[k] for k in fa.dims), tuple(tb[k] for k in fb.dims)
    return times(ev.at(moment, fa.node, ia, fb.node, ib, rank, p), a.scale * b.scale)


def _products(
    ev: Evaluation, a: n.Field, ta: Targets, b: n.Field, tb: Targets, rank: int, p: Pairing
) -> Any:
    """Σ_ij E[∂_i F ∂_j G] T(r_i, r_j) over the Gaussian roots of both sides."""
    total: Any = ZERO
    for left_known, left in factors_of(a):
        for right_known, right in factors_of(b):
            f = [relabel(x, ta) for x in left]
            g = [relabel(x, tb) for x in right]
            for i, x in enumerate(f):
                for j, y in enumerate(g):
                    inner = ev.at(
                        tangent, x.root.node, x.root.dims, y.root.node, y.root.dims, rank, p
                    )
                    if inner is ZERO:
                        continue
                    items = [
                        *((z, 0) for z in _replaced(ev, f, i)),
                        *((z, 1) for z in _replaced(ev, g, j)),
                    ]
                    value = times(inner, expect(ev, tuple(items), rank, p))
                    value = coefficients(ev, value, left_known, ta, right_known, tb, rank, p)
                    total = add(total, value)
    return total


def _replaced(ev: Evaluation, factors: list[Any], i: int) -> list[Any]:
    """The factors with the i-th differentiated; a constant derivative drops out."""
    for node in factors[i].apply:
        ev.activations.check_derivative(node)
    slope = differentiated(ev, factors[i])
    middle = [] if slope is None else [slope]
    return [*factors[:i], *middle, *factors[i + 1 :]]
