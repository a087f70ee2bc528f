"""Jumps and kinks of functions of a variable that is exactly zero.

Where an input is empty and no bias has a spread, a Gaussian variable has no variance. A network
then computes φ(0), and its tangent φ'(0) as automatic differentiation has it, which is 0 for
``jax.nn.relu``; the moments of ever smaller Gaussians tend to an average over both sides instead.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from widelimit import duals
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


def pair(
    ev: Evaluation, phi: duals.Activation, psi: duals.Activation, q1: Any, q2: Any, params1: tuple,
    params2: tuple, out: Any, *, derivative: bool,
) -> Any:
    """E[φ(u) ψ(v)] and E[φ'(u) ψ'(v)] as found, put right where u or v has no variance.

    A variable without variance is independent of the other. An evaluation that is not careful
    takes note instead.
    """
    if not (breaks(phi) or breaks(psi)):
        return out

    def right(out: Any) -> Any:
        dead = (q1 <= 0) | (q2 <= 0)
        of = lambda a, b, was: jnp.where(
            dead, _mean(a, q1, params1) * _mean(b, q2, params2), was
        ).astype(was.dtype)
        value = of(phi, psi, out.value)
        slopes = of(phi.prime, psi.prime, out.derivative) if derivative else out.derivative
        return out._replace(value=value, derivative=slopes)

    some = jnp.any(q1 <= 0) | jnp.any(q2 <= 0)
    if not ev.careful:
        ev.empty.append(some)
        return out
    if not isinstance(some, jax.core.Tracer):
        return right(out) if bool(some) else out
    return jax.lax.cond(some, right, lambda same: same, out)
