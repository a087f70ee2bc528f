"""The closed form: a Gram matrix in its eigenvectors, and the way covered along each."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from widelimit.dynamics._method import Method, require_stable


class Eigen:
    r"""Functions :math:`G(T)` of a Gram matrix, with :math:`G = u(\lambda + \delta, t)`.

    Attributes
    ----------
    values
        The eigenvalues λ, shape (n,), ascending; negative ones are rounding errors and set to 0.
    vectors
        Shape (n, n), one a column.
    decay
        δ, the factor of weight decay.

    Raises
    ------
    ValueError
        If the method diverges.
    """

    values: Float[Array, " n"]
    vectors: Float[Array, "n n"]

    def __init__(self, gram: Array, chosen: Method, decay: float) -> None:
        values, self.vectors = jnp.linalg.eigh(gram)
        self.values = jnp.maximum(values, 0)
        self.method = chosen
        self.decay = decay
        self._rounding = values.shape[0] * jnp.finfo(values.dtype).eps * values[-1]
        require_stable(chosen, self.values[-1] + decay)

    @property
    def rates(self) -> Float[Array, " n"]:
        """η (λ + δ)."""
        rate = jnp.asarray(self.method.learning_rate, self.values.dtype)
        return rate * (self.values + self.decay)

    def moved(self, t: Array) -> Float[Array, "*times n"]:
        """u(λ + δ, t) for each eigenvalue, at a number t or for t of shape (times, 1).

        An eigenvalue that is rounding error has an eigenvector that the kernel with new inputs
        annihilates up to rounding error; where u is so large that this error would matter the
        direction is left out.
        """
        u = self.method.moved(self.values + self.decay, t)
        return jnp.where(self._lost(u), 0, u)

    def mixed(self, t: Array) -> Float[Array, "*times n"]:
        """(u(λ + δ, t) - u(δ, t)) / λ: what decay of the start's own part adds."""
        u = self.method.moved(self.values + self.decay, t)
        alone = self.own(t)
        small = self.values <= self._rounding
        slope = (u - alone) / jnp.where(small, 1, self.values)
        return jnp.where(small, 0, slope)

    def own(self, t: Array) -> Float[Array, "*times 1"]:
        """u(δ, t)."""
        return self.method.moved(jnp.full(1, self.decay, self.values.dtype), t)

    def _lost(self, u: Array) -> Array:
        return (self.values <= self._rounding) & (u * self._rounding >= 0.5)
