"""Functions without a second moment under a Gaussian: poles, logarithms, growth like exp(u²)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit import duals
from widelimit.graph import nodes as n
from widelimit.graph.entangled import below
from widelimit.limit.pointwise import computed

Function = Callable[..., Any]
LINES = 5
"""Lines through the space of its variables along which a function of several is looked at."""
_GENTLE, _LARGEST = 1e5, 1e34
"""Sizes at 30 standard deviations: of a function of anything at all, and of one of Gaussians."""

GRID = np.sort(np.concatenate([np.linspace(-9.0, 9.0, 4001) + 0.0008137, [0.0]]))


def is_singular(fn: Function) -> bool:
    """Whether a function is as steep as |u - p|^(-1/2) near some point p, and so has no E[f²].

    The places where it is largest are searched for the peak, and its sizes at two distances from
    there compared: 10^-7 and 10^-3, between which |u - p|^(-1/2) grows by 10^2.
    """
    size = np.abs(duals.probe(fn, GRID))
    if not np.all(np.isfinite(size)):
        return True
    peaks = 1 + np.flatnonzero((size[1:-1] >= size[:-2]) & (size[1:-1] >= size[2:]))
    peaks = peaks[np.argsort(-size[peaks])][:16]
    low, high = np.resize(GRID[peaks - 1], 16), np.resize(GRID[peaks + 1], 16)
    if peaks.size == 0:
        return False
    for _ in range(60):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        values = np.abs(duals.probe(fn, np.concatenate([left, right]))).reshape(2, -1)
        if not np.all(np.isfinite(values)):
            return True
        rising = values[0] < values[1]
        low, high = np.where(rising, left, low), np.where(rising, high, right)
    peak = (low + high) / 2
    distances = [-1e-7, 1e-7, -1e-3, 1e-3]
    around = np.abs(duals.probe(fn, (peak + np.array(distances)[:, None]).ravel()))
    near, far = around.reshape(2, 2, -1).max(axis=1)
    return bool(np.any(~np.isfinite(near) | (near > 60 * far + 1e-2)))


def is_finite(fn: Function, largest: float = 1e34) -> bool:
    """Whether a function of one variable has a second moment under a Gaussian."""
    points = [np.linspace(-9, 9, 1441), [-1e-300, 1e-300, -0.4371, 0.7913], [-30.0, 30.0]]
    out = duals.probe(fn, np.concatenate(points))
    tail = out[-2:]
    if np.any(np.abs(tail) > largest) or not np.all(np.isfinite(out)):
        return False
    return not is_singular(fn)


def bounded_on_lines(node: n.Mixed, *, derivative: bool) -> bool:
    """Whether a function of several fields, or its derivative, has a second moment.

    It is looked at along random lines, which meet a pole wherever it is: as a function of its
    operands, whatever they are, and if that is not enough of the Gaussian variables below.
    """
    own = lambda *x: node.function(*jnp.broadcast_arrays(*x))
    if _sound(own, [p.node for p in node.operands], _GENTLE, derivative=derivative):
        return True
    roots, values = below([node])

    def run(*numbers: Any) -> Any:
        done = {id(x): v for x, v in zip((*roots, *values), numbers, strict=True)}

        def of(x: n.Node) -> Any:
            if id(x) not in done:
                assert isinstance(x, n.Field)
                inner = isinstance(x, n.Copied)
                done[id(x)] = of(x.operand) if inner else computed(x, lambda p: of(p.node))
            return done[id(x)]

        return of(node)

    return _sound(run, [*roots, *values], _LARGEST, derivative=derivative)


def _sound(fn: Function, arguments: list[n.Node], largest: float, *, derivative: bool) -> bool:
    rng = np.random.default_rng(0)
    lines = [_line(fn, arguments, rng, through_zero=k == 0) for k in range(LINES)]
    if derivative:
        return not any(is_singular(lambda t, f=f: _slope(f, t)) for f in lines)
    return all(is_finite(f, largest) for f in lines)


def _slope(f: Function, t: Any) -> Any:
    return jax.vjp(f, t)[1](jnp.ones_like(t))[0]


def _line(
    fn: Function, arguments: list[n.Node], rng: np.random.Generator, *, through_zero: bool
) -> Function:
    """A function along a random line; known values that are no constants are near one.

    Norms and angles are singular at zero alone, which other lines pass by.
    """
    start, slope = [], []
    for x in arguments:
        if isinstance(x, n.Field):
            start.append(0.0 if through_zero else rng.normal())
            slope.append(rng.uniform(0.5, 1.5) * rng.choice([-1, 1]))
        else:
            known = x.array.ravel() if isinstance(x, n.Constant) else rng.uniform(0.6, 1.6, 1)
            start.append(rng.choice(known) if known.size else 0.0)
            slope.append(0.0)
    return lambda t: jnp.asarray(fn(*(a + b * t for a, b in zip(start, slope)))).astype(t.dtype)
