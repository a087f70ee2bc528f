"""Losses of a whole batch of outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

Loss = Callable[[Any, Any], Any]


def squared(outputs: Array, y: Array) -> Array:
    """½ Σ |f(xᵢ) − yᵢ|², summed over examples and outputs, not averaged."""
    return jnp.sum((outputs - y) ** 2) / 2


def require_scalar(loss: Loss, outputs: Any, y: PyTree) -> None:
    """Check a loss on the shapes it will be given.

    Raises
    ------
    ValueError
        If it does not return one real number.
    """
    structs = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (outputs, y))
    found = jax.tree.leaves(jax.eval_shape(loss, *structs))
    single = len(found) == 1 and found[0].shape == ()
    if not (single and jnp.issubdtype(found[0].dtype, jnp.floating)):
        kinds = ", ".join(f"{f.dtype}{list(f.shape)}" for f in found)
        msg = (
            "the loss takes all outputs, shape (n, *out), and all targets, and returns one real "
            f"number; this one returns {kinds}: sum over the examples, or average"
        )
        raise ValueError(msg)


def checked_targets(y: PyTree, count: int, outputs: tuple[int, ...] | None) -> PyTree:
    """Targets as arrays, one row for each example; of the shape of the outputs if that is given.

    Raises
    ------
    ValueError
        If there are not as many as examples, a shape does not fit, or one is not finite.
    """
    y = jax.tree.map(lambda a: a if isinstance(a, jax.Array) else jnp.asarray(a), y)
    for leaf in jax.tree.leaves(y):
        if leaf.ndim == 0 or leaf.shape[0] != count:
            msg = f"x holds {count} examples and y has shape {leaf.shape}"
            raise ValueError(msg)
        known = not isinstance(leaf, jax.core.Tracer) and jnp.issubdtype(leaf.dtype, jnp.inexact)
        if known and not np.all(np.isfinite(np.asarray(leaf))):
            msg = "y contains NaN or infinite values"
            raise ValueError(msg)
    if outputs is not None:
        shapes = [leaf.shape for leaf in jax.tree.leaves(y)]
        if shapes != [(count, *outputs)]:
            msg = (
                f"the outputs have shape {(count, *outputs)} and y {', '.join(map(str, shapes))}; "
                "the squared loss needs a target for each output (for class labels give loss=, "
                "or one-hot targets)"
            )
            raise ValueError(msg)
    return y
