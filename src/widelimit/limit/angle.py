"""Kernels that are a series in the angle of two inputs, for all pairs of two batches."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jax.lax import optimization_barrier

from widelimit.duals import arccos_of_one_minus
from widelimit.limit.differences import CLOSE, squared_distances


def kernels(
    coefficients: Any, left: Any, right: Any, real: Any, *, degrees: tuple[int, ...], careful: bool
) -> tuple[list[Any], Any, Any]:
    """The kernels of all pairs of rows; whether some are near each other, or opposite.

    There an angle from a product has half the digits. ``careful`` takes it from the difference of
    near ones.
    """
    symmetric = right is None
    left, lengths = _directions(left)
    right, others = (left, lengths) if symmetric else _directions(right)
    cosine = jnp.clip(left @ right.T, -1, 1)
    if symmetric:
        on = jnp.eye(len(left), dtype=bool)
        cosine = jnp.where(on, 1, cosine)
    gap = 1 - jnp.abs(cosine)
    lost = gap < CLOSE[cosine.dtype.itemsize]
    near, opposite = lost & (cosine > 0), jnp.any(lost & (cosine < 0))
    if careful:
        gap = jnp.where(near, squared_distances(left, right, symmetric=symmetric) / 2, gap)
    angle = 2 / math.pi * arccos_of_one_minus(gap)
    x = jnp.where(cosine < 0, 1 - angle, angle - 1)
    near = near & (jnp.arange(len(left)) < real[0])[:, None]
    near = near & (jnp.arange(len(right)) < real[1])[None, :]
    if symmetric:
        near = near & ~on
    product = lengths * others.T
    found = [_clenshaw(c, x) * product**p for c, p in zip(coefficients, degrees, strict=True)]
    return found, jnp.any(near), opposite


def _directions(x: Any) -> tuple[Any, Any]:
    lengths = jnp.sqrt(jnp.sum(x * x, 1, keepdims=True))
    return x / lengths, lengths


def _clenshaw(coefficients: Any, x: Any) -> Any:
    """Σ_k c_k T_k(x)."""
    # Numbers of their own: cut out of the array they would be loaded for every entry.
    last, *rest = optimization_barrier([coefficients[k] for k in range(len(coefficients))])
    first = second = jnp.zeros_like(x)
    twice = 2 * x
    for c in reversed(rest):
        first, second = twice * first + (c - second), first
    return x * first + (last - second)
