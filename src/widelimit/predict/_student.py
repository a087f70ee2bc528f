"""Student-t processes: a Gaussian process whose scale has an inverse gamma distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from widelimit.predict import _density
from widelimit.predict._left_out import LeaveOneOut
from widelimit.predict._prior import InverseGamma
from widelimit.predict._process import Kind, Posterior


class StudentPosterior:
    r"""A posterior under a random scale of the prior; made by :func:`posterior` with ``prior``.

    With :math:`s \sim \mathrm{IG}(a, b)`, and given s a process with covariance s k and noise
    :math:`s \Sigma`, the posterior given N targets in all is a Student-t process with

    .. math:: \nu = 2a + N, \qquad \text{location } m, \qquad
              \text{shape } \frac{b + Q/2}{a + N/2}\, C, \qquad
              Q = \sum_o y_o^\top (k + \Sigma)^{-1} y_o,

    m and C those of the Gaussian process with s = 1. Trained networks (``kind="ntk"``) keep the
    scale that they were drawn with, which the targets say nothing about: there
    :math:`\nu = 2a` and the shape is (b/a) C.

    Shapes and arguments are those of :class:`Posterior`.

    Attributes
    ----------
    kind, jitter, condition
        As in :class:`Posterior`.
    degrees_of_freedom
        :math:`\nu`.
    scale
        What the shape matrix is relative to C.
    """

    kind: Kind

    def __init__(self, gaussian: Posterior, prior: InverseGamma) -> None:
        self._gaussian = gaussian
        self._prior = prior
        self.kind = gaussian.kind
        self.jitter = gaussian.jitter
        self.condition = gaussian.condition
        shape, scale = prior.shape, prior.scale
        if self.kind != "ntk":
            quadratic, _, count = gaussian._evidence()
            shape, scale = shape + 0.5 * count, scale + 0.5 * quadratic
        self._a, self._b = shape, scale
        self.degrees_of_freedom = 2 * shape
        self.scale = scale / shape

    def __repr__(self) -> str:
        return f"Student{self._gaussian!r}, degrees_of_freedom={self.degrees_of_freedom:.6g}"

    def mean(self, x_star: PyTree) -> Float[Array, "m ..."]:
        """The location, which is the mean where there is more than one degree of freedom."""
        return self._gaussian.mean(x_star)

    def shape_matrix(self, x_star: PyTree) -> Float[Array, "m m ..."]:
        """The shape matrix between predictions, without noise."""
        return self.scale * self._gaussian.covariance(x_star)

    def covariance(self, x_star: PyTree) -> Float[Array, "m m ..."]:
        r"""The covariance :math:`\frac{\nu}{\nu - 2}` times the shape matrix.

        Raises
        ------
        ValueError
            As in :meth:`Posterior.mean`, or if there are no more than two degrees of freedom.
        """
        return self._spread() * self._gaussian.covariance(x_star)

    def variance(self, x_star: PyTree) -> Float[Array, "m ..."]:
        """The diagonal of :meth:`covariance`, with the same errors."""
        return self._spread() * self._gaussian.variance(x_star)

    def sample(self, key: Array, x_star: PyTree, count: int) -> Float[Array, "count m ..."]:
        """Functions drawn from the posterior; each has one scale for all its outputs.

        Arguments and errors are those of :meth:`Posterior.sample`.
        """
        first, second = jax.random.split(key)
        moves = self._gaussian._moves(first, x_star, count)
        gamma = jax.random.gamma(second, self._a, (count,), moves.dtype)
        std = jnp.sqrt(self._b / gamma).reshape(count, *(1,) * (moves.ndim - 1))
        return self._gaussian.mean(x_star) + std * moves

    def log_marginal_likelihood(self) -> Float[Array, ""]:
        r"""The log density of all targets: multivariate t, 2a degrees of freedom, shape (b/a) k.

        Raises
        ------
        ValueError
            For ``kind="ntk"``, where data have no density.
        """
        return _density.student(*self._gaussian._evidence(), self._prior.shape, self._prior.scale)

    def log_predictive_density(
        self, x_star: PyTree, y_star: ArrayLike, *, noise: ArrayLike | None = None
    ) -> Float[Array, ""]:
        """The joint log density of new targets, noise included, given the training targets.

        Arguments and errors are those of :meth:`Posterior.log_predictive_density`; the noise is
        that at s = 1.
        """
        new = self._gaussian._surprise(x_star, y_star, noise)
        return _density.student(*new, self._a, self._b)

    def leave_one_out(self) -> LeaveOneOut:
        r"""Predictions for each training example from all the others, in closed form.

        The mean is that of the Gaussian process. With :math:`r_i = (P y)_i`, leaving row i out
        leaves :math:`Q - \sum_o r_{io}^2 / P_{ii}` of Q. Variances are infinite where there are
        no more than two degrees of freedom.
        """
        of = self._gaussian
        precision, spread = of._left_out()
        mean = of._left_out_mean(precision)
        if self.kind == "ntk":
            variance = spread * (self._b / (self._a - 1) if self._a > 1 else jnp.inf)
            return LeaveOneOut(mean, variance)
        weights, precision = of._weights, jnp.broadcast_to(of._columns(precision), of._y.shape)
        rows = lambda values: values.reshape(values.shape[0], -1).sum(1)
        left = rows(weights**2 / precision)
        outputs = of._outputs
        shape, scale = self._a - 0.5 * outputs, self._b - 0.5 * left
        logs = _density.student(left, rows(-0.5 * jnp.log(precision)), outputs, shape, scale)
        factor = scale / (shape - 1) if shape > 1 else jnp.full_like(scale, jnp.inf)
        factor = factor.reshape(-1, *(1,) * (spread.ndim - 1))
        return LeaveOneOut(mean, spread * factor, logs)

    def _spread(self) -> Array | float:
        """The mean of the scale."""
        if self._a <= 1:
            msg = (
                f"a Student-t process with {self.degrees_of_freedom:.3g} degrees of freedom has no "
                "covariance, which takes more than 2; use shape_matrix, or a prior of larger shape"
            )
            raise ValueError(msg)
        return self._b / (self._a - 1)
