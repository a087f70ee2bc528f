"""Certificates: bounds on the error of a computed pair moment."""

import jax.numpy as jnp

from ._atoms import SignPoly
from ._closed import form_pair
from ._generic import (
    affine_part,
    both_series,
    has_plane,
    slow_entries,
    tail_bound,
)
from ._geometry import geometry
from ._moments import second_value
from ._pair import Pair, prepare
from ._plane import plane

_LINE_ORDERS = (16, 12)
_PLANE_ORDERS = (12, 10)


def _form_size(form, q):
    """Sum of the atoms' root mean squares, times the condition number of their exponentials."""
    total = jnp.zeros_like(q)
    for atom in form:
        square = form_pair((atom,), (atom,), q, q, q, jnp.zeros_like(q))
        rate = getattr(atom, "frequency", 0.0) ** 2 + getattr(atom, "alpha", 0.0) ** 2
        total = total + (1 + rate * q) * jnp.sqrt(jnp.maximum(square, 0))
    return total


def _closed_bound(form1, form2, q1, q2, c, d):
    """Rounding only; for jumps also the error of the angle, up to sqrt(eps) at correlation one."""
    eps = float(jnp.finfo(c.dtype).eps)
    bound = 512 * eps * _form_size(form1, q1) * _form_size(form2, q2) + 0 * c
    jumps = [
        sum(abs(a.coefficients[0]) for a in form if isinstance(a, SignPoly))
        for form in (form1, form2)
    ]
    if all(jumps):
        geo = geometry(q1, q2, c, d)
        angle = 4 * eps / jnp.maximum(geo.sine, eps**0.5)
        bound = bound + jumps[0] * jumps[1] * angle
    return bound


def _generic_bound(phi, psi, q1, q2, c, d, params1, params2):
    """Tail of the series, or disagreement of two plane rules, plus that of two line rules."""
    eps = float(jnp.finfo(c.dtype).eps)
    geo = geometry(q1, q2, c, d)
    fine, coarse = (
        both_series(phi, psi, q1, q2, params1, params2, order) for order in _LINE_ORDERS
    )
    one, two = fine
    apart = []
    for a, b in zip(fine, coarse):
        both = (a.coefficients != 0) & (b.coefficients != 0)
        gap = jnp.where(both, a.coefficients - b.coefficients, 0)
        apart.append(jnp.sqrt(jnp.sum(gap**2, 0)))
    size1, size2 = jnp.sqrt(one.second), jnp.sqrt(two.second)
    rounding = 256 * eps * size1 * size2
    shape = jnp.broadcast_shapes(geo.rho.shape, one.second.shape, two.second.shape)
    rho = jnp.broadcast_to(geo.rho, shape)
    bound = tail_bound(one, two, rho) + apart[0] * size2 + size1 * apart[1] + rounding
    if not has_plane(phi, psi):
        return bound
    slow = slow_entries(one, two, rho)
    start = jnp.zeros(shape, c.dtype)
    rules = [
        plane(phi, psi, slow, start, geo, params1, params2, order=order) for order in _PLANE_ORDERS
    ]
    disagreement = 2 * jnp.abs(rules[0] - rules[1]) + rounding + 1e-12 * size1 * size2
    return jnp.where(slow, disagreement, bound)


def _bound(phi, psi, q1, q2, c, d, params1, params2):
    if form_pair(phi.form, psi.form, q1, q2, c, d) is not None:
        return _closed_bound(phi.form, psi.form, q1, q2, c, d)
    if affine_part(phi) is not None or affine_part(psi) is not None:
        eps = float(jnp.finfo(c.dtype).eps)
        size1 = jnp.sqrt(jnp.maximum(second_value(phi, phi, q1, params1, params1), 0))
        size2 = jnp.sqrt(jnp.maximum(second_value(psi, psi, q2, params2, params2), 0))
        return 4096 * eps * size1 * size2 + 0 * c
    return _generic_bound(phi, psi, q1, q2, c, d, params1, params2)


def certificate(phi, psi, q1, q2, c, params1=(), params2=(), *, derivative=False):
    """Bound the absolute error of :func:`pair`, elementwise, for its value and derivative.

    For the series it is sqrt(tail1 tail2) |rho|^K with tails from Parseval's identity; elsewhere
    it is the disagreement of two quadrature rules, of which the finer one is returned by ``pair``.
    """
    arguments = prepare(q1, q2, c, None, params1, params2)
    value = _bound(phi, psi, *arguments)
    return Pair(value, _bound(phi.prime, psi.prime, *arguments) if derivative else None)
