"""What every posterior can do."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from widelimit.predict import _checks, _density
from widelimit.predict._left_out import LeaveOneOut
from widelimit.predict._noise import noise_variance
from widelimit.predict._prior import Covariance, Mean
from widelimit.predict._system import System

Kind = Literal["nngp", "ntk", "ntkgp"]


class Posterior:
    """The distribution of a trained, infinitely wide network; made by :func:`posterior`.

    Where outputs differ in their noise, variances have shape (m, outputs) and covariances
    (m, m, outputs); otherwise they are the same for all outputs, of shape (m,) and (m, m).

    Attributes
    ----------
    kind
        ``"nngp"``, ``"ntk"`` or ``"ntkgp"``.
    jitter
        What had to be added to the diagonal of the Gram matrix; 0 in most cases.
    condition
        The condition number of the matrix that was solved with, estimated from below.
    """

    def __init__(
        self, kind: Kind, prior: Covariance, mean: Mean, x: PyTree, y: Array, system: System
    ) -> None:
        self.kind = kind
        self._prior = prior
        self._offset = mean
        self._x = x
        self._y = y
        self._residual = y - mean(x, y.shape[1:], y.dtype)
        self._system = system
        self._weights = system.solve(self._residual)
        self.jitter = system.jitter
        self.condition = system.condition

    def __repr__(self) -> str:
        return (
            f"Posterior(kind={self.kind!r}, examples={self._y.shape[0]}, "
            f"jitter={self.jitter:.3g}, condition={self.condition:.3g})"
        )

    def mean(self, x_star: PyTree) -> Float[Array, "m ..."]:
        r"""The mean prediction, :math:`\mu_* + k_* (k + \text{noise})^{-1} (y - \mu)`.

        Here k is the kernel of ``kind`` and :math:`\mu` the prior mean.

        Parameters
        ----------
        x_star
            Inputs, shape (m, *shape), or a pytree of them.

        Returns
        -------
        Shape (m, *outputs), with ``outputs`` as in y.

        Raises
        ------
        ValueError
            If the inputs are not finite or not shaped like the training inputs.
        """
        x_star = jax.tree.map(jnp.asarray, x_star)
        return self._cross(x_star) @ self._weights + self._at(x_star)

    def covariance(self, x_star: PyTree) -> Float[Array, "m m ..."]:
        """The covariance between predictions, shape (m, m) or (m, m, outputs).

        The formula is that of :func:`posterior`; observation noise is not included. Arguments
        and errors are those of :meth:`mean`.
        """
        raise NotImplementedError

    def variance(self, x_star: PyTree) -> Float[Array, "m ..."]:
        """The diagonal of :meth:`covariance`, without computing the rest."""
        raise NotImplementedError

    def sample(self, key: Array, x_star: PyTree, count: int) -> Float[Array, "count m ..."]:
        """Functions drawn from the posterior at the inputs, noise not included.

        Parameters
        ----------
        key
            A random key.
        x_star
            As in :meth:`mean`.
        count
            How many functions.

        Returns
        -------
        Shape (count, m, *outputs); outputs are drawn independently.

        Raises
        ------
        ValueError
            As in :meth:`mean`, or if the count is less than 1.
        """
        return self.mean(x_star) + self._moves(key, x_star, count)

    def log_marginal_likelihood(self) -> Float[Array, ""]:
        r"""The log density of the targets before any was seen, summed over outputs.

        .. math:: -\tfrac12 (y - \mu)^\top (k + \Sigma)^{-1} (y - \mu)
                  - \tfrac12 \log |k + \Sigma| - \tfrac n2 \log 2\pi

        Raises
        ------
        ValueError
            For ``kind="ntk"``, where data have no density.

        Notes
        -----
        Rasmussen and Williams, 2006, equation 2.30.
        """
        return _density.gaussian(*self._evidence())

    def log_predictive_density(
        self, x_star: PyTree, y_star: ArrayLike, *, noise: ArrayLike | None = None
    ) -> Float[Array, ""]:
        r"""The joint log density of new targets, noise included, given the training targets.

        Parameters
        ----------
        x_star
            As in :meth:`mean`.
        y_star
            Shape (m, *outputs).
        noise
            Of the new targets, shaped as in :func:`posterior` with m in place of n. The default
            is the noise of the training targets, if that does not change from row to row.

        Raises
        ------
        ValueError
            As in :meth:`mean`; if y_star or the noise do not fit; for ``kind="ntk"``.
        """
        return _density.gaussian(*self._surprise(x_star, y_star, noise))

    def leave_one_out(self) -> LeaveOneOut:
        r"""Predictions for each training example from all the others, in closed form.

        With :math:`P = (k + \Sigma)^{-1}` and :math:`r = y - \mu` the mean is
        :math:`y_i - (P r)_i / P_{ii}`. The variance is :math:`1/P_{ii} - \Sigma_{ii}` for
        ``"nngp"`` and ``"ntkgp"``, and :math:`(P K P)_{ii} / P_{ii}^2` for ``"ntk"``, K the NNGP
        kernel. The log density is that of :math:`y_i` under the mean and variance
        :math:`1/P_{ii}`.

        Notes
        -----
        Rasmussen and Williams, Gaussian processes for machine learning, 2006, section 5.4.2. For
        ``"ntk"`` apply the same identity to the residuals y - f₀ of a network that starts at f₀.
        """
        precision, spread = self._left_out()
        return LeaveOneOut(
            self._left_out_mean(precision), spread, self._left_out_density(precision)
        )

    # ----------------------------------------------------------------- inside

    def _cross(self, x_star: PyTree) -> Array:
        """The kernel of ``kind`` between new and training inputs, shape (m, n)."""
        return self._prior.cross(x_star, self._x)

    def _at(self, x_star: PyTree) -> Array:
        """The prior mean of new inputs."""
        return self._offset(x_star, self._y.shape[1:], self._y.dtype)

    def _columns(self, values: Array) -> Array:
        """One value per row, or per row and output, aligned with y."""
        return values.reshape(values.shape + (1,) * (self._y.ndim - values.ndim))

    def _moves(self, key: Array, x_star: PyTree, count: int) -> Array:
        """Draws of the posterior process less its mean."""
        if count < 1:
            msg = f"the number of samples is at least 1, got {count}"
            raise ValueError(msg)
        covariance = self.covariance(x_star)
        shape = (count, covariance.shape[0], *self._y.shape[1:])
        normal = jax.random.normal(key, shape, covariance.dtype)
        if covariance.ndim == 2:
            return jnp.einsum("ij,sj...->si...", _root(covariance), normal)
        roots = jax.vmap(_root, 2, 2)(covariance)
        return jnp.einsum("ijo,sjo->sio", roots, normal)

    def _evidence(self) -> tuple[Array, Array, int]:
        """Quadratic form, half the log determinant and number of all targets."""
        quadratic = jnp.sum(self._residual * self._weights)
        return quadratic, self._system.half_log_determinant(self._outputs), self._y.size

    def _surprise(self, x_star: PyTree, y_star: Any, noise: Any) -> tuple[Array, Array, int]:
        """The same three numbers of new targets given the training targets."""
        mean = self.mean(x_star)
        y_star = _checks.targets(y_star, mean.shape[0], mean.dtype)
        if y_star.shape != mean.shape:
            msg = f"y_star has shape {y_star.shape} where predictions have {mean.shape}"
            raise ValueError(msg)
        if noise is None:
            if self._system.noise.shape[0] > 1:
                msg = "the noise changes from row to row: give that of the new targets, noise=…"
                raise ValueError(msg)
            noise = self._system.noise
        noise = noise_variance(noise, mean.shape[0], self._outputs, mean.dtype)
        system = System.of(self.covariance(x_star), noise)
        return (
            system.quadratic(y_star - mean),
            system.half_log_determinant(self._outputs),
            y_star.size,
        )

    @property
    def _outputs(self) -> int:
        return self._y.shape[1] if self._y.ndim == 2 else 1

    def _left_out(self) -> tuple[Array, Array]:
        """Diagonal of P, and the variance of the left-out function."""
        raise NotImplementedError

    def _left_out_mean(self, precision: Array) -> Array:
        return self._y - self._weights / self._columns(precision)

    def _left_out_density(self, precision: Array) -> Array | None:
        raise NotImplementedError


def _root(covariance: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """The symmetric square root; eigenvalues that rounding made negative count as zero."""
    values, vectors = jnp.linalg.eigh(covariance)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0))) @ vectors.T
