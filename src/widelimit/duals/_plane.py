"""Quadrature in the plane for kinked functions at correlations near one.

Rotated coordinates: with z, w independent standard normals and t the angle of the pair,
u = s1 (z cos(t/2) + w sin(t/2)) and v = s2 (z cos(t/2) - w sin(t/2)). For fixed w the kinks of
phi(u) and of psi(v) are points in z, where the inner panels are split; the outer panels are split
at the w where two such points cross. So every panel sees analytic functions, at any t.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ._line import legendre, standard_kinks

_Z_EDGES = np.array([-8.5, -5.0, -2.5, 0.0, 2.5, 5.0, 8.5])
_W_EDGES = np.array([-8.0, -3.5, 0.0, 3.5, 8.0])
_PANELS = np.array([-12.0, -6.0, -3.0, -1.5, 0.0, 1.5, 3.0, 6.0, 12.0])
_MOST_CROSSINGS = 9
CHUNK = 256


def _splits(phi, s, params):
    """Kinks and panel edges of z -> phi(s z) for one entry."""
    safe = jnp.maximum(s, 1e-30)
    kinks = standard_kinks(phi, s, params)
    if phi.n_params:
        panels = jnp.asarray(_PANELS, s.dtype) / safe
        return kinks, jnp.concatenate([kinks, panels])
    zero = jnp.zeros((1 if 0.0 in phi.analysis.kinks else 0,), s.dtype)
    inner = np.array([p for p in phi.analysis.panels[1:-1]])
    return jnp.concatenate([kinks, zero]), jnp.asarray(inner, s.dtype) / safe


def _panels(edges, order):
    """Nodes and normal weights of Gauss-Legendre panels between sorted edges."""
    x, w = legendre(order)
    low, high = edges[:-1, None], edges[1:, None]
    nodes = ((low + high) / 2 + (high - low) / 2 * x.astype(edges.dtype)).ravel()
    weights = ((high - low) / 2 * w.astype(edges.dtype)).ravel()
    return nodes, weights * jnp.exp(-nodes * nodes / 2) / float(np.sqrt(2 * np.pi))


def _entry(phi, psi, squared, order, s1, s2, sign, half_sine, half_cosine, params1, params2):
    """E[phi(u) psi(v)], or E[(phi(u) - psi(v))^2], for one pair of scalars."""
    dtype = s1.dtype
    kinks1, panels1 = _splits(phi, s1, params1)
    kinks2, panels2 = _splits(psi, s2, params2)
    kinks2, panels2 = sign * kinks2, sign * panels2
    apart = kinks1[:, None] - kinks2
    crossings = (apart / jnp.maximum(2 * half_sine, 1e-30)).ravel()
    crossings = jnp.where(jnp.abs(apart.ravel()) > 0, crossings, 0.0)
    if crossings.size > _MOST_CROSSINGS:
        near = jax.lax.top_k(-jnp.abs(crossings), _MOST_CROSSINGS)[1]
        crossings = crossings[near]
    edges = jnp.concatenate([jnp.asarray(_W_EDGES, dtype), crossings])
    edges = jnp.clip(edges, float(_W_EDGES[0]), float(_W_EDGES[-1]))
    outer, outer_weights = _panels(jnp.sort(edges), order)

    def add(total, node):
        w, weight = node
        shift = w * half_sine
        points = [jnp.asarray(_Z_EDGES, dtype)]
        points += [(panels1 - shift) / half_cosine, (panels2 + shift) / half_cosine]
        edges = jnp.sort(jnp.clip(jnp.concatenate(points), float(_Z_EDGES[0]), float(_Z_EDGES[-1])))
        z, inner = _panels(edges, order)
        f = phi.fn(s1 * (z * half_cosine + shift), *params1)
        g = psi.fn(sign * s2 * (z * half_cosine - shift), *params2)
        value = (f - g) ** 2 if squared else f * g
        return total + weight * jnp.sum(inner * value), None

    return jax.lax.scan(add, jnp.zeros((), dtype), (outer, outer_weights))[0]


@partial(jax.jit, static_argnums=(0, 1), static_argnames=("squared", "order"))
def plane(phi, psi, wanted, start, geo, params1, params2, *, squared=False, order=12):
    """Overwrite the entries of ``start`` that are ``wanted`` with plane quadrature.

    The wanted entries are gathered into chunks, so time goes with their number and memory does
    not. Shapes: ``wanted``, ``start`` and the fields of ``geo`` broadcast to one shape.
    """
    shape = jnp.broadcast_shapes(start.shape, wanted.shape)
    spread = lambda a: jnp.broadcast_to(a, shape).ravel()
    product = jnp.where(geo.s1 * geo.s2 > 0, geo.s1 * geo.s2, 1)
    near = jnp.where(geo.rho >= 0, geo.gap, geo.sum)
    half_sine = jnp.sqrt(jnp.clip(near / (2 * product), 0, 0.5))
    half_cosine = jnp.sqrt(1 - half_sine**2)
    sign = jnp.where(geo.rho >= 0, 1, -1).astype(start.dtype)
    columns = [spread(a) for a in (geo.s1, geo.s2, sign, half_sine, half_cosine)]
    columns += [spread(p) for p in (*params1, *params2)]
    wanted, start = spread(wanted), spread(start)
    size = start.size
    chunk = min(CHUNK, size)
    count = jnp.sum(wanted)
    (where,) = jnp.nonzero(wanted, size=size + chunk, fill_value=size)

    def one(*columns):
        own1 = columns[5 : 5 + len(params1)]
        own2 = columns[5 + len(params1) :]
        return _entry(phi, psi, squared, order, *columns[:5], own1, own2)

    def fill(i, out):
        index = jax.lax.dynamic_slice_in_dim(where, i * chunk, chunk)
        values = jax.vmap(one)(*(c.at[index].get(mode="clip") for c in columns))
        return out.at[index].set(values, mode="drop")

    return jax.lax.fori_loop(0, (count + chunk - 1) // chunk, fill, start).reshape(shape)
