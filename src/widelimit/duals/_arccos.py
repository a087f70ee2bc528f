"""Inverse sine and cosine from one short polynomial each.

arccos(1 - g) / sqrt(2 g) is a function of g whose nearest singularity is g = 2, and on [0, 1] a
polynomial of degree 8 (float32) or 17 (float64) is exact to rounding. arcsin(r) / r is one of r^2
with degrees 6 and 13 on [0, 1/4], and arcsin(z) = pi/2 - 2 arcsin(r) with r^2 = (1 - z) / 2 brings
the rest there. All of it is additions and multiplications on whole vectors, a fraction of an
arctan2; the first keeps its digits near angle 0, the second near z = 0.
"""

from functools import lru_cache
from math import pi

import jax.numpy as jnp
import numpy as np


def _arccos_ratio(y):
    """arccos(1 - g) / sqrt(2 g) with y = 2 g - 1."""
    root = np.sqrt((y + 1) / 4)
    return np.arcsin(root) / root


def _arcsin_ratio(y):
    """arcsin(r) / r with y = 8 r^2 - 1."""
    root = np.sqrt((y + 1) / 8)
    return np.arcsin(root) / root


@lru_cache
def _powers(function, degree):
    """Powers of y in [-1, 1], highest first, of a function's Chebyshev series, cut off."""
    count = 64
    # All digits of pi: else the points are not where the series is orthogonal.
    angle = (np.arange(count) + np.longdouble(0.5)) * (4 * np.arctan(np.longdouble(1)) / count)
    orders = np.arange(degree + 1)[:, None]
    series = (2 * function(np.cos(angle)) * np.cos(orders * angle)).mean(axis=1)
    series[0] /= 2
    powers = np.polynomial.chebyshev.cheb2poly(series.astype(np.float64))
    return tuple(powers[::-1].tolist())


def _horner(powers, y):
    total = jnp.zeros_like(y)
    for a in powers:
        total = total * y + a
    return total


def arccos_of_one_minus(g):
    """Return arccos(1 - g) for 0 <= g <= 1, to a relative error of two roundings."""
    powers = _powers(_arccos_ratio, 17 if g.dtype == jnp.float64 else 8)
    return jnp.sqrt(2 * g) * _horner(powers, 2 * g - 1)


def arcsin(z):
    """Return arcsin(z) for |z| < 1, to a relative error of a few roundings."""
    # Not abs and sign: their derivatives vanish at zero, where that of arcsin is one.
    positive = z >= 0
    size = jnp.where(positive, z, -z)
    small = size <= 0.5
    rest = jnp.where(small, 0.25, (1 - size) / 2)
    r = jnp.where(small, size, jnp.sqrt(rest))
    powers = _powers(_arcsin_ratio, 13 if z.dtype == jnp.float64 else 6)
    angle = r * _horner(powers, 8 * jnp.where(small, z * z, rest) - 1)
    angle = jnp.where(small, angle, pi / 2 - 2 * angle)
    return jnp.where(positive, angle, -angle)
