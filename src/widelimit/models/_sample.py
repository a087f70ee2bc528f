"""Drawing finite networks from a description's prior."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from widelimit.models._describe import Description


def sample(description: Description, key: jax.Array, dtype: Any = None) -> list[jax.Array]:
    """Draw Gaussian parameters with the means and standard deviations of the priors.

    Returns one array per parameter, mean + std * Z with Z standard Gaussian, in ``dtype`` or in
    the dtype of each parameter; constants are filled in. ``description.apply(arrays, x)`` is
    then a random finite network.
    """
    keys = jax.random.split(key, max(len(description.arrays), 1))
    out = []
    for k, array, prior in zip(keys, description.arrays, description.priors):
        kind = jnp.dtype(array.dtype if dtype is None else dtype)
        mean, std = jnp.asarray(prior.mean, kind), jnp.asarray(prior.std, kind)
        if isinstance(prior.std, int | float) and prior.std == 0:
            out.append(jnp.full(array.shape, mean, kind))
        else:
            out.append(mean + std * jax.random.normal(k, array.shape, kind))
    return out
