"""Batches of inputs: what they must be, and the shape of one example."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def batches(x1: PyTree, x2: PyTree | None) -> tuple[PyTree, PyTree | None, PyTree]:
    """Inputs as arrays, and the shape of one example; batches may be empty.

    Raises
    ------
    ValueError
        If there is no batch axis, the leaves disagree on it, the two batches hold examples of
        different shapes, or an input is not finite.
    """
    x1 = jax.tree.map(_array, x1)
    first = _example(x1, "x1")
    if x2 is not None:
        x2 = jax.tree.map(_array, x2)
        if _described(_example(x2, "x2")) != _described(first):
            msg = f"x1 holds examples of {first} and x2 of {_example(x2, 'x2')}; they must be alike"
            raise ValueError(msg)
    return x1, x2, first


def _array(a: Any) -> Any:
    return a if isinstance(a, jax.Array) else jnp.asarray(a)


def _described(example: Any) -> Any:
    leaves, tree = jax.tree.flatten(example)
    return tree, [(s.shape, s.dtype) for s in leaves]


def _example(x: PyTree, name: str) -> PyTree:
    leaves = jax.tree.leaves(x)
    if not leaves:
        msg = f"{name} holds no arrays"
        raise ValueError(msg)
    if any(leaf.ndim == 0 for leaf in leaves):
        msg = f"{name} needs a batch axis: shape (n, *shape_of_one_example)"
        raise ValueError(msg)
    sizes = {leaf.shape[0] for leaf in leaves}
    if len(sizes) > 1:
        msg = f"the leaves of {name} disagree on the number of examples: {sorted(sizes)}"
        raise ValueError(msg)
    for leaf in leaves:
        known = not isinstance(leaf, jax.core.Tracer) and jnp.issubdtype(leaf.dtype, jnp.inexact)
        if known and not np.all(np.isfinite(np.asarray(leaf))):
            msg = f"{name} contains NaN or infinite values"
            raise ValueError(msg)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)


def length(x: Any) -> int:
    """The number of examples."""
    return jax.tree.leaves(x)[0].shape[0]
