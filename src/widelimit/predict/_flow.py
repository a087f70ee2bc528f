"""Networks during training: gradient flow at any time, from the prior to the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from widelimit.kernel import Kernel
from widelimit.predict import _checks
from widelimit.predict._prior import Covariance, Mean, check_scale


class GradientFlow:
    """The distribution of infinitely wide networks during training; see :func:`gradient_flow`.

    Times t are numbers from 0 to infinity, or arrays of shape (times,), which add a first axis to
    what is returned.

    Attributes
    ----------
    kind
        ``"ntk"`` or ``"nngp"``.
    rates
        The eigenvalues of the Gram matrix times the learning rate, shape (n,), ascending: the
        residual along eigenvector i decays as exp(-rates[i] t).
    """

    kind: Literal["ntk", "nngp"]
    rates: Float[Array, " n"]

    def __init__(
        self, kind: Any, prior: Covariance, mean: Mean, x: PyTree, y: Array, nngp: Array,
        gram: Array, learning_rate: Array,
    ) -> None:  # fmt: skip
        self.kind = kind
        self._prior = prior
        self._offset = mean
        self._x = x
        self._start = mean(x, y.shape[1:], y.dtype)
        self._y = y
        values, self._vectors = jnp.linalg.eigh(gram)
        self._values = jnp.maximum(values, 0)
        self._learning_rate = learning_rate
        self.rates = learning_rate * self._values
        self._projected = self._vectors.T @ (y - self._start)
        self._nngp = self._vectors.T @ nngp @ self._vectors

    def __repr__(self) -> str:
        return f"GradientFlow(kind={self.kind!r}, examples={self._y.shape[0]})"

    def mean(self, x_star: PyTree, t: ArrayLike) -> Float[Array, "*times m *outputs"]:
        r"""The mean prediction at time t, :math:`A(t) y` with A of :func:`gradient_flow`.

        Parameters
        ----------
        x_star
            Inputs, shape (m, *shape), or a pytree of them.
        t
            A number or shape (times,), at least 0; ``inf`` is the end of training.

        Returns
        -------
        Shape (m, *outputs), or (times, m, *outputs).

        Raises
        ------
        ValueError
            If the inputs or times do not fit, or a time is negative or NaN.
        """
        x_star = jax.tree.map(jnp.asarray, x_star)
        offset = self._offset(x_star, self._y.shape[1:], self._y.dtype)
        moves = self._prior.cross(x_star, self._x, self.kind) @ self._vectors
        return self._over(t, lambda one: offset + (moves * self._moved(one)) @ self._projected)

    def covariance(self, x_star: PyTree, t: ArrayLike) -> Float[Array, "*times m m"]:
        """The covariance between predictions at time t over initialisations, for every output.

        The formula is that of :func:`gradient_flow`; arguments and errors those of :meth:`mean`.
        """
        moves, cross = self._maps(x_star)
        start = self._prior.matrix(x_star)

        def one(time: Array) -> Array:
            a = moves * self._moved(time)
            mixed = a @ (0.5 * self._nngp @ a.T - cross.T)
            return start + mixed + mixed.T

        return self._over(t, one)

    def variance(self, x_star: PyTree, t: ArrayLike) -> Float[Array, "*times m"]:
        """The diagonal of :meth:`covariance`, without computing the rest."""
        moves, cross = self._maps(x_star)
        start = self._prior.diagonal(x_star)

        def one(time: Array) -> Array:
            a = moves * self._moved(time)
            return jnp.maximum(start + jnp.sum(a * (a @ self._nngp - 2 * cross), 1), 0)

        return self._over(t, one)

    def train_mean(self, t: ArrayLike) -> Float[Array, "*times n *outputs"]:
        r"""The mean prediction for the training inputs, :math:`(I - e^{-\eta T t}) y`."""

        def one(time: Array) -> Array:
            learned = -jnp.expm1(-self._elapsed(time) * self._values)
            return self._start + (self._vectors * learned) @ self._projected

        return self._over(t, one)

    # ----------------------------------------------------------------- inside

    def _over(self, t: Any, work: Callable[[Array], Array]) -> Array:
        """``work`` at one time, or at each of several."""
        t = t if isinstance(t, jax.Array) else np.asarray(t, float)
        if t.ndim > 1:
            msg = f"t is a number or has shape (times,), got shape {t.shape}"
            raise ValueError(msg)
        if not isinstance(t, jax.core.Tracer) and not np.all(np.asarray(t) >= 0):
            msg = f"times are at least 0, up to infinity; got {t}"
            raise ValueError(msg)
        t = jnp.asarray(t, self._y.dtype)
        return jax.lax.map(work, t) if t.ndim else work(t)

    def _elapsed(self, t: Array) -> Array:
        """Learning rate times t, infinity as the largest number so that 0 · ∞ is 0."""
        return jnp.minimum(self._learning_rate * t, jnp.finfo(self._y.dtype).max)

    def _moved(self, t: Array) -> Array:
        r""":math:`(1 - e^{-\eta\lambda t}) / \lambda` for each eigenvalue, shape (n,).

        It is ηt where λ = 0. An eigenvalue that is rounding error has an eigenvector that the
        kernel with new inputs annihilates up to rounding error; once t is long enough for that
        error to matter the direction is left out.
        """
        elapsed, values = self._elapsed(t), self._values
        rounding = values.shape[0] * jnp.finfo(values.dtype).eps * values[-1]
        safe = jnp.where(values > 0, values, 1)
        moved = jnp.where(values > 0, -jnp.expm1(-elapsed * values) / safe, elapsed)
        lost = (values <= rounding) & (elapsed * rounding >= 1)
        return jnp.where(lost, 0, moved)

    def _maps(self, x_star: PyTree) -> tuple[Array, Array]:
        """T* (or K*) and K*, with columns along the eigenvectors; shape (m, n) each."""
        if self.kind == "nngp":
            moves = cross = self._prior.cross(x_star, self._x)
        else:
            cross, moves = self._prior.both(x_star, self._x)
        return moves @ self._vectors, cross @ self._vectors


def gradient_flow(
    kernel: Kernel,
    x: PyTree,
    y: ArrayLike,
    *,
    learning_rate: float = 1.0,
    kind: Literal["ntk", "nngp"] = "ntk",
    mean: float | Callable[[PyTree], Any] = 0.0,
    scale: float = 1.0,
) -> GradientFlow:
    r"""Infinitely wide networks at every time of their training.

    Parameters follow :math:`\dot\theta = -\eta \nabla L` from their random initial values, with
    :math:`L = \frac12 \sum_i |f(x_i) - y_i|^2`, summed, not averaged, over examples. With K the
    NNGP and T the NTK, mean and covariance over initialisations are

    .. math:: m(t) = A y, \qquad C(t) = K_{**} + A K A^\top - A K_*^\top - K_* A^\top, \qquad
              A(t) = T_* T^{-1} (I - e^{-\eta T t})

    At t = 0 this is the prior, at t = ∞ it is :func:`posterior` with ``kind="ntk"``.

    Parameters
    ----------
    kernel, x, y, mean, scale
        As in :func:`posterior`.
    learning_rate
        :math:`\eta > 0`; only :math:`\eta t` matters. Gradient descent with this rate needs
        :math:`\eta < 2 / \lambda_{\max}(T)`, and t steps of it are close to the flow at time t
        where it is much smaller.
    kind
        ``"ntk"`` trains all layers. ``"nngp"`` trains a readout with entries N(0, 1) alone, so
        that T is K.

    Returns
    -------
    GradientFlow

    Raises
    ------
    ValueError, NotGaussianError
        As in :func:`posterior`, or if the learning rate is not positive.

    Notes
    -----
    Lee et al., Wide neural networks of any depth evolve as linear models under gradient descent,
    2019, equations 14 to 16. One eigendecomposition serves all times; T may be singular, as with
    repeated inputs: what cannot be fitted is left as it was.
    """
    if kind not in ("ntk", "nngp"):
        msg = f"kind is 'ntk' or 'nngp', got {kind!r}"
        raise ValueError(msg)
    known = not isinstance(learning_rate, jax.core.Tracer)
    if jnp.ndim(learning_rate) or (known and not 0 < float(learning_rate) < np.inf):
        msg = f"the learning rate is one positive number, got {learning_rate}"
        raise ValueError(msg)
    x = jax.tree.map(jnp.asarray, x)
    _checks.require_gaussian_output(kernel, x)
    prior = Covariance(kernel, "nngp", check_scale(scale))
    if kind == "ntk":
        nngp, gram = prior.both(x)
    else:
        nngp = gram = prior.matrix(x)
    y = _checks.targets(y, gram.shape[0], gram.dtype)
    rate = jnp.asarray(learning_rate, gram.dtype)
    return GradientFlow(kind, prior, Mean(mean), x, y, nngp, gram, rate)
