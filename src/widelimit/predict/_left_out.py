"""Predictions of each training example from all the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax
from jaxtyping import Array, Float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LeaveOneOut:
    """Predictions for each training example from all the others; unpacks as mean and variance.

    Attributes
    ----------
    mean
        Shape (n, *outputs).
    variance
        Of the function, without noise: shape (n,), or (n, outputs) where outputs differ in their
        noise.
    """

    mean: Float[Array, "n ..."]
    variance: Float[Array, "n ..."]
    _log_density: Float[Array, " n"] | None = None

    @property
    def log_density(self) -> Float[Array, " n"]:
        """Of each left-out row of targets, noise included, all outputs jointly; shape (n,).

        Raises
        ------
        ValueError
            For ``kind="ntk"``.
        """
        if self._log_density is None:
            raise ValueError(NO_DENSITY)
        return self._log_density

    def __iter__(self) -> Iterator[Array]:
        return iter((self.mean, self.variance))


NO_DENSITY = (
    "kind 'ntk' is the distribution of trained networks over their initialisation: its noise is "
    "a ridge, not a noise of the targets, so that data have no density under it; use 'ntkgp' for "
    "the Gaussian process with the same mean, or 'nngp'"
)
