"""Times: what they must be, and one result for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from widelimit.dynamics._method import Method


def checked(t: Any, dtype: Any, chosen: Method) -> Array:
    """A number or shape (times,).

    Raises
    ------
    ValueError
        If there are more axes, a time is negative or not a number, or is no whole number of steps
        where the method takes steps.
    """
    t = t if isinstance(t, jax.Array) else np.asarray(t, float)
    if t.ndim > 1:
        msg = f"t is a number or has shape (times,), got shape {t.shape}"
        raise ValueError(msg)
    if not isinstance(t, jax.core.Tracer):
        known = np.asarray(t, float)
        if not np.all(known >= 0):
            msg = f"times are at least 0, up to infinity; got {t}"
            raise ValueError(msg)
        finite = known[np.isfinite(known)]
        if chosen.discrete and np.any(finite != np.floor(finite)):
            msg = f"times of {chosen.name} are whole numbers of steps, got {t}"
            raise ValueError(msg)
        most = 2.0 ** (jnp.finfo(dtype).nmant + 1)
        if chosen.discrete and np.any(finite > most):
            msg = f"beyond {most:.0f} steps {jnp.dtype(dtype).name} cannot count them, got {t}"
            raise ValueError(msg)
    return jnp.asarray(t, dtype)


def over(t: Array, work: Callable[[Array], Any]) -> Any:
    """``work`` at one time, or at each of several."""
    return jax.lax.map(work, t) if t.ndim else work(t)
