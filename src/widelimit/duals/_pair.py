"""The public moments: pairs, differences, means, slopes and second moments."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ._closed import affine_kinked_difference, is_affine_kinked
from ._generic import generic_difference, has_formula, pair_value
from ._geometry import default_gap
from ._kinked import kink_of, kinked_pair, kinked_second
from ._moments import mean_value, second_value, slope_value


class Pair(NamedTuple):
    """A moment of two activations and of their derivatives (None when not asked for)."""

    value: object
    derivative: object


def as_floats(*arrays):
    """The arrays in their common floating dtype."""
    dtype = jnp.result_type(float if not arrays else jnp.result_type(*arrays))
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    return [jnp.asarray(a, dtype) for a in arrays]


def prepare(q1, q2, c, d, params1, params2):
    """Common dtype for all arguments, and d from q1, q2 and c when it is not given."""
    q1, q2, c = as_floats(q1, q2, c)
    d = default_gap(q1, q2, c) if d is None else jnp.asarray(d, c.dtype)
    params1 = tuple(jnp.asarray(p, c.dtype) for p in params1)
    params2 = tuple(jnp.asarray(p, c.dtype) for p in params2)
    return q1, q2, c, d, params1, params2


def is_closed(phi, psi, *, derivative=False):
    """Whether :func:`pair` is a formula for these two, and not a series summed by a program."""
    if kink_of(phi, derivative) is not None and kink_of(psi, derivative) is not None:
        return True
    return has_formula(phi, psi) and (not derivative or has_formula(phi.prime, psi.prime))


def pair(phi, psi, q1, q2, c, *, params1=(), params2=(), d=None, derivative=False):
    """E[phi(u) psi(v)] and E[phi'(u) psi'(v)] for (u, v) ~ N(0, [[q1, c], [c, q2]]).

    Parameters
    ----------
    phi, psi
        Activations.
    q1, q2, c
        Variances and covariance, broadcast together; work per variance is done once per entry of
        the unbroadcast ``q1`` and ``q2``.
    params1, params2
        Parameters of ``phi`` and ``psi``, broadcast against ``q1`` and ``q2``.
    d
        E[(u - v)^2] = q1 + q2 - 2 c where it is known more accurately than that sum. It gives its
        value only: derivatives flow through q1, q2, c and the parameters.
    derivative
        Whether to return the derivative moment, of autodiff derivatives.

    Returns
    -------
    Pair
        Both entries have the broadcast shape of all arguments.
    """
    arguments = prepare(q1, q2, c, d, params1, params2)
    one, two = kink_of(phi, derivative), kink_of(psi, derivative)
    if one is not None and two is not None:
        return Pair(*_kinked_pair(one, two, derivative, *arguments[:4]))
    value = pair_value(phi, psi, *arguments)
    slope = pair_value(phi.prime, psi.prime, *arguments) if derivative else None
    return Pair(value, slope)


def difference(phi, q1, q2, c, d, *, params1=(), params2=()):
    """E[(phi(u) - phi(v))^2], to relative precision when d = E[(u - v)^2] is tiny.

    Shapes as in :func:`pair`. Piecewise affine functions with a kink at zero use closed forms in
    the angle; others sum (a_k - b_k)^2 + 2 a_k b_k (1 - rho^k), or integrate the square.
    """
    arguments = prepare(q1, q2, c, d, params1, params2)
    if is_affine_kinked(phi.form):
        return _kinked_difference(phi, *arguments[:4])
    return generic_difference(phi, *arguments)


@partial(jax.jit, static_argnums=0)
def _kinked_difference(phi, q1, q2, c, d):
    return affine_kinked_difference(phi.form, q1, q2, c, d)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _kinked_pair(one, two, derivative, q1, q2, c, d):
    return kinked_pair(one, two, q1, q2, c, d, derivative)


_mean = partial(jax.jit, static_argnums=0)(mean_value)
_slope = partial(jax.jit, static_argnums=0)(slope_value)


def _single(q, params):
    (q,) = as_floats(q)
    return q, tuple(jnp.asarray(p, q.dtype) for p in params)


def mean(phi, q, params=()):
    """E[phi(u)] for u ~ N(0, q); shape of q broadcast with params."""
    return _mean(phi, *_single(q, params))


def mean_derivative(phi, q, params=()):
    """E[phi'(u)] for u ~ N(0, q), with the autodiff derivative."""
    return _mean(phi.prime, *_single(q, params))


def slope(phi, q, params=()):
    """E[phi(u) u] / q for u ~ N(0, q): the mean of the weak derivative (Stein's lemma)."""
    return _slope(phi, *_single(q, params))


def second(phi, psi, q, params1=(), params2=(), *, derivative=False):
    """E[phi(u) psi(u)], and E[phi'(u) psi'(u)], of one variable u ~ N(0, q)."""
    q, params1 = _single(q, params1)
    params2 = tuple(jnp.asarray(p, q.dtype) for p in params2)
    return _second(phi, psi, derivative, q, params1, params2)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _second(phi, psi, derivative, q, params1, params2):
    one, two = kink_of(phi, derivative), kink_of(psi, derivative)
    if one is not None and two is not None:
        return Pair(*kinked_second(one, two, q, derivative))
    value = second_value(phi, psi, q, params1, params2)
    slopes = second_value(phi.prime, psi.prime, q, params1, params2) if derivative else None
    return Pair(value, slopes)
