"""Jumps and kinks of functions of a variable that is exactly zero.

Where an input is empty and no bias has a spread, a Gaussian variable has no variance. A network
then computes φ(0), and its tangent φ'(0) as automatic differentiation has it, which is 0 for
``jax.nn.relu``; the moments of ever smaller Gaussians tend to an average over both sides instead.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from widelimit import duals
from widelimit.graph import nodes as n
from widelimit.limit.evaluate import Evaluation


def breaks(activation: Any) -> bool:
    """Whether a function may jump or bend."""
    if activation is duals.IDENTITY or type(activation) is not duals.Activation:
        return False
    if activation.n_params:
        return True
    return bool(activation.analysis.kinks) or not activation.analysis.resolved


def mean(activation: duals.Activation, q: Any, params: tuple) -> Any:
    """E[φ(u)] for u ~ N(0, q), and φ(0) where q is zero."""
    if not breaks(activation):
        return duals.mean(activation, q, params)
    return _mean(activation, q, params)


def _mean(activation: duals.Activation, q: Any, params: tuple) -> Any:
    dead = q <= 0
    spread = duals.mean(activation, jnp.where(dead, 1, q), params)
    there = activation.fn(jnp.zeros(jnp.broadcast_shapes(q.shape, spread.shape), q.dtype), *params)
    return jnp.where(dead, there, spread)


class Argument(NamedTuple):
    """A function of a Gaussian variable: the variable's node, its variance, known values."""

    activation: duals.Activation
    root: n.Node
    variance: Any
    params: tuple


def pair(ev: Evaluation, a: Argument, b: Argument, out: Any, *, derivative: bool) -> Any:
    """E[φ(u) ψ(v)] and E[φ'(u) ψ'(v)] as found, put right where u or v has no variance.

    A variable without variance is independent of the other. An evaluation that is not careful
    takes note instead.
    """
    if not (breaks(a.activation) or breaks(b.activation)):
        return out
    if not ev.careful:
        for x in (a, b):
            if _matters(ev, x):
                ev.empty.append(jnp.any(x.variance <= 0))
        return out

    def right(out: Any) -> Any:
        dead = (a.variance <= 0) | (b.variance <= 0)
        of = lambda phi, psi, was: jnp.where(
            dead, _mean(phi, a.variance, a.params) * _mean(psi, b.variance, b.params), was
        ).astype(was.dtype)
        phi, psi = a.activation, b.activation
        value = of(phi, psi, out.value)
        slopes = of(phi.prime, psi.prime, out.derivative) if derivative else out.derivative
        return out._replace(value=value, derivative=slopes)

    some = jnp.any(a.variance <= 0) | jnp.any(b.variance <= 0)
    if not isinstance(some, jax.core.Tracer):
        return right(out) if bool(some) else out
    return jax.lax.cond(some, right, lambda same: same, out)


def _matters(ev: Evaluation, x: Argument) -> bool:
    """Whether a variable without variance can make a difference.

    A continuous function has the value that variances tend to. Its slope meets the tangent kernel
    of the variable, which is zero there too unless something is trained that starts as a constant.
    """
    if not breaks(x.activation):
        return False
    found = None if x.activation.n_params else x.activation.analysis
    smooth = not ev.activations.has_jump(x.activation) if found is None else found.continuous
    return not smooth or (ev.with_tangent and ev.trains_constants(x.root))
