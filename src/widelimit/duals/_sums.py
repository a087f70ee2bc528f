"""Small helpers for tracers and for custom derivative rules."""

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


def is_traced(*trees):
    """Whether some array is still a tracer; if none is, programs can be run piece by piece."""
    return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(trees))
