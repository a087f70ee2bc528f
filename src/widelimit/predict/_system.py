"""Linear systems with a Gram matrix and noise, factored once for outputs that share their noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from widelimit.predict._factor import Factor, factorize


@dataclass(frozen=True)
class System:
    """The matrices ``gram + noise``, one for all outputs or one for each.

    Attributes
    ----------
    factors
        One, or as many as there are outputs.
    noise
        Shape (1 or n, 1 or outputs).
    """

    factors: tuple[Factor, ...]
    noise: Float[Array, "rows columns"]

    @classmethod
    def of(
        cls,
        gram: Float[Array, "n n ..."],
        noise: Float[Array, "rows columns"],
        *,
        consume: bool = False,
    ) -> System:
        """Factor ``gram``, of shape (n, n) or (n, n, outputs), plus the noise.

        With ``consume`` one matrix for all outputs is not kept; see :func:`factorize`.
        """
        columns = max(noise.shape[1], *gram.shape[2:], 1)
        matrices = [gram] * columns if gram.ndim == 2 else list(jnp.moveaxis(gram, 2, 0))
        noises = jnp.broadcast_to(noise, (noise.shape[0], columns))
        once = consume and columns == 1
        factors = tuple(
            factorize(m, noises[:, k], consume=once) for k, m in enumerate(matrices)
        )
        return cls(factors, noise)

    @property
    def jitter(self) -> float:
        """The most that was added to a diagonal."""
        return max(f.jitter for f in self.factors)

    @property
    def condition(self) -> float:
        """The largest condition number."""
        return max(f.condition for f in self.factors)

    def each(self, work: Callable[[Factor], Array]) -> Array:
        """``work`` of the factor; where each output has its own, along a new last axis."""
        if len(self.factors) == 1:
            return work(self.factors[0])
        return jnp.stack([work(f) for f in self.factors], -1)

    def solve(self, y: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Each output's matrix inverse times its column of y."""
        if len(self.factors) == 1:
            return self.factors[0].solve(y)
        return jnp.stack([f.solve(y[:, k]) for k, f in enumerate(self.factors)], 1)

    def quadratic(self, y: Float[Array, "n ..."]) -> Float[Array, ""]:
        r""":math:`\sum_o y_o^\top M_o^{-1} y_o`."""
        return jnp.sum(y * self.solve(y))

    def half_log_determinant(self, outputs: int) -> Float[Array, ""]:
        """Half the sum over outputs of the log determinants."""
        return jnp.sum(self.each(Factor.half_log_determinant)) * (outputs // len(self.factors))

    def variances(self) -> Float[Array, ...]:
        """Noise and jitter on the diagonal: a number or shape (n,), then maybe (…, outputs)."""
        jitter = jnp.asarray([f.jitter for f in self.factors], self.noise.dtype)
        total = self.noise + jitter
        return total if len(self.factors) > 1 else total[:, 0]
