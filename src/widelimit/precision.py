"""Double precision for a while, whatever the process is set to."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager

import jax


def double_precision() -> AbstractContextManager[None]:
    """A context in which JAX computes in float64; the global setting is left as it is."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    # Where JAX had it before 0.8.
    return importlib.import_module("jax.experimental").enable_x64(True)
