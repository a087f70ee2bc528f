"""Batches of inputs: what they must be, and the shape of one example."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def check_inputs(
    x1: PyTree, x2: PyTree | None = None, *, may_be_empty: bool = False
) -> tuple[PyTree, PyTree | None, PyTree]:
    """Inputs as arrays, and the shape of one example.

    Raises
    ------
    ValueError
        If there is no batch axis, the leaves disagree on it, the two batches hold examples of
        different shapes, or an input is not finite.
    """
    x1 = jax.tree.map(jnp.asarray, x1)
    first = example_of(x1, "x1", may_be_empty=may_be_empty)
    _finite(x1, "x1")
    if x2 is None:
        return x1, None, first
    x2 = jax.tree.map(jnp.asarray, x2)
    second = example_of(x2, "x2", may_be_empty=may_be_empty)
    if _described(first) != _described(second):
        msg = f"x1 holds examples of {first} and x2 of {second}; they must be alike"
        raise ValueError(msg)
    _finite(x2, "x2")
    return x1, x2, first


def _described(example: PyTree) -> Any:
    leaves, tree = jax.tree.flatten(example)
    return tree, [(s.shape, s.dtype) for s in leaves]


def _finite(x: PyTree, name: str) -> None:
    for leaf in jax.tree.leaves(x):
        known = not isinstance(leaf, jax.core.Tracer) and jnp.issubdtype(leaf.dtype, jnp.inexact)
        if known and not np.all(np.isfinite(np.asarray(leaf))):
            msg = f"{name} contains NaN or infinite values"
            raise ValueError(msg)


def example_of(x: PyTree, name: str = "the input", *, may_be_empty: bool = False) -> PyTree:
    """The shapes of one example of a batch."""
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
    if sizes == {0} and not may_be_empty:
        msg = f"{name} holds no examples"
        raise ValueError(msg)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)


def length(x: PyTree) -> int:
    """The number of examples."""
    return jax.tree.leaves(x)[0].shape[0]


def float_dtype(leaves: list[Any]) -> Any:
    """The floating type of the results for these inputs."""
    floats = [x.dtype for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.result_type(*floats) if floats else jnp.zeros(()).dtype
