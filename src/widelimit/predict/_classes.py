"""Class probabilities from regression on one-hot targets."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, logsumexp
from jaxtyping import Array, Float, Int
from scipy.optimize import minimize_scalar

_REACH = 10.0
_NODES = 24
_PANELS = 4
_MOST_PANELS = 128


def class_probabilities(
    mean: Float[Array, "m classes"], variance: Any = 0.0, *, temperature: float = 0.0
) -> Float[Array, "m classes"]:
    r"""The probability that each class has the largest score, scores being Gaussian.

    The score of class c is :math:`f_c + \tau z_c` with :math:`f_c \sim N(m_c, v_c)` and
    :math:`z_c \sim N(0, 1)`, all independent. With :math:`s_c^2 = v_c + \tau^2`,

    .. math:: p_c = \int \varphi(u) \prod_{j \ne c}
              \Phi\Big(\frac{m_c - m_j + s_c u}{s_j}\Big)\,du

    This is the multinomial probit link; Gumbel in place of Gaussian z would be the softmax of
    :math:`f/\tau`.

    Parameters
    ----------
    mean
        Means of the latent scores, shape (m, classes).
    variance
        Their variances, a scalar or shape (m,) or (m, classes).
    temperature
        :math:`\tau \ge 0`, see :func:`fit_temperature`.

    Returns
    -------
    Shape (m, classes); rows sum to 1.

    Raises
    ------
    ValueError
        If shapes do not agree, there are fewer than two classes, or a variance or the temperature
        is negative or not finite.

    Notes
    -----
    The integral is composite Gauss-Legendre quadrature over |u| < 10, fine enough for rounding
    error where the s_c of a row are within a factor 30 of each other. Girolami and Rogers,
    Variational Bayesian multinomial probit regression with Gaussian process priors, 2006.
    """
    mean, variance = _scores(mean, variance)
    if not (math.isfinite(temperature) and temperature >= 0):
        msg = f"temperature is at least 0 and finite, got {temperature}"
        raise ValueError(msg)
    every = jnp.broadcast_to(jnp.arange(mean.shape[1]), mean.shape)
    return jax.nn.softmax(_log_probability(mean, variance, temperature, every), axis=1)


def fit_temperature(
    mean: Float[Array, "m classes"], variance: Any, labels: Int[Array, " m"]
) -> float:
    """The temperature of :func:`class_probabilities` under which the labels are most likely.

    Give it predictions of examples that were not trained on; those of
    :meth:`Posterior.leave_one_out` cost no data.

    Parameters
    ----------
    mean, variance
        As in :func:`class_probabilities`.
    labels
        Class numbers, shape (m,).

    Raises
    ------
    ValueError
        As in :func:`class_probabilities`, or if the labels are not class numbers.
    """
    mean, variance = _scores(mean, variance)
    labels = check_labels(labels, *mean.shape)
    scale = float(jnp.max(mean) - jnp.min(mean)) + float(jnp.sqrt(jnp.max(variance)))
    if scale == 0:
        return 0.0

    picked = jnp.asarray(labels)[:, None]

    def loss(log_temperature: float) -> float:
        temperature = scale * math.exp(log_temperature)
        return -float(jnp.mean(_log_probability(mean, variance, temperature, picked)))

    best = minimize_scalar(loss, bounds=(-9.0, 3.0), method="bounded", options={"xatol": 1e-3})
    return scale * math.exp(float(best.x))


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


def _log_probability(mean: Array, variance: Array, temperature: float, picked: Array) -> Array:
    """Log-probability of the classes ``picked``, shape (m, k), for each row."""
    spread = jnp.max(jnp.abs(mean)) + jnp.sqrt(jnp.max(variance)) + temperature
    least = jnp.finfo(mean.dtype).eps * jnp.where(spread > 0, spread, 1)
    std = jnp.maximum(jnp.sqrt(variance + temperature**2), least)
    ratio = float(jnp.max(jnp.max(std, 1) / jnp.min(std, 1)))
    u, weights = _rule(int(min(_MOST_PANELS, _PANELS * 2 ** math.ceil(math.log2(ratio)))))
    log_weights = np.log(weights) - 0.5 * u**2 - 0.5 * math.log(2 * math.pi)
    u, log_weights = jnp.asarray(u, mean.dtype), jnp.asarray(log_weights, mean.dtype)
    return _integrate(mean, std, picked, u, log_weights)


def _rule(panels: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a composite Gauss-Legendre rule on [-reach, reach]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    half = _REACH / panels
    centres = half * (2 * np.arange(panels) + 1) - _REACH
    return (centres[:, None] + half * nodes).ravel(), np.tile(half * weights, panels)


@jax.jit
def _integrate(mean: Array, std: Array, picked: Array, u: Array, log_weights: Array) -> Array:
    def row(given: Any) -> Array:
        m, s, classes = given
        z = (m[classes][:, None, None] - m[:, None] + s[classes][:, None, None] * u) / s[:, None]
        other = classes[:, None] != jnp.arange(m.shape[0])
        below = jnp.sum(jnp.where(other[..., None], log_ndtr(z), 0), 1)
        return logsumexp(below + log_weights, axis=1)

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
