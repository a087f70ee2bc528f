"""Bayesian posteriors: the kernel is the prior covariance of a Gaussian process."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from widelimit.predict import _density
from widelimit.predict._process import Posterior


class Bayes(Posterior):
    """The Gaussian process whose prior covariance is a kernel of the network."""

    def covariance(self, x_star: PyTree) -> Array:
        """The posterior covariance."""
        return self._reduced(x_star, self._prior.matrix(x_star), lambda half: half.T @ half)

    def variance(self, x_star: PyTree) -> Array:
        """Its diagonal."""
        start = self._prior.diagonal(x_star)
        return jnp.maximum(self._reduced(x_star, start, lambda half: jnp.sum(half**2, 0)), 0)

    def _reduced(self, x_star: PyTree, start: Array, square: Callable[[Array], Array]) -> Array:
        cross = self._cross(x_star).T
        return self._system.each(lambda f: start - square(f.whiten(cross)))

    def _left_out(self) -> tuple[Array, Array]:
        precision = self._system.each(lambda f: f.inverse_diagonal())
        return precision, jnp.maximum(1 / precision - self._system.variances(), 0)

    def _left_out_density(self, precision: Array) -> Array:
        precision = jnp.broadcast_to(self._columns(precision), self._y.shape)
        terms = _density.gaussian(self._weights**2 / precision, -0.5 * jnp.log(precision), 1)
        return terms.reshape(terms.shape[0], -1).sum(1)
