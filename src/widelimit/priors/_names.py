"""The named parameter arrays of a model, whichever library it was written with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Leaves:
    """The parameters of a model and the way back.

    Attributes
    ----------
    names
        A readable path for each parameter, such as ``layers[0].weight``.
    values
        The arrays (or abstract arrays).
    rebuild
        Puts other arrays in their place and returns a model.
    library
        ``"equinox"``, ``"flax"`` or ``"params"`` for a plain pytree.
    """

    names: tuple[str, ...]
    values: tuple[Any, ...]
    rebuild: Callable[[Sequence[Any]], Any]
    library: str

    def keep(self, chosen: Sequence[bool]) -> Leaves:
        """Some of the parameters; the others become part of the model as they are."""
        if all(chosen):
            return self
        missing = [
            name for name, value, kept in zip(self.names, self.values, chosen)
            if not kept and isinstance(value, jax.ShapeDtypeStruct)
        ]
        if missing:
            msg = f"{missing[0]} is fixed, so it needs its values"
            raise ValueError(msg)

        def rebuild(arrays: Sequence[Any]) -> Any:
            rest = iter(arrays)
            full = [next(rest) if kept else v for v, kept in zip(self.values, chosen)]
            return self.rebuild(full)

        names, values = (
            tuple(v for v, kept in zip(of, chosen) if kept) for of in (self.names, self.values)
        )
        return Leaves(names, values, rebuild, self.library)


def leaves(model: Any) -> Leaves:
    """Find the parameters of a model: every floating-point array that it holds.

    In a plain pytree NumPy arrays and abstract arrays count as well. Integers, booleans, random
    keys, Python numbers, functions, and the state of stateful layers are constants.
    """
    if is_flax(model):
        return _flax(model)
    module = is_equinox(model)
    is_state = lambda node: isinstance(node, eqx.nn.StateIndex | eqx.nn.State)
    flat, treedef = jax.tree_util.tree_flatten_with_path(model, is_leaf=is_state)
    where = [i for i, (_, leaf) in enumerate(flat) if _is_parameter(leaf, numpy=not module)]

    def rebuild(arrays: Sequence[Any]) -> Any:
        full = [leaf for _, leaf in flat]
        for i, array in zip(where, arrays, strict=True):
            full[i] = array
        return jax.tree_util.tree_unflatten(treedef, full)

    return Leaves(
        names=tuple(path_name(flat[i][0]) for i in where),
        values=tuple(flat[i][1] for i in where),
        rebuild=rebuild,
        library="equinox" if module else "params",
    )


def is_equinox(model: Any) -> bool:
    """Whether a model is an Equinox module, or a partial application over one."""
    return isinstance(model, eqx.Module | jax.tree_util.Partial)


def is_flax(model: Any) -> bool:
    """Whether a model is a Flax NNX module; does not import Flax."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(model, nnx.Module)


def path_name(path: Sequence[Any]) -> str:
    """A path of keys as Python would write it."""
    name = ""
    for key in path:
        if isinstance(key, jax.tree_util.GetAttrKey):
            name += f".{key.name}"
        elif isinstance(key, jax.tree_util.DictKey) and isinstance(key.key, str):
            name += f".{key.key}" if key.key.isidentifier() else f"[{key.key!r}]"
        else:
            index = getattr(key, "key", getattr(key, "idx", key))
            name += f"[{index}]"
    return name.removeprefix(".") or "params"


def struct(value: Any) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array."""
    return jax.ShapeDtypeStruct(value.shape, value.dtype)


def _is_parameter(leaf: Any, *, numpy: bool) -> bool:
    kinds = (jax.Array, jax.ShapeDtypeStruct) + ((np.ndarray,) if numpy else ())
    return isinstance(leaf, kinds) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _flax(model: Any) -> Leaves:
    from flax import nnx

    graph, params, rest = nnx.split(model, nnx.Param, ...)
    flat, treedef = jax.tree_util.tree_flatten_with_path(params)
    where = [i for i, (_, leaf) in enumerate(flat) if _is_parameter(leaf, numpy=True)]

    def rebuild(arrays: Sequence[Any]) -> Any:
        full = [leaf for _, leaf in flat]
        for i, array in zip(where, arrays, strict=True):
            full[i] = array
        # Copied, so that counters of random numbers may count while JAX traces.
        others = jax.tree_util.tree_map(lambda v: v, rest)
        return nnx.merge(graph, jax.tree_util.tree_unflatten(treedef, full), others)

    # The last step of a path is from the variable to its value.
    return Leaves(
        names=tuple(path_name(flat[i][0][:-1]) for i in where),
        values=tuple(flat[i][1] for i in where),
        rebuild=rebuild,
        library="flax",
    )
