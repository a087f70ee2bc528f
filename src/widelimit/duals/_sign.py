"""E[u^m sign(u) v^n sign(v)] and E[u^m sign(u) v^n], the moments behind every kink at zero.

Both follow from Gaussian integration by parts,
E[u f(u) g(v)] = q1 E[f'(u) g(v)] + c E[f(u) g'(v)], sign' = 2 delta, started at
E[sign(u) sign(v)] = 1 - 2 theta / pi. The arc-cosine kernels of Cho and Saul (2009) are the cases
m = n.
"""

from functools import partial
from math import pi, sqrt

import jax
import jax.numpy as jnp

from ._atoms import absolute_moment, inverse_root
from ._geometry import floor_of, geometry

_DENSITY = sqrt(2 / pi)  # E[2 delta(u)] sqrt(q)


def _conditional(n, s, sine):
    """E[v^n | u = 0] for even n, or E[v^n sign v | u = 0] for odd n."""
    return absolute_moment(n) * (s * sine) ** n


def _both(m, n, q1, q2, c, geo):
    if (m + n) % 2:
        return jnp.zeros_like(geo.rho)
    if m == 0 and n == 0:
        return 1 - 2 * geo.theta / pi
    if m == 0:
        return _both(n, m, q2, q1, c, geo._replace(s1=geo.s2, s2=geo.s1))
    total = jnp.zeros_like(geo.rho)
    if m >= 2:
        total = total + (m - 1) * q1 * _both(m - 2, n, q1, q2, c, geo)
    if m == 1 and n % 2 == 1:
        total = total + _DENSITY * geo.s1 * _conditional(n, geo.s2, geo.sine)
    if n >= 1:
        total = total + n * c * _both(m - 1, n - 1, q1, q2, c, geo)
    if n == 0 and (m - 1) % 2 == 1:
        # c / sqrt(q2) = rho s1, finite where q2 = 0
        total = total + _DENSITY * geo.rho * geo.s1 * _conditional(m - 1, geo.s1, geo.sine)
    return total


def _one(m, n, q1, q2, c, geo):
    if (m + n) % 2 == 0:
        return jnp.zeros_like(geo.rho)
    if n == 0:
        return absolute_moment(m) * geo.s1**m * jnp.ones_like(geo.rho)
    total = jnp.zeros_like(geo.rho)
    if n >= 2:
        total = total + (n - 1) * q2 * _one(m, n - 2, q1, q2, c, geo)
    if m >= 1:
        total = total + m * c * _one(m - 1, n - 1, q1, q2, c, geo)
    if m == 0 and (n - 1) % 2 == 0:
        total = total + _DENSITY * geo.rho * geo.s2 * _conditional(n - 1, geo.s2, geo.sine)
    return total


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def sign_moment(m, n, signs, q1, q2, c, d):
    """E[u^m sign(u) v^n sign(v)] for ``signs=2``, E[u^m sign(u) v^n] for ``signs=1``.

    ``d = E[(u - v)^2]`` keeps the angle exact near duplicates and carries no gradient. Where the
    derivative is infinite (two signs at correlation one) it is taken as zero.
    """
    geo = geometry(q1, q2, c, d)
    return (_both if signs == 2 else _one)(m, n, q1, q2, c, geo)


@sign_moment.defjvp
def _sign_moment_jvp(m, n, signs, primals, tangents):
    q1, q2, c, d = primals
    dq1, dq2, dc, _ = tangents
    value = sign_moment(m, n, signs, q1, q2, c, d)
    slope = _slope(m, n, signs, q1, q2, c, d)
    tiny = floor_of(jnp.result_type(value))
    r1 = dq1 / jnp.where(q1 > tiny, q1, 1) * (q1 > tiny)
    r2 = dq2 / jnp.where(q2 > tiny, q2, 1) * (q2 > tiny)
    # Euler: f is homogeneous, so q1 and q2 enter through scale and through the correlation.
    return value, slope * (dc - c * (r1 + r2) / 2) + value * (m * r1 + n * r2) / 2


def _slope(m, n, signs, q1, q2, c, d):
    """d/dc of the moment, E[f'(u) g'(v)] with sign' = 2 delta."""
    geo = geometry(q1, q2, c, d)
    if (m + n + signs) % 2:
        return jnp.zeros_like(geo.rho)
    total = jnp.zeros_like(geo.rho)
    if m and n:
        total = total + m * n * sign_moment(m - 1, n - 1, signs, q1, q2, c, d)
    if m == 0 and n:
        total = total + _DENSITY * inverse_root(q1) * n * _conditional(n - 1, geo.s2, geo.sine)
    if n == 0 and m and signs == 2:
        total = total + _DENSITY * inverse_root(q2) * m * _conditional(m - 1, geo.s1, geo.sine)
    if m == 0 and n == 0 and signs == 2:
        height = geo.s1 * geo.s2 * geo.sine
        least = jnp.finfo(height.dtype).eps * 4 * geo.s1 * geo.s2
        inside = height > least
        total = total + jnp.where(inside, 2 / pi / jnp.where(inside, height, 1), 0)
    return total
