"""The mode of a posterior of class scores, by Newton's method, and the curvature there."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

_MOST_STEPS = 100
_LEAST_FRACTION = 1e-12


class Mode(NamedTuple):
    """The mode f, as weights k^-1 f, and what predictions need.

    Attributes
    ----------
    weights
        Shape (n, classes).
    objective
        log p(y | f) - f' k^-1 f / 2.
    half_log_determinant
        Half of log |I + W^1/2 k W^1/2|.
    precisions
        The matrices E_c, shape (classes, n, n).
    total
        The lower Cholesky factor of their sum.
    """

    weights: Float[Array, "n classes"]
    objective: Float[Array, ""]
    half_log_determinant: Float[Array, ""]
    precisions: Float[Array, "classes n n"]
    total: Float[Array, "n n"]


class _State(NamedTuple):
    """The log joint density up to a constant, the largest entry of its gradient, their errors."""

    value: Array
    residual: Array
    slack: Array
    tolerance: Array


def find_mode(gram: Array, y: Array) -> tuple[Mode, int, float, bool]:
    """Damped Newton's method from f = 0: the mode, steps, residual, and whether it is small."""
    weights = jnp.zeros_like(y)
    now, steps, accepted = _objective(gram, y, weights), 0, True
    while accepted and now.residual > now.tolerance and steps < _MOST_STEPS:
        move, fraction, accepted = _newton(gram, y, weights) - weights, 1.0, False
        while not accepted and fraction > _LEAST_FRACTION:
            new = _objective(gram, y, weights + fraction * move)
            # Near the mode the objective is flat to rounding; there the residual decides.
            flat = new.value >= now.value - now.slack and new.residual < now.residual
            accepted = bool(new.value > now.value or flat)
            fraction = fraction if accepted else fraction / 2
        if accepted:
            weights, now, steps = weights + fraction * move, new, steps + 1
    mode = _at_mode(gram, y, weights)
    return mode, steps, float(now.residual), bool(now.residual <= now.tolerance)


@jax.jit
def _objective(gram: Array, y: Array, weights: Array) -> _State:
    f = gram @ weights
    linear, normaliser = (y - 0.5 * weights) * f, logsumexp(f, axis=1)
    eps = jnp.finfo(gram.dtype).eps
    return _State(
        value=jnp.sum(linear) - jnp.sum(normaliser),
        residual=jnp.max(jnp.abs(y - jax.nn.softmax(f, axis=1) - weights)),
        slack=4 * eps * (jnp.sum(jnp.abs(linear)) + jnp.sum(jnp.abs(normaliser))),
        tolerance=jnp.maximum(
            eps ** (2 / 3), 4 * eps * jnp.max(jnp.abs(gram) @ jnp.abs(weights))
        ),
    )


def _curvature(gram: Array, p: Array) -> tuple[Array, Array, Array]:
    """E_c, shape (classes, n, n); half the log determinants of I + √D k √D; chol of their sum."""

    def one(column: Array) -> tuple[Array, Array]:
        root = jnp.sqrt(column)
        b = jnp.eye(len(column), dtype=gram.dtype) + root[:, None] * gram * root
        lower = jnp.linalg.cholesky(b)
        half = solve_triangular(lower, jnp.diag(root), lower=True)
        return half.T @ half, jnp.sum(jnp.log(jnp.diagonal(lower)))

    precisions, logs = jax.lax.map(one, p.T)
    return precisions, logs, jnp.linalg.cholesky(jnp.sum(precisions, 0))


@jax.jit
def _newton(gram: Array, y: Array, weights: Array) -> Array:
    """The weights of a full Newton step: (I + W k)^-1 (W f + y - π)."""
    f = gram @ weights
    p = jax.nn.softmax(f, axis=1)
    precisions, _, total = _curvature(gram, p)
    b = p * (f - jnp.sum(p * f, 1, keepdims=True)) + y - p
    c = jnp.einsum("cij,jc->ic", precisions, gram @ b)
    shared = cho_solve((total, True), jnp.sum(c, 1))
    return b - c + jnp.einsum("cij,j->ic", precisions, shared)


@jax.jit
def _at_mode(gram: Array, y: Array, weights: Array) -> Mode:
    p = jax.nn.softmax(gram @ weights, axis=1)
    precisions, logs, total = _curvature(gram, p)
    half = jnp.sum(logs) + jnp.sum(jnp.log(jnp.diagonal(total)))
    return Mode(weights, _objective(gram, y, weights).value, half, precisions, total)


@jax.jit
def latent_covariance(cross: Array, prior: Array, mode: Mode) -> Float[Array, "m classes classes"]:
    """Of new scores, from their prior covariance with the training rows and their variance."""
    moved = jnp.einsum("cij,mj->cim", mode.precisions, cross)
    half = jax.vmap(lambda one: solve_triangular(mode.total, one, lower=True))(moved)
    between = jnp.einsum("cim,dim->mcd", half, half)
    own = prior - jnp.einsum("mi,cim->cm", cross, moved)
    return between + jnp.eye(len(own), dtype=own.dtype) * jnp.maximum(own, 0).T[:, None]
