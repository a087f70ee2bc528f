"""Networks during training: their distribution at any time, from the prior to the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from widelimit.dynamics._eigen import Eigen
from widelimit.dynamics._method import decay_rate, read_method
from widelimit.dynamics._stopping import BestTime, best_time
from widelimit.dynamics._times import checked, over
from widelimit.kernel import Kernel
from widelimit.predict import _checks
from widelimit.predict._prior import Covariance, Mean, check_scale


class GradientFlow:
    """The distribution of infinitely wide networks during training; see :func:`gradient_flow`.

    Times t are numbers from 0 to infinity, or arrays of shape (times,), which add a first axis to
    what is returned; numbers of steps unless the method is ``"flow"``.

    Attributes
    ----------
    kind
        ``"ntk"`` or ``"nngp"``.
    rates
        The eigenvalues of the Gram matrix, with weight decay added, times the learning rate,
        shape (n,), ascending. In gradient flow without decay the residual along eigenvector i
        decays as exp(-rates[i] t).
    """

    kind: Literal["ntk", "nngp"]
    rates: Float[Array, " n"]

    def __init__(
        self, kind: Any, prior: Covariance, mean: Mean, x: PyTree, y: Array, nngp: Array,
        eigen: Eigen,
    ) -> None:  # fmt: skip
        self.kind = kind
        self._prior = prior
        self._offset = mean
        self._x = x
        self._start = mean(x, y.shape[1:], y.dtype)
        self._y = y
        self._eigen, self._vectors = eigen, eigen.vectors
        self.rates = eigen.rates
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
        return self._over(t, self._mean(x_star))

    def covariance(self, x_star: PyTree, t: ArrayLike) -> Float[Array, "*times m m"]:
        """The covariance between predictions at time t over initialisations, for every output.

        The formula is that of :func:`gradient_flow`; arguments and errors those of :meth:`mean`.
        """
        moves, cross = self._maps(x_star)
        start = self._prior.matrix(x_star)

        def one(time: Array) -> Array:
            a = moves * self._eigen.moved(time)
            mixed = a @ (0.5 * self._nngp @ a.T - cross.T)
            return start + mixed + mixed.T

        return self._over(t, one)

    def variance(self, x_star: PyTree, t: ArrayLike) -> Float[Array, "*times m"]:
        """The diagonal of :meth:`covariance`, without computing the rest."""
        return self._over(t, self._variance(x_star))

    def train_mean(self, t: ArrayLike) -> Float[Array, "*times n *outputs"]:
        r"""The mean prediction for the training inputs, :math:`(I - e^{-\eta T t}) y`."""

        def one(time: Array) -> Array:
            learned = self._eigen.values * self._eigen.moved(time)
            return self._start + (self._vectors * learned) @ self._projected

        return self._over(t, one)

    def best_time(
        self, x_star: PyTree, y_star: ArrayLike, *, of: Literal["mean", "network"] = "mean",
        most: float | None = None,
    ) -> BestTime:  # fmt: skip
        r"""When to stop: the time at which ½ Σ (f(x) - y)² of other examples is least.

        Parameters
        ----------
        x_star, y_star
            The other examples, as in :func:`gradient_flow`.
        of
            ``"mean"`` is the error of the mean over initialisations, ``"network"`` the expected
            error of one network, which has the variance added.
        most
            The latest time to look at; the end of training unless given.

        Raises
        ------
        ValueError
            If shapes do not fit, or an option is not understood.
        """
        if of not in ("mean", "network"):
            msg = f"of is 'mean' or 'network', got {of!r}"
            raise ValueError(msg)
        x_star = jax.tree.map(jnp.asarray, x_star)
        count = jax.tree.leaves(x_star)[0].shape[0]
        y_star = _checks.targets(y_star, count, self._y.dtype)
        if y_star.shape[1:] != self._y.shape[1:]:
            msg = f"y_star has shape {y_star.shape}, training targets {self._y.shape}"
            raise ValueError(msg)
        outputs = self._y[0].size
        mean, variance = self._mean(x_star), self._variance(x_star)

        def loss(time: Array) -> Array:
            spread = outputs * jnp.sum(variance(time)) if of == "network" else 0
            return (jnp.sum((mean(time) - y_star) ** 2) + spread) / 2

        losses = jax.jit(lambda times: self._over(times, loss))
        return best_time(losses, self._eigen.method, self.rates, most)

    # ----------------------------------------------------------------- inside

    def _mean(self, x_star: PyTree) -> Callable[[Array], Array]:
        """The mean at given inputs as a function of one time."""
        x_star = jax.tree.map(jnp.asarray, x_star)
        offset = self._offset(x_star, self._y.shape[1:], self._y.dtype)
        moves = self._prior.cross(x_star, self._x, self.kind) @ self._vectors
        return lambda time: offset + (moves * self._eigen.moved(time)) @ self._projected

    def _variance(self, x_star: PyTree) -> Callable[[Array], Array]:
        """The variance at given inputs as a function of one time."""
        moves, cross = self._maps(x_star)
        start = self._prior.diagonal(x_star)

        def one(time: Array) -> Array:
            a = moves * self._eigen.moved(time)
            return jnp.maximum(start + jnp.sum(a * (a @ self._nngp - 2 * cross), 1), 0)

        return one

    def _over(self, t: Any, work: Callable[[Array], Array]) -> Array:
        """``work`` at one time, or at each of several."""
        return over(checked(t, self._y.dtype, self._eigen.method), work)

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
    method: Literal["flow", "descent", "momentum", "nesterov"] = "flow",
    momentum: float | None = None,
    weight_decay: float = 0.0,
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

    At t = 0 this is the prior, at t = ∞ it is :func:`posterior` with ``kind="ntk"``. The other
    methods take t steps of gradient descent, with :math:`(I - \eta T)^t` for the exponential, or
    with momentum.

    Parameters
    ----------
    kernel, x, y, mean, scale
        As in :func:`posterior`.
    learning_rate
        :math:`\eta > 0`; in gradient flow only :math:`\eta t` matters.
    method, momentum
        ``"descent"``, ``"momentum"`` (heavy ball) or ``"nesterov"`` take steps as ``optax.sgd``
        does with this learning rate, the last two with ``momentum`` β in [0, 1). They are close to
        the flow at time t, or t / (1 - β), where the learning rate is well below its limit.
    weight_decay
        :math:`\delta`: :math:`\frac\delta2 |\theta - \theta_0|^2` is added to the loss, decay
        towards the initial parameters. Then :math:`A(\infty) = T_* (T + \delta)^{-1}`. (Decay
        towards zero needs the parameters: :func:`widelimit.dynamics.linearized`.)
    kind
        ``"ntk"`` trains all layers. ``"nngp"`` trains a readout with entries N(0, 1) alone, so
        that T is K.

    Returns
    -------
    GradientFlow

    Raises
    ------
    ValueError, NotGaussianError
        As in :func:`posterior`, or if the learning rate is not positive or so large that the
        method diverges.

    Notes
    -----
    Lee et al., Wide neural networks of any depth evolve as linear models under gradient descent,
    2019, equations 14 to 16. One eigendecomposition serves all times; T may be singular, as with
    repeated inputs: what cannot be fitted is left as it was.
    """
    if kind not in ("ntk", "nngp"):
        msg = f"kind is 'ntk' or 'nngp', got {kind!r}"
        raise ValueError(msg)
    chosen, decay = read_method(method, learning_rate, momentum), decay_rate(weight_decay)
    x = jax.tree.map(jnp.asarray, x)
    _checks.require_gaussian_output(kernel, x)
    prior = Covariance(kernel, "nngp", check_scale(scale))
    if kind == "ntk":
        nngp, gram = prior.both(x)
    else:
        nngp = gram = prior.matrix(x)
    y = _checks.targets(y, gram.shape[0], gram.dtype)
    eigen = Eigen(gram, chosen, decay)
    return GradientFlow(kind, prior, Mean(mean), x, y, nngp, eigen)
