"""The log evidence with its gradient in closed form, for half the cost of differentiating it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from widelimit.predict import _density


@jax.custom_vjp
def log_evidence(
    gram: Float[Array, "n n"], noise: Float[Array, " n"], y: Float[Array, "n outputs"]
) -> Float[Array, ""]:
    r"""The log density of all columns of y under N(0, M), M = gram + diag(noise).

    .. math:: \frac{\partial}{\partial M} = \tfrac12 \sum_o (M^{-1} y_o)(M^{-1} y_o)^\top
              - \tfrac{\text{outputs}}{2} M^{-1}

    NaN where M is not positive definite. Rasmussen and Williams, 2006, equations 2.30 and 5.9.
    """
    return _forward(gram, noise, y)[0]


def _forward(gram: Array, noise: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    # Fused into the factorisation's copies the kernel would be computed for each of them.
    gram = jax.lax.optimization_barrier(gram)
    lower = jnp.linalg.cholesky(gram + jnp.diag(noise))
    half = solve_triangular(lower, y, lower=True)
    determinant = jnp.sum(jnp.log(jnp.diagonal(lower)))
    value = _density.gaussian(jnp.sum(half**2), y.shape[1] * determinant, y.size)
    return value, (lower, solve_triangular(lower, half, lower=True, trans=1))


def _backward(saved: tuple[Array, Array], slope: Array) -> tuple[Array, Array, Array]:
    lower, weights = saved
    inverse = cho_solve((lower, True), jnp.eye(lower.shape[0], dtype=lower.dtype))
    matrix = 0.5 * slope * (weights @ weights.T - weights.shape[1] * inverse)
    matrix = jax.lax.optimization_barrier(matrix)
    return matrix, jnp.diagonal(matrix), -slope * weights


log_evidence.defvjp(_forward, _backward)
