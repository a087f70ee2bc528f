"""The mean of the softmax over Gaussian scores."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import ndtri

POINTS = 4096
_REACH = 10.0
_NODES = 24
_PANELS = 8
_MOST_PANELS = 256


def expected_softmax(
    mean: Float[Array, "m classes"],
    covariance: Float[Array, "m classes classes"],
    *,
    points: int = POINTS,
) -> Float[Array, "m classes"]:
    r""":math:`E[\mathrm{softmax}(f)]` of :math:`f \sim N(m, C)`, one m and C for each row.

    Two classes: composite Gauss-Legendre quadrature of the difference of their scores, to
    rounding error. More: a scrambled Sobol' sequence with a fixed seed, along the principal axes
    of the differences, most important first.

    Raises
    ------
    ValueError
        If the number of points is not a power of two.
    """
    if points < 1 or points & (points - 1):
        msg = f"the number of points is a power of two, got {points}"
        raise ValueError(msg)
    classes = mean.shape[1]
    # The softmax ignores what all scores have in common: classes - 1 dimensions are left.
    apart = jnp.asarray(np.eye(classes) - 1 / classes, mean.dtype)
    values, vectors = jnp.linalg.eigh(jnp.einsum("ij,mjk,kl->mil", apart, covariance, apart))
    roots = (vectors * jnp.sqrt(jnp.maximum(values, 0))[:, None])[:, :, :0:-1]
    if classes == 2:
        nodes, weights = _line(float(jnp.max(values)))
    else:
        nodes, weights = _plane(classes - 1, points)
    nodes, weights = jnp.asarray(nodes, mean.dtype), jnp.asarray(weights, mean.dtype)
    return _average(mean, roots, nodes, weights)


@jax.jit
def _average(mean: Array, roots: Array, nodes: Array, weights: Array) -> Array:
    def row(given: tuple[Array, Array]) -> Array:
        m, root = given
        p = weights @ jax.nn.softmax(m + nodes @ root.T, axis=1)
        return p / jnp.sum(p)

    return jax.lax.map(row, (mean, roots))


def _line(largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in one dimension, dense enough for the steepest logistic function among the rows."""
    steepest = 2 ** np.ceil(np.log2(max(largest**0.5, 1.0)))
    panels = int(min(_MOST_PANELS, _PANELS * steepest))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    half = _REACH / panels
    u = ((half * (2 * np.arange(panels) + 1) - _REACH)[:, None] + half * nodes).ravel()
    density = np.exp(-0.5 * u**2) / np.sqrt(2 * np.pi)
    return u[:, None], np.tile(half * weights, panels) * density


def _plane(dimension: int, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Equally weighted Gaussian nodes in several dimensions."""
    from scipy.stats import qmc  # slow to import

    sequence = qmc.Sobol(dimension, seed=0).random(points)
    # The ends of the interval would be infinite.
    inside = np.clip(sequence, 2**-32, 1 - 2**-32)
    return ndtri(inside), np.full(points, 1 / points)
