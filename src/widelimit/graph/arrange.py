"""Numbers of a node moved to the axes of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def in_axes(array: Any, dims: tuple[int, ...], rank: int) -> Any:
    """An array whose axis k is axis ``dims[k]`` of ``rank`` axes; the others have size one."""
    xp = np if isinstance(array, np.ndarray) else jnp
    wide = [1] * rank
    for k, d in enumerate(dims):
        wide[d] = array.shape[k]
    order = sorted(range(len(dims)), key=lambda k: dims[k])
    return xp.reshape(xp.transpose(array, order), wide)


def over_axes(function: Callable[..., Any], rank: int, acted: tuple[int, ...]) -> Callable:
    """``function`` on the acted axes of one array; the other axes come first in the result."""
    untouched = tuple(k for k in range(rank) if k not in acted)

    def apply(array: Any, *values: Any) -> Any:
        moved = jnp.transpose(array, (*untouched, *acted))
        call = lambda block: function(block, *values)
        for _ in untouched:
            call = jax.vmap(call)
        return call(moved)

    return apply
