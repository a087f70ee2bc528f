"""A network as a pure function of its arrays, whatever their values were drawn from."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from widelimit.models._describe import called
from widelimit.priors._names import is_equinox, is_flax, leaves


@dataclass(frozen=True)
class Parts:
    """A network taken apart.

    Attributes
    ----------
    names
        A readable path for each parameter.
    values
        The parameters: all floating-point arrays.
    constants
        The other arrays, such as integers and random keys.
    apply
        (parameters, constants, one example) -> the network's output.
    fill
        (parameters, constants) -> a model, or pytree of parameters, like the one taken apart.
    key
        Equal for networks that differ in their arrays only; None where that cannot be told.
    """

    names: tuple[str, ...]
    values: tuple[Any, ...]
    constants: tuple[Any, ...]
    apply: Callable[[Any, Any, Any], Any]
    fill: Callable[[Any, Any], Any]
    key: Hashable | None


def parts(model: Any, params: Any = None) -> Parts:
    """Take a network apart, without asking for its prior.

    Takes what :func:`widelimit.describe` takes: ``f`` and ``params``, or a module.
    """
    holder, call = called(model, params)
    if is_flax(holder):
        from flax import nnx

        graph, state = nnx.split(holder)
        flat, tree = jax.tree_util.tree_flatten(state)
        rebuild = lambda full: nnx.merge(graph, jax.tree_util.tree_unflatten(tree, full))
        _, chosen, _ = nnx.split(holder, nnx.Param, ...)
        ours = {id(v) for v in jax.tree_util.tree_leaves(chosen)}
        is_parameter = lambda leaf: id(leaf) in ours and jnp.issubdtype(leaf.dtype, jnp.inexact)
        static: Any = (graph, tree)
    else:
        state_of = lambda n: isinstance(n, eqx.nn.StateIndex | eqx.nn.State)
        flat, tree = jax.tree_util.tree_flatten(holder, is_leaf=state_of)
        rebuild = lambda full: jax.tree_util.tree_unflatten(tree, full)
        numpy = not is_equinox(holder)
        kinds = (jax.Array, np.ndarray) if numpy else (jax.Array,)
        is_parameter = lambda leaf: isinstance(leaf, kinds) and jnp.issubdtype(
            leaf.dtype, jnp.inexact
        )
        static = tree
    flat = list(flat)
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in flat):
        msg = "the parameters are abstract; a finite network's kernel needs their values"
        raise ValueError(msg)
    where = [k for k, leaf in enumerate(flat) if is_parameter(leaf)]
    others = [
        k for k, leaf in enumerate(flat)
        if k not in where and isinstance(leaf, jax.Array | np.ndarray)
    ]
    fixed = [None if k in where or k in others else leaf for k, leaf in enumerate(flat)]

    def fill(values: Any, constants: Any) -> Any:
        full = list(fixed)
        for k, v in zip(where, values, strict=True):
            full[k] = v
        for k, v in zip(others, constants, strict=True):
            full[k] = v
        return rebuild(full)

    def apply(values: Any, constants: Any, x: Any) -> Any:
        return call(fill(values, constants), x)

    names = leaves(holder).names
    array = lambda v: v if isinstance(v, jax.Array) else jnp.asarray(v)
    values = tuple(array(flat[k]) for k in where)
    if len(names) != len(values):
        msg = f"{len(values)} parameters have {len(names)} names"
        raise RuntimeError(msg)
    rest = tuple((type(v), v) for v in fixed if v is not None)
    place = tuple(k for k in range(len(flat)) if fixed[k] is not None)
    key: Hashable | None = (call, static, place, rest, tuple(where), tuple(others))
    try:
        hash(key)
    except TypeError:
        key = None
    return Parts(names, values, tuple(flat[k] for k in others), apply, fill, key)
