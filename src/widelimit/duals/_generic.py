"""The generic pair moment: Hermite series, with plane quadrature where it converges slowly."""

from functools import partial
from math import prod

import jax
import jax.numpy as jnp

from ._activation import WeakDerivative
from ._atoms import ExpPoly
from ._closed import form_pair
from ._geometry import geometry
from ._hermite import hermite_difference, hermite_sum, series, terms
from ._moments import floor_variance, mean_value, second_value, slope_value
from ._plane import plane
from ._sums import instantiate, is_traced, is_zero


def slow_tolerance(dtype):
    """Relative tail bound above which an entry goes to plane quadrature."""
    return 1e-9 if dtype == jnp.float64 else 3e-6


def row_count(q, params):
    """Number of rows of a broadcast of variances and parameters."""
    return prod(jnp.broadcast_shapes(q.shape, *(p.shape for p in params)))


def both_series(phi, psi, q1, q2, params1, params2, order=16):
    """Series of phi over rows and of psi over columns, of equal length."""
    rows = max(row_count(q1, params1), row_count(q2, params2))
    count = terms(rows, q1.dtype)
    if phi is psi and not params1 and not params2 and _same_rows(q1, q2):
        one = series(phi, q1, (), count, order)
        return one, jax.tree.map(lambda a: a.reshape(*a.shape[: a.ndim - q1.ndim], *q2.shape), one)
    return series(phi, q1, params1, count, order), series(psi, q2, params2, count, order)


def _same_rows(q1, q2):
    """Whether rows and columns are the same inputs, in the same order."""
    if q1.size != q2.size or q1.ndim != q2.ndim or is_traced(q1, q2):
        return False
    return bool(jnp.array_equal(q1.ravel(), q2.ravel()))


def has_plane(phi, psi):
    """Whether slow entries can go to plane quadrature: functions can, bare series cannot."""
    return not isinstance(phi, WeakDerivative) and not isinstance(psi, WeakDerivative)


def tail_bound(one, two, rho):
    """sqrt(tail1 tail2) |rho|^K, the error of the truncated series (Cauchy-Schwarz, Parseval)."""
    return jnp.sqrt(one.tail * two.tail) * jnp.abs(rho) ** one.coefficients.shape[0]


@jax.jit
def slow_entries(one, two, rho):
    """Entries whose tail bound exceeds the tolerance."""
    size = jnp.sqrt(one.second * two.second)
    return tail_bound(one, two, rho) > slow_tolerance(rho.dtype) * size


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def generic_pair(phi, psi, q1, q2, c, d, params1, params2):
    """E[phi(u) psi(v)]; shapes broadcast, row work is done on the unbroadcast q1 and q2.

    Derivatives are those of weak calculus (Price's theorem): d/dc gives E[phi' psi'], d/dq1 gives
    E[phi'' psi] / 2. They flow through q1, q2, c and the parameters; d gives its value only.
    """
    return _series_then_plane(phi, psi, q1, q2, c, d, params1, params2)


def _series_then_plane(phi, psi, q1, q2, c, d, params1, params2):
    geo = geometry(q1, q2, c, d)
    one, two = both_series(phi, psi, q1, q2, params1, params2)
    shape = jnp.broadcast_shapes(geo.rho.shape, one.second.shape, two.second.shape)
    rho = jnp.broadcast_to(geo.rho, shape)
    value = hermite_sum(one, two, rho)
    if not has_plane(phi, psi):
        return value
    slow = slow_entries(one, two, rho)
    if not is_traced(slow) and not bool(jnp.any(slow)):
        return value
    return plane(phi, psi, slow, value, geo, params1, params2)


def _generic_pair_jvp(phi, psi, primals, tangents):
    dq1, dq2, dc, _, dparams1, dparams2 = tangents
    value = generic_pair(phi, psi, *primals)
    return value, instantiate(
        pair_tangent(phi, psi, value, primals, (dq1, dq2, dc, dparams1, dparams2)), value
    )


generic_pair.defjvp(_generic_pair_jvp, symbolic_zeros=True)


def affine_part(phi):
    """(a, b) when phi(u) = a + b u, else None."""
    if phi.form and len(phi.form) == 1 and isinstance(phi.form[0], ExpPoly):
        atom = phi.form[0]
        if atom.polynomial and len(atom.coefficients) <= 2:
            return (*atom.coefficients, 0.0)[:2]
    return None


@partial(jax.jit, static_argnums=(0, 1))
def _closed(phi, psi, q1, q2, c, d):
    return form_pair(phi.form, psi.form, q1, q2, c, d)


def has_formula(phi, psi):
    """Whether E[phi(u) psi(v)] needs no series: a closed form, or one function is affine."""
    if affine_part(phi) is not None or affine_part(psi) is not None:
        return True
    scalar = jax.ShapeDtypeStruct((), jnp.result_type(float))
    return jax.eval_shape(partial(_closed, phi, psi), *[scalar] * 4) is not None


def pair_value(phi, psi, q1, q2, c, d, params1, params2):
    """E[phi(u) psi(v)] by closed form, by Stein's lemma for affine functions, or generically."""
    closed = _closed(phi, psi, q1, q2, c, d)
    if closed is not None:
        return closed
    for f, g, q, params in ((phi, psi, q2, params2), (psi, phi, q1, params1)):
        affine = affine_part(f)
        if affine is not None:
            total = jnp.zeros(jnp.broadcast_shapes(q1.shape, q2.shape, c.shape), c.dtype)
            if affine[0]:
                total = total + affine[0] * mean_value(g, q, params)
            if affine[1]:
                total = total + affine[1] * c * slope_value(g, q, params)
            return total
    run = generic_pair if is_traced(q1, q2, c, d, params1, params2) else _series_then_plane
    return run(phi, psi, q1, q2, c, d, params1, params2)


def pair_tangent(phi, psi, value, primals, tangents):
    """Directional derivative of the pair moment from other pair moments.

    d/dc = W = E[phi'(u) psi'(v)]; d/dq1 = (E[u phi'(u) psi(v)] - c W) / (2 q1), which needs no
    second derivative, or E[phi'' psi] / 2 from the series where phi has no kinks or jumps.
    """
    q1, q2, c, d, params1, params2 = primals
    dq1, dq2, dc, dparams1, dparams2 = tangents
    total = jnp.zeros_like(value)
    least = floor_variance(value.dtype)
    f, g = phi.weak, psi.weak
    if not (is_zero(dq1) and is_zero(dq2) and is_zero(dc)):
        slope = pair_value(f, g, q1, q2, c, d, params1, params2)
        if not is_zero(dc):
            total = total + slope * dc
        if not is_zero(dq1):
            raised = jnp.maximum(q1, least)
            if phi.bends:
                turned = pair_value(phi.euler, psi, raised, q2, c, d, params1, params2)
                total = total + (turned - c * slope) / (2 * raised) * dq1
            else:
                total = total + pair_value(f.weak, psi, q1, q2, c, d, params1, params2) / 2 * dq1
        if not is_zero(dq2):
            raised = jnp.maximum(q2, least)
            if psi.bends:
                turned = pair_value(phi, psi.euler, q1, raised, c, d, params1, params2)
                total = total + (turned - c * slope) / (2 * raised) * dq2
            else:
                total = total + pair_value(phi, g.weak, q1, q2, c, d, params1, params2) / 2 * dq2
    for i, dp in enumerate(dparams1):
        if not is_zero(dp):
            changed = phi.in_param(i)
            total = total + pair_value(changed, psi, q1, q2, c, d, params1, params2) * dp
    for i, dp in enumerate(dparams2):
        if not is_zero(dp):
            changed = psi.in_param(i)
            total = total + pair_value(phi, changed, q1, q2, c, d, params1, params2) * dp
    return total


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def generic_difference(phi, q1, q2, c, d, params1, params2):
    """E[(phi(u) - phi(v))^2], summed without cancellation."""
    return _difference(phi, q1, q2, c, d, params1, params2)


def _difference(phi, q1, q2, c, d, params1, params2):
    geo = geometry(q1, q2, c, d)
    one, two = both_series(phi, phi, q1, q2, params1, params2)
    shape = jnp.broadcast_shapes(geo.rho.shape, one.second.shape, two.second.shape)
    rho = jnp.broadcast_to(geo.rho, shape)
    product = geo.s1 * geo.s2
    far = jnp.where(product > 0, geo.gap / jnp.where(product > 0, product, 1), 1)
    value, share = hermite_difference(one, two, rho, jnp.broadcast_to(far, shape))
    # A tail that matters against the difference itself, not against the moments.
    eps = float(jnp.finfo(rho.dtype).eps)
    open_tail = (one.tail > 4e4 * eps * one.second) | (two.tail > 4e4 * eps * two.second)
    open_tail = open_tail | (jnp.abs(share) > slow_tolerance(rho.dtype) * value)
    tail = one.tail + two.tail
    slow = open_tail & ((tail > slow_tolerance(rho.dtype) * value) | slow_entries(one, two, rho))
    if not is_traced(slow) and not bool(jnp.any(slow)):
        return value
    return plane(phi, phi, slow, value, geo, params1, params2, squared=True)


def _generic_difference_jvp(phi, primals, tangents):
    q1, q2, _, _, params1, params2 = primals
    dq1, dq2, dc, _, dparams1, dparams2 = tangents
    value = generic_difference(phi, *primals)
    whole = (dq1, dq2, dc, dparams1, dparams2)
    tangent = -2 * pair_tangent(phi, phi, value, primals, whole)
    own = [(q1, params1, dq1, dparams1), (q2, params2, dq2, dparams2)]
    for q, params, dq, dparams in own:
        fill = lambda t, like: jnp.zeros_like(like) if is_zero(t) else t
        primal = (q, tuple(params))
        change = (fill(dq, q), tuple(fill(t, p) for t, p in zip(dparams, params)))
        run = lambda q, params: second_value(phi, phi, q, params, params)
        tangent = tangent + jax.jvp(run, primal, change)[1]
    return value, instantiate(tangent, value)


generic_difference.defjvp(_generic_difference_jvp, symbolic_zeros=True)
