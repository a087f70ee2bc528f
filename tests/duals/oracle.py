"""An independent oracle: nested conditional quadrature in numpy, split at given kinks."""

import numpy as np

_X, _W = np.polynomial.legendre.leggauss(14)
_GRID = np.concatenate([[-9.0, -8.0], np.arange(-7, 7.01, 0.5), [8.0, 9.0]])
_FINE = np.concatenate([_GRID, [-0.25, -0.1, 0.1, 0.25, -0.04, 0.04]])


def _composite(edges):
    """Nodes and standard-normal weights of panels between edges, along the last axis."""
    edges = np.sort(np.clip(edges, -9, 9), axis=-1)
    low, high = edges[..., :-1, None], edges[..., 1:, None]
    z = (low + high) / 2 + (high - low) / 2 * _X
    weight = (high - low) / 2 * _W * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    shape = (*edges.shape[:-1], -1)
    return z.reshape(shape), weight.reshape(shape)


def mean(f, kinks, q):
    """E[f(u)], u ~ N(0, q)."""
    s = np.sqrt(q)
    z, w = _composite(np.concatenate([_FINE, np.asarray(kinks) / s if s else []]))
    return float(np.sum(w * f(s * z)))


def pair(f, g, kinks_f, kinks_g, q1, q2, c, of=lambda f, g: f * g):
    """E[of(f(u), g(v))] for (u, v) ~ N(0, [[q1, c], [c, q2]])."""
    s1 = np.sqrt(q1)
    rest = q2 - c * c / q1
    tau = np.sqrt(rest) if rest > 1e-15 * q2 else 0.0
    slope = c / q1
    crossings = np.asarray(kinks_g, float) / (slope * s1) if slope else np.zeros(0)
    near = np.array([-8, -5, -3, -1.5, -0.5, 0, 0.5, 1.5, 3, 5, 8.0])
    width = tau / abs(slope * s1) if slope else 0.0
    edges = [_FINE, np.asarray(kinks_f, float) / s1, (crossings[:, None] + near * width).ravel()]
    if not tau:
        z, w = _composite(np.concatenate(edges))
        return float(np.sum(w * of(f(s1 * z), g(slope * s1 * z))))
    z, w = _composite(np.concatenate(edges))
    keep = w > 1e-18
    z, w = z[keep], w[keep]
    middle = slope * s1 * z
    splits = (np.asarray(kinks_g, float) - middle[:, None]) / tau
    inner, weights = _composite(np.concatenate([np.tile(_FINE, (z.size, 1)), splits], axis=1))
    values = of(f(s1 * z)[:, None], g(middle[:, None] + tau * inner))
    return float(np.sum(w * np.sum(weights * values, axis=1)))
