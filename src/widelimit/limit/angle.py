"""Kernels that are a series in the angle of two inputs, for all pairs of two batches."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jax.lax import dynamic_update_slice, optimization_barrier

from widelimit.duals import arccos_of_one_minus
from widelimit.limit.differences import CLOSE, squared_distances

STRIPS, STRIP = 6, 256
"""Of how many strips a symmetric product is made, at most, and their rows, at least."""


def kernels(
    coefficients: Any,
    left: Any,
    right: Any,
    real: Any,
    *,
    degrees: tuple[int, ...],
    powers: bool,
    careful: bool,
) -> tuple[list[Any], Any, Any]:
    """The kernels of all pairs of rows; whether some are near each other, or opposite.

    There an angle from a product has half the digits. ``careful`` takes it from the difference of
    near ones. ``powers`` says that the coefficients are those of powers of 2θ/π - 1, and not of
    Chebyshev polynomials; ``real`` how many rows on each side count.
    """
    symmetric = right is None
    left, lengths = _directions(left, real[0])
    right, others = (left, lengths) if symmetric else _directions(right, real[1])
    cosine = _squared(left) if symmetric else left @ right.T
    if symmetric:
        on = jnp.arange(len(left))
        apart = cosine.at[on, on].set(0)
    else:
        apart = cosine
    # Plain reductions: the compiler has fast ones.
    close = 1 - CLOSE[cosine.dtype.itemsize]
    near, opposite = jnp.max(apart) > close, jnp.min(apart) < -close
    if symmetric:
        cosine = apart.at[on, on].set(1)
    cosine = jnp.clip(cosine, -1, 1)
    gap = 1 - jnp.abs(cosine)
    if careful:
        exact = squared_distances(left, right, symmetric=symmetric) / 2
        gap = jnp.where(cosine > close, exact, gap)
    angle = 2 / math.pi * arccos_of_one_minus(gap)
    # Computed once, for all kernels.
    x = optimization_barrier(jnp.where(cosine < 0, 1 - angle, angle - 1))
    product = lengths * others.T
    series = _horner if powers else _clenshaw
    found = [series(c, x) * product**p for c, p in zip(coefficients, degrees, strict=True)]
    return found, near, opposite


def _directions(x: Any, real: Any) -> tuple[Any, Any]:
    """Rows of length one, and their lengths; zeros for rows that do not count."""
    lengths = jnp.sqrt(jnp.sum(x * x, 1, keepdims=True))
    counts = (jnp.arange(len(x)) < real)[:, None]
    return jnp.where(counts, x / lengths, 0), lengths


def _squared(x: Any) -> Any:
    """The product x xᵀ, of which little more than half is multiplied out."""
    n = len(x)
    size = max(-(-n // STRIPS), STRIP)
    if size >= n:
        return x @ x.T
    out = jnp.zeros((n, n), x.dtype)
    for start in range(0, n, size):
        stop = min(start + size, n)
        strip = x[start:stop] @ x[start:].T
        out = dynamic_update_slice(out, strip, (start, start))
        if stop < n:
            # A transposition within an update would go entry by entry.
            mirror = optimization_barrier(strip[:, stop - start :].T)
            out = dynamic_update_slice(out, mirror, (stop, start))
    return out


def _numbers(coefficients: Any) -> list[Any]:
    # Numbers of their own: cut out of the array they would be loaded for every entry.
    return optimization_barrier([coefficients[k] for k in range(len(coefficients))])


def _horner(coefficients: Any, x: Any) -> Any:
    """Σ_k c_k x^k, odd and even powers side by side."""
    numbers = _numbers(coefficients)
    square = x * x
    even, odd = jnp.zeros_like(x), jnp.zeros_like(x)
    for c in reversed(numbers[0::2]):
        even = even * square + c
    for c in reversed(numbers[1::2]):
        odd = odd * square + c
    return odd * x + even


def _clenshaw(coefficients: Any, x: Any) -> Any:
    """Σ_k c_k T_k(x)."""
    last, *rest = _numbers(coefficients)
    first = second = jnp.zeros_like(x)
    twice = 2 * x
    for c in reversed(rest):
        first, second = twice * first + (c - second), first
    return x * first + (last - second)
