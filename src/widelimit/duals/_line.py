"""Quadrature on the line: nodes for one Gaussian, split at the kinks of each row.

Gauss-Legendre panels, graded towards zero so that functions of order-one scale stay resolved at
large variance. A panel that holds a kink is masked out and replaced by two or more panels that
end at the kink; kinks at zero need nothing, as zero is an edge of every grid.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._sums import is_traced

REACH = 12.0
_LADDER = [0.015, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1.0, 1.25, 1.5, 1.75, 2.0]
_LADDER += [2.25, 2.5, 2.75, 3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5, 8, 8.5, 9, 9.5, 10, 11, 12]
EDGES = np.array([-x for x in reversed(_LADDER)] + [0.0, *_LADDER])
_MOVING_KINKS = 4


@lru_cache
def legendre(order):
    """Gauss-Legendre nodes and weights on [-1, 1], float64."""
    return np.polynomial.legendre.leggauss(order)


@lru_cache
def fixed_nodes(order):
    """Nodes and standard-normal weights of all panels, float64, shape (panels * order,)."""
    x, w = legendre(order)
    middle, half = (EDGES[1:] + EDGES[:-1]) / 2, (EDGES[1:] - EDGES[:-1]) / 2
    z = (middle[:, None] + half[:, None] * x).ravel()
    weight = (half[:, None] * w).ravel() * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    return z, weight / weight.sum()


@lru_cache
def _host_hermite_table(order, count):
    z, weight = fixed_nodes(order)
    table = np.empty((count, z.size))
    table[0], before = 1.0, np.zeros(z.size)
    for k in range(count - 1):
        last = table[k]
        table[k + 1] = (z * last - np.sqrt(k) * before) / np.sqrt(k + 1)
        before = last
    return table * weight


def hermite_table(order, count, dtype):
    """Normalised Hermite polynomials h_k at the fixed nodes times weight, (count, nodes).

    In float64 the recursion runs inside the program, as its result is a large constant.
    """
    if dtype != jnp.float64:
        return jnp.asarray(_host_hermite_table(order, count), dtype)
    z, weight = fixed_nodes(order)

    def step(state, k):
        last, before = state
        following = (z * last - jnp.sqrt(k) * before) / jnp.sqrt(k + 1)
        return (following, last), last * weight

    start = (jnp.ones(z.size, dtype), jnp.zeros(z.size, dtype))
    return jax.lax.scan(step, start, np.arange(count, dtype=np.float64))[1]


class Row(NamedTuple):
    """Quadrature rule of one row (one variance): values of phi at standard-normal nodes.

    ``fixed`` are values at the fixed nodes, zero in replaced panels; ``extra``, ``nodes`` and
    ``weights`` belong to the panels that replace them.
    """

    fixed: object
    extra: object
    nodes: object
    weights: object


# A grid that ordinary kinks avoid, so that each lies inside one of its cells.
_SEARCH = np.sinh(np.linspace(-6.0137, 6.0071, 513)) / 25


def _moving_kinks(phi, s, params):
    """Find, in one row, up to a few kinks of a function whose kinks move with its parameters.

    The cells where the function or its autodiff derivative jumps most, against the neighbouring
    cells, are bisected. A cell without a kink yields a harmless split.
    """
    slope = phi.prime.fn
    grid = jnp.asarray(_SEARCH, s.dtype)

    def values(z):
        u = s * z
        both = (phi.fn(u, *params), slope(u, *params))
        return jnp.stack([jnp.broadcast_to(b, z.shape).astype(s.dtype) for b in both])

    seen = values(grid)
    size = jnp.max(jnp.abs(jnp.where(jnp.abs(grid) < 4, seen, 0)), axis=1, keepdims=True)
    size = jnp.where(size > 0, size, 1)

    def jump(low, high):
        return jnp.sum(jnp.abs(values(high) - values(low)) / size, axis=0)

    low, high = grid[:-1], grid[1:]
    steps = jnp.sum(jnp.abs(seen[:, 1:] - seen[:, :-1]) / size, axis=0)
    steps = steps * jnp.exp(-((low + high) ** 2) / 16)
    around = jnp.maximum(jnp.roll(steps, 1), jnp.roll(steps, -1))
    picked = jax.lax.top_k(steps - around, _MOVING_KINKS)[1]

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        right = jump(middle, high) > jump(low, middle)
        return jnp.where(right, middle, low), jnp.where(right, high, middle)

    low, high = jax.lax.fori_loop(0, 44, halve, (low[picked], high[picked]))
    return jnp.sort((low + high) / 2)


def standard_kinks(phi, s, params=()):
    """Kinks of z -> phi(s z) as standard-normal points, sorted, for one row."""
    if phi.n_params:
        return _moving_kinks(phi, s, params)
    kinks = np.array([k for k in phi.analysis.kinks if k != 0.0])
    safe = jnp.maximum(s, 1e-30)
    return jnp.clip(jnp.asarray(kinks, s.dtype) / safe, -REACH, REACH)


def has_off_centre_kinks(phi):
    """Whether rows need panels of their own."""
    return bool(phi.n_params or any(k != 0.0 for k in phi.analysis.kinks))


def row_rule(phi, q, params, order):
    """Return the :class:`Row` of ``phi`` for one scalar variance ``q`` and scalar parameters."""
    dtype = q.dtype
    s = jnp.sqrt(jnp.maximum(q, 0))
    z, _ = fixed_nodes(order)
    z = jnp.asarray(z, dtype)
    fixed = jnp.broadcast_to(phi.fn(s * z, *params), z.shape).astype(dtype)
    if not has_off_centre_kinks(phi):
        empty = jnp.zeros((0,), dtype)
        return Row(fixed, empty, empty, empty)
    kinks = jax.lax.stop_gradient(standard_kinks(phi, s, params))
    edges = jnp.asarray(EDGES, dtype)
    panel = jnp.clip(jnp.searchsorted(edges, kinks, side="right") - 1, 0, EDGES.size - 2)
    low, high = edges[panel], edges[panel + 1]
    before = jnp.concatenate([edges[:1], kinks[:-1]])
    same_as_next = jnp.append(panel[1:] == panel[:-1], False)
    left = jnp.stack([jnp.maximum(low, before), kinks])
    right = jnp.stack([kinks, jnp.where(same_as_next, kinks, high)])
    x, w = legendre(order)
    half = (right - left)[..., None] / 2
    nodes = ((right + left)[..., None] / 2 + half * x.astype(dtype)).ravel()
    weights = (half * w.astype(dtype)).ravel() * jnp.exp(-nodes * nodes / 2) / np.sqrt(2 * np.pi)
    owner = np.repeat(np.arange(EDGES.size - 1), order)
    replaced = jnp.any(panel[:, None] == owner, axis=0)
    extra = jnp.broadcast_to(phi.fn(s * nodes, *params), nodes.shape).astype(dtype)
    return Row(jnp.where(replaced, 0, fixed), extra, nodes, weights.astype(dtype))


def over_chunks(fun, q, params, chunk=2048):
    """Apply ``fun`` to flat chunks of rows, (rows,) -> (rows, ...), and restore their shape."""
    shape = jnp.broadcast_shapes(q.shape, *(p.shape for p in params))
    rows = [jnp.broadcast_to(a, shape).ravel() for a in (q, *params)]
    size = rows[0].size
    if size <= chunk:
        out = fun(rows[0], tuple(rows[1:]))
    else:
        count = -(-size // chunk)
        # The last row is repeated to fill the last chunk.
        index = np.minimum(np.arange(count * chunk), size - 1)
        folded = tuple(a[index].reshape(count, chunk) for a in rows)
        one = lambda row: fun(row[0], row[1:])
        if is_traced(folded):
            out = jax.lax.map(one, folded)
        else:
            parts = [one(tuple(a[i] for a in folded)) for i in range(count)]
            out = jax.tree.map(lambda *blocks: jnp.stack(blocks), *parts)
        out = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:size], out)
    return jax.tree.map(lambda a: a.reshape(shape + a.shape[1:]), out)


def over_rows(fun, q, params):
    """Map the scalar ``fun(q, params)`` over rows, vectorised in chunks."""
    return over_chunks(jax.vmap(fun), q, params)
