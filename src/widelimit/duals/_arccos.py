"""Inverse sine and cosine from one short polynomial.

arcsin(r) / r is a function of r^2 whose nearest singularity is r^2 = 1. On [0, 1/4] a polynomial
of degree 6 (float32) or 13 (float64) is exact to rounding, and arcsin(z) = pi/2 - 2 arcsin(r) with
r^2 = (1 - z) / 2 brings the rest there. All of it is additions and multiplications on whole
vectors, a fraction of an arctan2, and keeps its digits near 0 and, where 1 - z is known, near 1.
"""

from functools import lru_cache
from math import pi

import jax.numpy as jnp
import numpy as np


@lru_cache
def _powers(degree):
    """Powers of y = 8 r^2 - 1, highest first, of arcsin(r) / r: its Chebyshev series, cut off."""
    count = 48
    angle = (np.arange(count, dtype=np.longdouble) + 0.5) * (np.longdouble(pi) / count)
    r = np.cos(angle / 2) / 2
    orders = np.arange(degree + 1)[:, None]
    series = (2 * np.arcsin(r) / r * np.cos(orders * angle)).mean(axis=1)
    series[0] /= 2
    powers = np.polynomial.chebyshev.cheb2poly(series.astype(np.float64))
    return tuple(powers[::-1].tolist())


def _ratio(squared):
    """Return arcsin(r) / r from r^2 in [0, 1/4], by Horner's rule."""
    y = 8 * squared - 1
    total = jnp.zeros_like(y)
    for a in _powers(13 if y.dtype == jnp.float64 else 6):
        total = total * y + a
    return total


def arccos_of_one_minus(g):
    """Return arccos(1 - g) for 0 <= g <= 1, to a relative error of a few roundings."""
    near = g <= 0.5
    z = 1 - g
    r = jnp.where(near, jnp.sqrt(g / 2), z)
    angle = r * _ratio(jnp.where(near, g / 2, z * z))
    return jnp.where(near, 2 * angle, pi / 2 - angle)


def arcsin(z):
    """Return arcsin(z) for |z| < 1, to a relative error of a few roundings."""
    # Not abs and sign: their derivatives vanish at zero, where that of arcsin is one.
    positive = z >= 0
    size = jnp.where(positive, z, -z)
    small = size <= 0.5
    rest = jnp.where(small, 0.25, (1 - size) / 2)
    r = jnp.where(small, size, jnp.sqrt(rest))
    angle = r * _ratio(jnp.where(small, z * z, rest))
    angle = jnp.where(small, angle, pi / 2 - 2 * angle)
    return jnp.where(positive, angle, -angle)
