"""The distribution of trained networks over their random initialisation."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from widelimit.predict._left_out import NO_DENSITY
from widelimit.predict._process import Posterior


class Trained(Posterior):
    """Networks at the end of gradient flow; Lee et al. 2019."""

    def __init__(self, *args: Any, nngp: Array) -> None:
        super().__init__(*args)
        self._nngp = nngp

    def covariance(self, x_star: PyTree) -> Array:
        """K** + A K A' - A K*' - K* A'."""
        nngp, ntk = self._prior.both(x_star, self._x)
        start = self._prior.matrix(x_star)

        def one(a: Array) -> Array:
            mixed = a @ (0.5 * self._nngp @ a.T - nngp.T)
            return start + mixed + mixed.T

        return self._system.each(lambda f: one(f.solve(ntk.T).T))

    def variance(self, x_star: PyTree) -> Array:
        """Its diagonal."""
        nngp, ntk = self._prior.both(x_star, self._x)
        start = self._prior.diagonal(x_star)

        def one(a: Array) -> Array:
            return start + jnp.sum(a * (a @ self._nngp - 2 * nngp), 1)

        return jnp.maximum(self._system.each(lambda f: one(f.solve(ntk.T).T)), 0)

    def _cross(self, x_star: PyTree) -> Array:
        return self._prior.cross(x_star, self._x, "ntk")

    def _evidence(self) -> Any:
        raise ValueError(NO_DENSITY)

    def _surprise(self, *_: Any) -> Any:
        raise ValueError(NO_DENSITY)

    def _left_out(self) -> tuple[Array, Array]:
        inverses = self._system.each(lambda f: f.inverse())
        precision = jnp.diagonal(inverses)
        if inverses.ndim == 3:
            precision = precision.T
        spread = jnp.einsum("ij...,jk,ki...->i...", inverses, self._nngp, inverses)
        return precision, jnp.maximum(spread / precision**2, 0)

    def _left_out_density(self, precision: Array) -> None:
        """None: the ridge is not a noise of the targets."""
