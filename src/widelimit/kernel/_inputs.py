"""Batches of inputs: what they must be, and the shape of one example."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def check_inputs(x1: PyTree, x2: PyTree | None) -> tuple[PyTree, PyTree | None, PyTree]:
    """Inputs as arrays, and the shape of one example.

    Raises
    ------
    ValueError
        If there is no batch axis, the leaves disagree on it, the two batches hold examples of
        different shapes, or an input is not finite.
    """
    x1 = jax.tree.map(jnp.asarray, x1)
    first = example_of(x1)
    if x2 is not None:
        x2 = jax.tree.map(jnp.asarray, x2)
        second = example_of(x2)
        shapes = lambda e: [(s.shape, s.dtype) for s in jax.tree.leaves(e)]
        if jax.tree.structure(first) != jax.tree.structure(second) or shapes(first) != shapes(
            second
        ):
            msg = f"x1 holds examples of {first} and x2 of {second}; they must be alike"
            raise ValueError(msg)
    for name, x in (("x1", x1), ("x2", x2)):
        for leaf in jax.tree.leaves(x):
            if isinstance(leaf, jax.core.Tracer) or not jnp.issubdtype(leaf.dtype, jnp.floating):
                continue
            if not np.all(np.isfinite(np.asarray(leaf))):
                msg = f"{name} contains NaN or infinite values"
                raise ValueError(msg)
    return x1, x2, first


def example_of(x: PyTree) -> PyTree:
    """The shapes of one example of a batch."""
    leaves = jax.tree.leaves(x)
    if not leaves:
        msg = "the input is empty"
        raise ValueError(msg)
    if any(leaf.ndim == 0 for leaf in leaves):
        msg = "inputs need a batch axis: shape (n, *shape_of_one_example)"
        raise ValueError(msg)
    sizes = {leaf.shape[0] for leaf in leaves}
    if len(sizes) > 1:
        msg = f"the leaves of the input disagree on the number of examples: {sorted(sizes)}"
        raise ValueError(msg)
    if sizes == {0}:
        msg = "the input holds no examples"
        raise ValueError(msg)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)


def float_dtype(leaves: list[Any]) -> Any:
    """The floating type of the results for these inputs."""
    floats = [x.dtype for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.result_type(*floats) if floats else jnp.zeros(()).dtype
