"""Cholesky factors of Gram matrices: jitter only where needed, and a measured condition number."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

# Fraction of the correct digits that may be lost before results are called unreliable.
_LOST = 0.1
_GROWTH = 10.0
_STEPS = 12
# Columns of an inverse at a time.
_BLOCK = 1024


class PrecisionWarning(UserWarning):
    """A Gram matrix is too ill-conditioned for its dtype; predictions may have no correct digit."""


@dataclass(frozen=True)
class Factor:
    """The lower Cholesky factor of ``matrix + jitter I``.

    Attributes
    ----------
    lower
        Shape (n, n).
    jitter
        What was added to the diagonal; 0 if the matrix was positive definite as it was.
    condition
        The ratio of the largest to the smallest eigenvalue, estimated from below.
    """

    lower: Float[Array, "n n"]
    jitter: float
    condition: float

    def solve(self, b: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """(matrix + jitter I)^-1 b."""
        return cho_solve((self.lower, True), b)

    def whiten(self, b: Float[Array, "n k"]) -> Float[Array, "n k"]:
        """L^-1 b."""
        return solve_triangular(self.lower, b, lower=True)

    def inverse(self) -> Float[Array, "n n"]:
        """The inverse matrix."""
        return self.solve(jnp.eye(self.lower.shape[0], dtype=self.lower.dtype))

    def inverse_diagonal(self) -> Float[Array, " n"]:
        """The diagonal of the inverse: squared lengths of the columns of L^-1, some at a time."""
        n = self.lower.shape[0]
        starts = range(0, n, _BLOCK)
        return jnp.concatenate([
            jnp.sum(self.whiten(_unit_columns(n, min(_BLOCK, n - k), k, self.lower)) ** 2, axis=0)
            for k in starts
        ])

    def half_log_determinant(self) -> Float[Array, ""]:
        """Half the logarithm of the determinant."""
        return jnp.sum(jnp.log(jnp.diagonal(self.lower)))


def _unit_columns(n: int, count: int, start: int, like: Array) -> Float[Array, "n count"]:
    return jnp.eye(n, count, -start, dtype=like.dtype)


def factorize(matrix: Float[Array, "n n"], noise: Any, *, consume: bool = False) -> Factor:
    """Factor the matrix plus noise, adding the smallest jitter that makes it positive definite.

    With ``consume`` the caller's matrix is gone afterwards, and two are in memory at most besides
    LAPACK's. The noise is one number for the whole diagonal, or has shape (n,). Jitter is searched
    over eps · mean(diag) · 10^k, k = 0, 1, …, and left at zero where none is needed. While JAX
    traces, neither is searched nor is the condition number known.

    Raises
    ------
    ValueError
        If the matrix is so far from positive semi-definite that jitter of a tenth of its
        diagonal does not help.

    Warns
    -----
    PrecisionWarning
        If jitter beyond √eps · mean(diag) was needed, or if the dtype is float32 or shorter and
        the condition number exceeds a tenth of its inverse precision.
    """
    n = matrix.shape[0]
    noise = jnp.asarray(noise, matrix.dtype)
    if isinstance(matrix, jax.core.Tracer) or isinstance(noise, jax.core.Tracer):
        return Factor(jnp.linalg.cholesky(_shifted(matrix, noise)), 0.0, float("nan"))
    noisy = (_shifted_in_place if consume else _shifted)(matrix, noise)
    lower = _cholesky(noisy)
    if isinstance(lower, jax.core.Tracer):
        return Factor(lower, 0.0, float("nan"))
    eps = float(jnp.finfo(matrix.dtype).eps)
    scale = float(jnp.mean(jnp.diagonal(noisy)))
    jitter = 0.0
    while not bool(jnp.all(jnp.isfinite(lower))):
        jitter = eps * scale if jitter == 0 else jitter * _GROWTH
        if not 0 < jitter <= 0.1 * scale:
            msg = (
                f"the Gram matrix of {n} examples is not positive semi-definite, even with a "
                "tenth of its diagonal added; are the inputs finite and of sensible size?"
            )
            raise ValueError(msg)
        lower = _cholesky(_shifted(noisy, jitter))
    condition = float(_condition(_shifted(noisy, jitter) if jitter else noisy, lower))
    coarse = eps > 1e-10 and condition * eps > _LOST
    if coarse or jitter > eps**0.5 * scale:
        added = f", after adding {jitter:.1e} to its diagonal" if jitter else ""
        warnings.warn(
            f"the Gram matrix of {n} examples has condition number {condition:.1e}{added}, "
            f"beyond the precision of {matrix.dtype} ({eps:.1e}); pass float64 inputs (with "
            "jax_enable_x64) or a larger noise",
            PrecisionWarning,
            stacklevel=5,
        )
    return Factor(lower, jitter, condition)


@jax.jit
def _shifted(matrix: Float[Array, "n n"], diagonal: Any) -> Float[Array, "n n"]:
    """The matrix plus a diagonal, without a second matrix for it."""
    i = jnp.arange(matrix.shape[0])
    return matrix.at[i, i].add(diagonal)


_shifted_in_place = jax.jit(_shifted, donate_argnums=0)


@jax.jit
def _cholesky(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Of the lower triangle as it is: a symmetrised copy would be one matrix more."""
    return jax.lax.linalg.cholesky(matrix, symmetrize_input=False)


@jax.jit
def _condition(matrix: Float[Array, "n n"], lower: Float[Array, "n n"]) -> Float[Array, ""]:
    """Power iteration on the matrix and on its inverse."""

    def largest(apply: Any) -> Any:
        start = jax.random.normal(jax.random.key(0), (matrix.shape[0],), matrix.dtype)

        def step(_: Any, state: Any) -> Any:
            v, _ = state
            w = apply(v)
            size = jnp.linalg.norm(w)
            return w / size, size

        return jax.lax.fori_loop(0, _STEPS, step, (start / jnp.linalg.norm(start), 0.0 * start[0]))

    (_, top), (_, inverse) = largest(lambda v: matrix @ v), largest(
        lambda v: cho_solve((lower, True), v)
    )
    return top * inverse
