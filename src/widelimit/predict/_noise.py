"""Variances of the observation noise: one number, or one for each row, each output, or both."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def noise_variance(
    noise: Any, count: int, outputs: int, dtype: Any
) -> Float[Array, "rows columns"]:
    """Noise as an array of rows (1 or ``count``) and columns (1 or ``outputs``).

    Raises
    ------
    ValueError
        If a variance is negative or not finite, or the shape is none of (), (n,), (1, outputs),
        (n, 1), (n, outputs).
    """
    noise = noise if isinstance(noise, jax.Array) else np.asarray(noise)
    shape = noise.shape
    fits = (
        shape in ((), (count,))
        or (len(shape) == 2 and shape[0] in (1, count) and shape[1] in (1, outputs))
    )
    if not fits:
        msg = (
            f"noise has shape {shape}; it must be one number, or have shape ({count},) for one "
            f"variance per row, (1, {outputs}) per output, or ({count}, {outputs}) for both"
        )
        raise ValueError(msg)
    if not isinstance(noise, jax.core.Tracer):
        values = np.asarray(noise, float)
        if not np.all(np.isfinite(values) & (values >= 0)):
            worst = values.ravel()[np.argmin(np.isfinite(values) & (values >= 0))]
            msg = f"noise is a variance, at least 0 and finite; got {worst}"
            raise ValueError(msg)
    noise = jnp.asarray(noise, dtype)
    return noise if noise.ndim == 2 else noise.reshape(-1, 1)
