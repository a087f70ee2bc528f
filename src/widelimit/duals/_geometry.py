"""The angle between two Gaussians, without losing digits near correlation one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import optimization_barrier, stop_gradient


class Geometry(NamedTuple):
    """Lengths and angle of two jointly Gaussian scalars.

    ``s1, s2`` are standard deviations, ``rho`` the correlation in [-1, 1],
    ``gap = s1 s2 - c`` and ``sum = s1 s2 + c`` (both at least zero), ``theta = arccos rho``
    and ``sine = sin(theta)``.
    """

    s1: object
    s2: object
    rho: object
    gap: object
    sum: object
    theta: object
    sine: object


def floor_of(dtype):
    """Return the variance below which a variance is taken as zero."""
    return float(jnp.finfo(dtype).tiny) ** 0.5


def root(q):
    """Square root with a zero, not infinite, derivative at zero."""
    tiny = floor_of(jnp.result_type(q))
    return jnp.where(q > tiny, jnp.sqrt(jnp.where(q > tiny, q, 1)), 0)


def default_gap(q1, q2, c):
    """E[(u - v)^2] from the second moments, whose digits agree for near-duplicates.

    What may be their rounding is zero: of a variable with itself it would be an angle sqrt(eps).
    """
    d = (q1 - c) + (q2 - c)
    return jnp.where(d > 2 * jnp.finfo(d.dtype).eps * (q1 + q2), d, 0)


@jax.jit
def geometry(q1, q2, c, d):
    """Return the :class:`Geometry` of N(0, [[q1, c], [c, q2]]) with E[(u - v)^2] = d.

    ``d`` gives its value only: derivatives are those of ``d = q1 + q2 - 2 c``.
    """
    exact = q1 + q2 - 2 * c
    d = stop_gradient(d) + (exact - stop_gradient(exact))
    q1, q2 = jnp.maximum(q1, 0), jnp.maximum(q2, 0)
    s1, s2 = root(q1), root(q2)
    product = s1 * s2
    tiny = floor_of(jnp.result_type(product))
    some = product > tiny
    c = jnp.where(some, jnp.clip(c, -product, product), 0)
    total = jnp.where(s1 + s2 > 0, s1 + s2, 1)
    unlike = ((q1 - q2) / total) ** 2
    gap = jnp.clip((d - unlike) / 2, 0, 2 * product)
    # For negative c, or unlike variances, the plain difference loses fewer digits.
    gap = jnp.where((c > 0) & (unlike < product), gap, product - c)
    both = jnp.maximum(product + c, 0)
    safe = jnp.where(some, product, 1)
    rho = jnp.where(some, jnp.clip(c / safe, -1, 1), 0)
    # Computed once: where q1 - c is rounding, the compiler's two ways to compute it would give an
    # angle and a sine that do not belong together.
    height = optimization_barrier(root(gap * both))
    theta = jnp.where(some, jnp.arctan2(jnp.where(some, height, 1), c), jnp.pi / 2)
    sine = jnp.where(some, jnp.clip(height / safe, 0, 1), 1)
    return Geometry(s1, s2, rho, gap, both, theta.astype(rho.dtype), sine)
