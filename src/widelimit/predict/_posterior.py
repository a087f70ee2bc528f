"""Exact predictions: the NNGP posterior, and gradient flow under the NTK."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from widelimit.kernel import Kernel
from widelimit.predict import _checks
from widelimit.predict._factor import Factor, factorize


class LeaveOneOut(NamedTuple):
    """Predictions for each training example from all the others.

    Attributes
    ----------
    mean
        Shape (n, *outputs).
    variance
        Shape (n,).
    """

    mean: Float[Array, "n ..."]
    variance: Float[Array, " n"]


class Posterior:
    """The distribution of a trained, infinitely wide network; made by :func:`posterior`.

    Attributes
    ----------
    kind
        ``"nngp"`` or ``"ntk"``.
    jitter
        What had to be added to the diagonal of the Gram matrix; 0 in most cases.
    condition
        The condition number of the matrix that was solved with, estimated from below.
    """

    kind: Literal["nngp", "ntk"]

    def __init__(self, kernel: Kernel, x: PyTree, y: Array, factor: Factor, noise: Any) -> None:
        self._kernel = kernel
        self._x = x
        self._y = y
        self._factor = factor
        self._noise = noise
        self._weights = factor.solve(y)
        self.jitter = factor.jitter
        self.condition = factor.condition

    def __repr__(self) -> str:
        return (
            f"Posterior(kind={self.kind!r}, examples={self._y.shape[0]}, "
            f"jitter={self.jitter:.3g}, condition={self.condition:.3g})"
        )

    def mean(self, x_star: PyTree) -> Float[Array, "m ..."]:
        r"""The mean prediction, :math:`k_* (k + \text{noise}\,I)^{-1} y`, k the kernel of ``kind``.

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
        return self._cross(x_star) @ self._weights

    def covariance(self, x_star: PyTree) -> Float[Array, "m m"]:
        """The covariance between predictions, shape (m, m), the same for every output.

        The formula is that of :func:`posterior`; observation noise is not included. Arguments
        and errors are those of :meth:`mean`.
        """
        raise NotImplementedError

    def variance(self, x_star: PyTree) -> Float[Array, " m"]:
        """The diagonal of :meth:`covariance`, without computing the rest; shape (m,)."""
        raise NotImplementedError

    def leave_one_out(self) -> LeaveOneOut:
        r"""Predictions for each training example from all the others, in closed form.

        With :math:`P = (k + \text{noise}\,I)^{-1}` the mean is
        :math:`y_i - (P y)_i / P_{ii}`. The variance is :math:`1/P_{ii} - \text{noise}` for
        ``"nngp"`` and :math:`(P K P)_{ii} / P_{ii}^2` for ``"ntk"``, K the NNGP kernel.

        Notes
        -----
        Rasmussen and Williams, Gaussian processes for machine learning, 2006, section 5.4.2. For
        ``"ntk"`` apply the same identity to the residuals y - f₀ of a network that starts at f₀.
        """
        inverse = self._factor.inverse()
        diagonal = jnp.diagonal(inverse)
        spread = self._left_out_variance(inverse, diagonal)
        shape = (-1,) + (1,) * (self._y.ndim - 1)
        mean = self._y - self._weights / diagonal.reshape(shape)
        return LeaveOneOut(mean, jnp.maximum(spread, 0))

    def _cross(self, x_star: PyTree) -> Array:
        """The kernel of ``kind`` between new and training inputs, shape (m, n)."""
        one = self._kernel.nngp if self.kind == "nngp" else self._kernel.ntk
        return _checks.scalar(one(x_star, self._x), 2)

    def _prior(self, x_star: PyTree) -> Array:
        return _checks.scalar(self._kernel.nngp(x_star), 2)

    def _prior_variance(self, x_star: PyTree) -> Array:
        return _checks.scalar(self._kernel.nngp_diagonal(x_star), 1)

    def _left_out_variance(self, inverse: Array, diagonal: Array) -> Array:
        raise NotImplementedError


class _Bayes(Posterior):
    kind = "nngp"

    def covariance(self, x_star: PyTree) -> Array:
        half = self._factor.whiten(self._cross(x_star).T)
        return self._prior(x_star) - half.T @ half

    def variance(self, x_star: PyTree) -> Array:
        half = self._factor.whiten(self._cross(x_star).T)
        return jnp.maximum(self._prior_variance(x_star) - jnp.sum(half**2, 0), 0)

    def _left_out_variance(self, inverse: Array, diagonal: Array) -> Array:
        del inverse
        return 1 / diagonal - (self._noise + self.jitter)


class _GradientFlow(Posterior):
    kind = "ntk"

    def __init__(
        self, kernel: Kernel, x: PyTree, y: Array, factor: Factor, noise: Any, nngp: Array
    ) -> None:
        super().__init__(kernel, x, y, factor, noise)
        self._nngp = nngp

    def covariance(self, x_star: PyTree) -> Array:
        a, cross = self._map(x_star)
        mixed = a @ (0.5 * self._nngp @ a.T - cross.T)
        return self._prior(x_star) + mixed + mixed.T

    def variance(self, x_star: PyTree) -> Array:
        a, cross = self._map(x_star)
        mixed = jnp.sum(a * (a @ self._nngp - 2 * cross), 1)
        return jnp.maximum(self._prior_variance(x_star) + mixed, 0)

    def _map(self, x_star: PyTree) -> tuple[Array, Array]:
        """A = T* (T + noise I)^-1, shape (m, n), and K*, shape (m, n)."""
        nngp, ntk = (_checks.scalar(k, 2) for k in self._kernel.both(x_star, self._x))
        return self._factor.solve(ntk.T).T, nngp

    def _left_out_variance(self, inverse: Array, diagonal: Array) -> Array:
        return jnp.sum(inverse * (inverse @ self._nngp), 1) / diagonal**2


def posterior(
    kernel: Kernel,
    x: PyTree,
    y: ArrayLike,
    *,
    noise: float = 0.0,
    kind: Literal["nngp", "ntk"] = "nngp",
) -> Posterior:
    r"""What an infinitely wide network predicts after seeing data, exactly.

    With K the NNGP and T the NTK of the training inputs, and a star for the inputs to predict:

    ``kind="nngp"``, the Bayesian posterior of the network's last layer under Gaussian noise,

    .. math:: m = K_* (K + \sigma^2 I)^{-1} y, \qquad
              C = K_{**} - K_* (K + \sigma^2 I)^{-1} K_*^\top

    ``kind="ntk"``, networks drawn from the prior and trained by gradient flow on the squared
    loss until convergence, all layers moving; mean and covariance over the draws are, with
    :math:`A = T_* (T + \sigma^2 I)^{-1}`,

    .. math:: m = A y, \qquad C = K_{**} + A K A^\top - A K_*^\top - K_* A^\top

    Parameters
    ----------
    kernel
        Of a network whose output is one scalar per channel.
    x
        Training inputs, shape (n, *shape), or a pytree of them.
    y
        Targets, shape (n,) or (n, outputs). Outputs are independent and share the kernel; their
        number need not be the network's number of channels.
    noise
        :math:`\sigma^2 \ge 0`. For ``"nngp"`` the variance of the observation noise. For
        ``"ntk"`` a ridge: training minimises
        :math:`\sum_i |f(x_i) - y_i|^2 + \sigma^2 |\theta - \theta_0|^2`, which keeps the
        parameters near their initial values; it is not a noise of the targets.
    kind
        ``"nngp"`` or ``"ntk"``.

    Returns
    -------
    Posterior

    Raises
    ------
    ValueError
        For values that are not finite, shapes that do not agree, negative noise, several outputs
        or outputs with positions.
    NotGaussianError
        If the network's output is not a centred Gaussian process in the limit.

    Warns
    -----
    PrecisionWarning
        If the Gram matrix is too ill-conditioned for the dtype of the inputs.

    Notes
    -----
    Lee et al., Deep neural networks as Gaussian processes, 2018; Lee et al., Wide neural networks
    of any depth evolve as linear models under gradient descent, 2019, equations 14 to 16. Where
    Cholesky's method fails the smallest power of ten that helps is added to the diagonal, and
    recorded as ``jitter``. Computes in the dtype of the inputs.
    """
    if kind not in ("nngp", "ntk"):
        msg = f"kind is 'nngp' or 'ntk', got {kind!r}"
        raise ValueError(msg)
    noise = _checks.variance(noise)
    x = jax.tree.map(jnp.asarray, x)
    _checks.require_gaussian_output(kernel, x)
    if kind == "nngp":
        nngp = gram = _checks.scalar(kernel.nngp(x), 2)
    else:
        nngp, gram = (_checks.scalar(k, 2) for k in kernel.both(x))
    y = _checks.targets(y, gram.shape[0], gram.dtype)
    factor = factorize(gram, noise)
    if kind == "nngp":
        return _Bayes(kernel, x, y, factor, noise)
    return _GradientFlow(kernel, x, y, factor, noise, nngp)
