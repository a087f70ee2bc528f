"""Class probabilities from regression on one-hot targets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, logsumexp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

_REACH = 10.0
_NODES = 24
_PANELS = 4
_MOST_PANELS = 128


def class_probabilities(
    mean: ArrayLike,
    variance: ArrayLike = 0.0,
    *,
    temperature: float = 0.0,
    scale: float = 1.0,
) -> Float[Array, "m classes"]:
    r"""The probability that each class has the largest score, scores being Gaussian.

    The score of class c is :math:`f_c + \tau z_c` with :math:`f_c \sim N(m_c, a\,v_c)` and
    :math:`z_c \sim N(0, 1)`, all independent. With :math:`s_c^2 = a\,v_c + \tau^2`,

    .. math:: p_c = \int \varphi(u) \prod_{j \ne c}
              \Phi\Big(\frac{m_c - m_j + s_c u}{s_j}\Big)\,du

    This is the multinomial probit link; Gumbel in place of Gaussian z would be the softmax of
    :math:`f/\tau`.

    Parameters
    ----------
    mean
        Means of the latent scores, shape (m, classes).
    variance
        Their variances v, a scalar or shape (m,) or (m, classes).
    temperature
        :math:`\tau \ge 0`; see :func:`fit_link`.
    scale
        :math:`a \ge 0`, multiplies the variances: the scale of the prior, which one-hot targets
        leave open.

    Returns
    -------
    Shape (m, classes); rows sum to 1.

    Raises
    ------
    ValueError
        If shapes do not agree, there are fewer than two classes, or a variance, the temperature
        or the scale is negative or not finite.

    Notes
    -----
    The integral is composite Gauss-Legendre quadrature over |u| < 10, fine enough for rounding
    error where the s_c of a row are within a factor 30 of each other. Girolami and Rogers,
    Variational Bayesian multinomial probit regression with Gaussian process priors, 2006.
    """
    mean, variance = _scores(mean, variance)
    for name, value in (("temperature", temperature), ("scale", scale)):
        if not (math.isfinite(value) and value >= 0):
            msg = f"{name} is at least 0 and finite, got {value}"
            raise ValueError(msg)
    every = jnp.broadcast_to(jnp.arange(mean.shape[1]), mean.shape)
    noise = jnp.asarray(temperature**2, mean.dtype)
    factor = jnp.asarray(scale, mean.dtype)
    logs = _log_probability(mean, variance, noise, factor, every, *_rule(variance))
    return jax.nn.softmax(logs, axis=1)


@dataclass(frozen=True)
class Link:
    """From Gaussian scores to class probabilities, with the two numbers that were fitted.

    Attributes
    ----------
    temperature, scale
        As in :func:`class_probabilities`.
    lapse
        The share of a uniform distribution that is mixed in, so that no probability is below
        ``lapse / classes``.
    """

    temperature: float
    scale: float
    lapse: float = 0.0

    def __call__(self, mean: ArrayLike, variance: ArrayLike = 0.0) -> Float[Array, "m classes"]:
        """:func:`class_probabilities` with this temperature and scale."""
        p = class_probabilities(mean, variance, temperature=self.temperature, scale=self.scale)
        return (1 - self.lapse) * p + self.lapse / p.shape[1]


def fit_link(
    mean: ArrayLike,
    variance: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    lapse: float = 0.0,
    scale_spread: float = math.inf,
) -> Link:
    """The temperature and scale of :func:`class_probabilities` that make the labels most likely.

    Give it predictions of examples that were not trained on; those of
    :meth:`Posterior.leave_one_out` cost no data. Where all variances are 0 the scale stays 1.

    Parameters
    ----------
    mean, variance
        As in :func:`class_probabilities`.
    labels
        Class numbers, shape (m,).
    weights
        How often each example counts, shape (m,); by default once.
    lapse
        The share of a uniform distribution to mix in, in [0, 1). Without it a single outlier may
        have probability zero.
    scale_spread
        Standard deviation of a Gaussian prior of the scale's logarithm around 0: a finite one
        keeps the variances meaningful where all examples are alike in theirs.

    Raises
    ------
    ValueError
        As in :func:`class_probabilities`, or if the labels are not class numbers, the weights
        negative or all zero, or the lapse or spread out of range.
    """
    mean, variance = _scores(mean, variance)
    picked = jnp.asarray(check_labels(labels, *mean.shape))[:, None]
    share = _shares(weights, mean.shape[0])
    spread = float(jnp.max(mean) - jnp.min(mean))
    typical = float(share @ np.mean(np.asarray(variance), 1))
    if not 0 <= lapse < 1 or not scale_spread > 0:
        msg = f"lapse is in [0, 1) and scale_spread positive, got {lapse} and {scale_spread}"
        raise ValueError(msg)
    if spread == 0:
        return Link(0.0, 1.0, lapse)
    unit = spread**2 / typical if typical else 0.0
    count = mean.shape[0] if weights is None else float(np.sum(np.asarray(weights)))
    # The prior's weight beside the mean of the log-probabilities, and where it is centred.
    pull = (0.5 / (count * scale_spread**2), -math.log(unit)) if unit else (0.0, 0.0)
    units = jnp.asarray([spread**2, unit, lapse, *pull], mean.dtype)
    given = (mean, variance, picked, jnp.asarray(share, mean.dtype), units, *_rule(variance))

    def both(logs: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _loss(jnp.asarray(logs, mean.dtype), *given)
        return float(value), np.asarray(gradient, float)

    from scipy.optimize import minimize  # slow to import

    bounds = [(-9.0, 3.0), (-18.0, 6.0)]
    found = minimize(both, np.array([-2.0, -4.0]), jac=True, bounds=bounds, method="L-BFGS-B")
    scale = unit * math.exp(found.x[1]) if unit else 1.0
    return Link(spread * math.exp(found.x[0]), scale, lapse)


@jax.jit
@jax.value_and_grad
def _loss(
    logs: Array, mean: Array, variance: Array, picked: Array, share: Array, units: Array,
    u: Array, rule: Array,
) -> Array:  # fmt: skip
    """The mean negative log-probability of the labels, in log τ² / 2 and log a, and the prior's."""
    noise, factor = units[:2] * jnp.exp(jnp.stack([2 * logs[0], logs[1]]))
    found = _log_probability(mean, variance, noise, factor, picked, u, rule)[:, 0]
    lapse = units[2]
    mixed = jnp.logaddexp(jnp.log1p(-lapse) + found, jnp.log(lapse / mean.shape[1]))
    found = jnp.where(lapse > 0, mixed, found)
    return units[3] * (logs[1] - units[4]) ** 2 - share @ found


def _shares(weights: Any, count: int) -> np.ndarray:
    """Weights that sum to one."""
    given = np.ones(count) if weights is None else np.asarray(weights, float)
    if given.shape != (count,) or not np.all(np.isfinite(given) & (given >= 0)) or not given.any():
        msg = f"weights must be {count} numbers, at least 0 and not all 0"
        raise ValueError(msg)
    return given / given.sum()


def check_labels(labels: Any, count: int, classes: int) -> np.ndarray:
    """Labels as integers in [0, classes), shape (count,).

    Raises
    ------
    ValueError
        If they are anything else.
    """
    array = np.asarray(labels)
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        msg = f"labels must be {count} integers, got {array.dtype} of shape {array.shape}"
        raise ValueError(msg)
    if count == 0:
        msg = "there are no examples to score"
        raise ValueError(msg)
    if array.min() < 0 or array.max() >= classes:
        msg = f"labels must be in 0 … {classes - 1}, got {array.min()} … {array.max()}"
        raise ValueError(msg)
    return array


def _rule(variance: Array) -> tuple[Array, Array]:
    """Nodes of a composite Gauss-Legendre rule and the logarithms of φ times their weights."""
    std = np.sqrt(np.asarray(variance, float))
    ratio = np.max(np.max(std, 1) / np.maximum(np.min(std, 1), 1e-3 * np.max(std, 1) + 1e-300))
    panels = min(_MOST_PANELS, _PANELS * 2 ** math.ceil(math.log2(max(float(ratio), 1.0))))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    half = _REACH / panels
    u = ((half * (2 * np.arange(panels) + 1) - _REACH)[:, None] + half * nodes).ravel()
    logs = np.log(np.tile(half * weights, panels)) - 0.5 * u**2 - 0.5 * math.log(2 * math.pi)
    return jnp.asarray(u, variance.dtype), jnp.asarray(logs, variance.dtype)


@jax.jit
def _log_probability(
    mean: Array, variance: Array, noise: Any, factor: Any, picked: Array, u: Array, logs: Array
) -> Array:
    """Log-probability of the classes ``picked``, shape (m, k), of each row."""
    total = factor * variance + noise
    spread = jnp.max(jnp.abs(mean)) ** 2 + jnp.max(total)
    least = jnp.finfo(mean.dtype).eps ** 2 * jnp.where(spread > 0, spread, 1)
    std = jnp.sqrt(jnp.maximum(total, least))

    def row(given: Any) -> Array:
        m, s, classes = given
        z = (m[classes][:, None, None] - m[:, None] + s[classes][:, None, None] * u) / s[:, None]
        other = classes[:, None] != jnp.arange(m.shape[0])
        below = jnp.sum(jnp.where(other[..., None], log_ndtr(z), 0), 1)
        return logsumexp(below + logs, axis=1)

    return jax.lax.map(row, (mean, std, picked))


def _scores(mean: Any, variance: Any) -> tuple[Array, Array]:
    mean = jnp.asarray(mean)
    if mean.ndim != 2 or mean.shape[1] < 2:
        msg = f"mean must have shape (m, classes) with two classes or more, got {mean.shape}"
        raise ValueError(msg)
    if not jnp.issubdtype(mean.dtype, jnp.floating):
        mean = mean.astype(float)
    variance = jnp.asarray(variance, mean.dtype)
    if variance.ndim == 1:
        variance = variance[:, None]
    if variance.ndim > 2 or (variance.ndim and variance.shape[0] != mean.shape[0]):
        msg = f"variance of shape {variance.shape} does not match means of shape {mean.shape}"
        raise ValueError(msg)
    if variance.ndim and variance.shape[1] not in (1, mean.shape[1]):
        msg = f"variance of shape {variance.shape} does not match means of shape {mean.shape}"
        raise ValueError(msg)
    for name, values in (("mean", mean), ("variance", variance)):
        if not bool(jnp.all(jnp.isfinite(values))):
            msg = f"{name} contains NaN or infinite values"
            raise ValueError(msg)
    if bool(jnp.any(variance < 0)):
        msg = "a variance is negative"
        raise ValueError(msg)
    return mean, jnp.broadcast_to(variance, mean.shape)
