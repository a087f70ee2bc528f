"""One-dimensional Gaussian moments of an activation, differentiable to any order."""

from functools import partial

import jax
import jax.numpy as jnp
from numpy.polynomial import hermite_e
from numpy.polynomial import polynomial as npoly

from ._activation import Activation, WeakDerivative
from ._analysis import Analysis
from ._atoms import horner
from ._closed import form_mean, form_pair, form_slope
from ._line import fixed_nodes, over_rows, row_rule
from ._sums import instantiate, is_zero

ORDER = 16


def floor_variance(dtype):
    """Variance below which derivatives in the variance are taken at this value."""
    return 1e-10 if dtype == jnp.float64 else 1e-5


def _row_moment(functions, weight, order, q, params):
    """E[prod_i phi_i(u) r(z)] in one row; params come concatenated."""
    z, w = fixed_nodes(order)
    joint = product_of(functions)
    row = row_rule(joint, q, params, order)
    fixed = row.fixed @ jnp.asarray(w * npoly.polyval(z, weight), q.dtype)
    return fixed + jnp.sum(row.extra * row.weights * horner(weight, row.nodes))


def product_of(functions):
    """The product of activations as one object with joint kinks and concatenated parameters."""
    if len(functions) == 1:
        return functions[0]
    return _Product(functions)


class _Product:
    """A product of activations, for the line rules only."""

    def __init__(self, functions):
        self.functions = functions
        self.n_params = sum(f.n_params for f in functions)

    def _split(self, params):
        start = 0
        for f in self.functions:
            yield f, params[start : start + f.n_params]
            start += f.n_params

    def fn(self, u, *params):
        total = 1.0
        for f, own in self._split(params):
            total = total * f.fn(u, *own)
        return total

    @property
    def prime(self):
        return Activation(self.fn, n_params=self.n_params).prime

    @property
    def analysis(self):
        kinks = sorted({k for f in self.functions for k in f.analysis.kinks})
        return Analysis(tuple(kinks), (), True, True)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def moment(functions, weight, order, q, params):
    """E[phi_1(u) phi_2(u) ... r(z)] for u = sqrt(q) z and the polynomial r of ``weight``.

    Shapes: ``q`` and ``params`` broadcast. Derivatives in q are weak,
    d/dq E[f r] = E[f ((z^2 - 1) r - z r')] / (2 q), so jumps are no obstacle.
    """
    return _moment(functions, weight, order, q, params)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _moment(functions, weight, order, q, params):
    return over_rows(partial(_row_moment, functions, weight, order), q, params)


def _moment_jvp(functions, weight, order, primals, tangents):
    q, params = primals
    dq, dparams = tangents
    value = moment(functions, weight, order, q, params)
    tangent = jnp.zeros_like(value)
    if not is_zero(dq):
        score = npoly.polysub(
            npoly.polymul((-1.0, 0.0, 1.0), weight), npoly.polymulx(npoly.polyder(weight))
        )
        least = jnp.maximum(q, floor_variance(value.dtype))
        slope = moment(functions, tuple(map(float, score)), order, least, params) / (2 * least)
        tangent = tangent + slope * dq
    start = 0
    for i, f in enumerate(functions):
        for j in range(f.n_params):
            dp = dparams[start + j]
            if is_zero(dp):
                continue
            changed = (*functions[:i], f.in_param(j), *functions[i + 1 :])
            tangent = tangent + moment(changed, weight, order, q, params) * dp
        start += f.n_params
    return value, instantiate(tangent, value)


moment.defjvp(_moment_jvp, symbolic_zeros=True)


def _gaussian_power(k):
    return (0.0,) * k + (1.0,)


def mean_value(phi, q, params):
    """E[phi(u)], u ~ N(0, q)."""
    if phi.form is not None:
        return form_mean(phi.form, q)
    if isinstance(phi, WeakDerivative):
        return _weak_mean(phi, q, params)
    return moment((phi,), (1.0,), ORDER, q, params)


def _weak_mean(phi, q, params):
    """E[f^(k)(u)] = q^(-k/2) E[f(u) He_k(z)] for the k-th weak derivative of f."""
    k = 0
    while isinstance(phi, WeakDerivative):
        phi, k = phi.base, k + 1
    least = jnp.maximum(q, floor_variance(q.dtype))
    weight = tuple(map(float, hermite_e.herme2poly(_gaussian_power(k))))
    return moment((phi,), weight, ORDER, least, params) / least ** (k / 2)


def slope_value(phi, q, params):
    """E[phi(u) u] / q, the mean of the weak derivative."""
    if phi.form is not None:
        return form_slope(phi.form, q)
    return _weak_mean(WeakDerivative(phi), q, params)


def second_value(phi, psi, q, params1, params2):
    """E[phi(u) psi(u)]."""
    closed = form_pair(phi.form, psi.form, q, q, q, jnp.zeros_like(q))
    if closed is not None:
        return closed
    return moment((phi, psi), (1.0,), ORDER, q, (*params1, *params2))
