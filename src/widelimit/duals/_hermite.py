"""Hermite series: E[phi(u) psi(v)] = sum_k a_k(q1) b_k(q2) rho^k.

With h_k the normalised Hermite polynomials, a_k(q) = E[phi(sqrt(q) z) h_k(z)]. Parseval gives the
tail, sum_(k >= K) a_k^2 = E[phi^2] - sum_(k < K) a_k^2, and with it the number of terms.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._activation import WeakDerivative
from ._line import fixed_nodes, has_off_centre_kinks, hermite_table, over_chunks, row_rule
from ._moments import floor_variance

_BLOCK = 128
_UNROLL = 8


class Series(NamedTuple):
    """Coefficients with the order first, (K, *rows), and per row E[phi^2] and the tail past K."""

    coefficients: object
    second: object
    tail: object


def terms(rows, dtype):
    """How many terms are kept: fewer for very many rows, which bounds memory."""
    most = 1024 if dtype == jnp.float64 else 256
    while most > _BLOCK and most * rows > 2**26:
        most //= 2
    return most


@partial(jax.jit, static_argnums=(0, 1))
def _rules(phi, order, q, params):
    return jax.vmap(lambda q, params: row_rule(phi, q, params, order))(q, params)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _coefficients(count, order, moving, rows):
    """Coefficients (rows, count), second moments and tails, from the values at the nodes.

    The function itself is not in here, so that this program is compiled once for all functions.
    """
    dtype = rows.fixed.dtype
    blocks = hermite_table(order, count, dtype).reshape(count // _BLOCK, _BLOCK, -1)
    weighted = rows.extra * rows.weights
    second = rows.fixed**2 @ jnp.asarray(fixed_nodes(order)[1], dtype)
    second = second + jnp.sum(rows.extra * weighted, axis=1)

    def extra_terms(state, k):
        last, before = state
        following = (rows.nodes * last - jnp.sqrt(k) * before) / jnp.sqrt(k + 1)
        return (following, last), jnp.sum(weighted * last, axis=1)

    def step(state):
        i, out, left, _, recursion = state
        block = jnp.matmul(rows.fixed, blocks[i].T, precision=jax.lax.Precision.HIGHEST)
        if moving:
            orders = (i * _BLOCK + jnp.arange(_BLOCK)).astype(dtype)
            recursion, more = jax.lax.scan(extra_terms, recursion, orders)
            block = block + more.T
        energy = jnp.sum(block * block, axis=1)
        out = jax.lax.dynamic_update_slice(out, block, (0, i * _BLOCK))
        return i + 1, out, left - energy, energy, recursion

    eps = float(jnp.finfo(dtype).eps)

    def unfinished(state):
        i, _, left, energy, _ = state
        small = (energy <= 4 * eps * second) & (left <= 4e4 * eps * second)
        return (i < count // _BLOCK) & ~jnp.all(small)

    zero = jnp.zeros_like(rows.nodes)
    start = (0, jnp.zeros((second.size, count), dtype), second, second, (zero + 1, zero))
    _, out, left, _, _ = jax.lax.while_loop(unfinished, step, start)
    return out, second, jnp.maximum(left, 0)


def series(phi, q, params, count, order=16):
    """Return the :class:`Series` of ``phi`` for every row of ``q`` and ``params``."""
    if isinstance(phi, WeakDerivative):
        least = jnp.maximum(q, floor_variance(q.dtype))
        base = series(phi.base, least, params, count, order)
        rows = least.reshape((1,) * (base.second.ndim - q.ndim) + q.shape)
        out = phi.shift(base.coefficients, rows)
        total = jnp.sum(out**2, axis=0)
        return Series(out, total, jnp.zeros_like(total))

    moving = has_off_centre_kinks(phi)
    whole = lambda q, params: _coefficients(count, order, moving, _rules(phi, order, q, params))
    out, second, tail = over_chunks(whole, q, params)
    return Series(jnp.moveaxis(out, -1, 0), second, tail)


def needed(one, two, largest, tolerance):
    """Smallest count with sqrt(tail1 tail2) largest^count below tolerance, for the worst rows."""

    def worst(x):
        energy = x.coefficients**2
        after = jnp.flip(jnp.cumsum(jnp.flip(energy, 0), 0), 0)
        ratio = after / jnp.where(x.second > 0, x.second, 1)
        return jnp.max(ratio.reshape(ratio.shape[0], -1), axis=1)

    bound = jnp.sqrt(worst(one) * worst(two))
    k = np.arange(bound.shape[0])
    enough = bound * largest ** k.astype(bound.dtype) <= tolerance
    return jnp.where(jnp.any(enough), jnp.argmax(enough), bound.shape[0])


def _blocks(one, two, i):
    a = jax.lax.dynamic_slice_in_dim(one.coefficients, i * _UNROLL, _UNROLL)
    b = jax.lax.dynamic_slice_in_dim(two.coefficients, i * _UNROLL, _UNROLL)
    return a, b


@jax.jit
def hermite_sum(one, two, rho):
    """sum_k a_k b_k rho^k by Horner's rule, with as many terms as the worst row needs."""
    eps = float(jnp.finfo(rho.dtype).eps)
    count = needed(one, two, jnp.max(jnp.abs(rho)), eps / 4)
    blocks = (count + _UNROLL - 1) // _UNROLL

    def body(j, total):
        a, b = _blocks(one, two, blocks - 1 - j)
        for k in reversed(range(_UNROLL)):
            total = total * rho + a[k] * b[k]
        return total

    return jax.lax.fori_loop(0, blocks, body, jnp.zeros_like(rho))


@jax.jit
def hermite_difference(one, two, rho, far):
    """sum_k (a_k - b_k)^2 + 2 a_k b_k (1 - rho^k), with ``far = 1 - rho`` to full precision.

    Also returns the last block's share, which tells whether the sum has converged.
    """
    eps = float(jnp.finfo(rho.dtype).eps)
    count = needed(one, two, jnp.max(jnp.abs(rho)), eps / 4)
    blocks = (count + _UNROLL - 1) // _UNROLL

    def body(j, state):
        total, lost, _ = state
        a, b = _blocks(one, two, j)
        share = jnp.zeros_like(rho)
        for k in range(_UNROLL):
            share = share + ((a[k] - b[k]) ** 2 + 2 * a[k] * b[k] * lost)
            lost = lost + (1 - lost) * far
        return total + share, lost, share

    zero = jnp.zeros_like(rho)
    total, _, share = jax.lax.fori_loop(0, blocks, body, (zero, zero, zero))
    return total, share
