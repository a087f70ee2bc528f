"""Small helpers for custom derivative rules."""

import jax
import jax.numpy as jnp


def is_zero(tangent):
    """Whether a tangent is symbolically zero."""
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero) or (
        getattr(tangent, "dtype", None) == jax.dtypes.float0
    )


def instantiate(tangent, like):
    """Broadcast a tangent to the shape and dtype of its primal."""
    return jnp.broadcast_to(tangent, like.shape).astype(like.dtype)
