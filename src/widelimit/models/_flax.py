"""Reading Flax NNX modules: the initializers their layers were made with."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.errors import BatchStatisticsError, RandomnessError, UnknownPriorError
from widelimit.models._origin import Origin, constant, unknown
from widelimit.priors import of_initializer_with_support
from widelimit.priors._names import path_name

# Layer: {variable: constructor argument that initializes it}.
_INITIALIZERS = {
    "Linear": {"kernel": "kernel_init", "bias": "bias_init"},
    "LinearGeneral": {"kernel": "kernel_init", "bias": "bias_init"},
    "Einsum": {"kernel": "kernel_init", "bias": "bias_init"},
    "Conv": {"kernel": "kernel_init", "bias": "bias_init"},
    "ConvTranspose": {"kernel": "kernel_init", "bias": "bias_init"},
    "Embed": {"embedding": "embedding_init"},
    "BatchNorm": {"scale": "scale_init", "bias": "bias_init"},
    "LayerNorm": {"scale": "scale_init", "bias": "bias_init"},
    "RMSNorm": {"scale": "scale_init"},
    "GroupNorm": {"scale": "scale_init", "bias": "bias_init"},
    "InstanceNorm": {"scale": "scale_init", "bias": "bias_init"},
    "LoRA": {"lora_a": "a_initializer", "lora_b": "b_initializer"},
}
# Recurrent cells initialize the layers that act on the hidden state in a way of their own.
_RECURRENT = {
    "LSTMCell": {"hi", "hf", "hg", "ho"},
    "OptimizedLSTMCell": {"dense_h"},
    "SimpleCell": {"dense_h"},
    "GRUCell": {"dense_h"},
}


def origins(model: Any) -> dict[str, Origin]:
    """Where each ``nnx.Param`` of a model comes from, by name.

    Uses the initializer that a layer carries. Recent versions of Flax do not keep it; then the
    default of the layer's constructor, subject to the array's values not contradicting it.
    """
    return {path_name(_keys(steps)): _origin(model, steps, value) for steps, value in _flat(model)}


def _flat(model: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    from flax import nnx

    flat, _ = jax.tree_util.tree_flatten_with_path(nnx.split(model, nnx.Param, ...)[1])
    for path, value in flat:
        if jnp.issubdtype(value.dtype, jnp.inexact):
            yield tuple(getattr(key, "key", key) for key in path[:-1]), value


def _keys(steps: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(jax.tree_util.DictKey(step) for step in steps)


def _origin(model: Any, steps: tuple[Any, ...], value: Any) -> Origin:
    from flax import nnx

    chain = [model]
    for step in steps[:-1]:
        chain.append(_child(chain[-1], step))
    owner, variable = chain[-1], steps[-1]
    if type(owner).__name__ == "PReLU" and variable == "negative_slope":
        return _fill(value)
    for kind, arguments in _INITIALIZERS.items():
        cls = getattr(nnx, kind, None)
        if cls is None or not isinstance(owner, cls) or variable not in arguments:
            continue
        parent = chain[-2] if len(chain) > 1 else None
        init, known = _initializer(owner, cls, arguments[variable], parent, steps)
        if init is None:
            return unknown(f"the layer was made without `{arguments[variable]}`")
        if not known and not hasattr(value, "__array__"):
            return unknown(
                f"this version of Flax does not keep `{arguments[variable]}`, and an abstract "
                "model has no values to check its default against"
            )
        shape = _made_shape(owner, kind, variable, tuple(value.shape))
        try:
            prior, support = of_initializer_with_support(init, shape, value.dtype)
        except UnknownPriorError as error:
            return unknown(f"`{arguments[variable]}` cannot be read ({error.why})")
        return Origin(prior, support=support)
    return unknown(f"{type(owner).__name__} holds this array itself")


def _initializer(
    owner: Any, cls: Any, argument: str, parent: Any, steps: tuple[Any, ...]
) -> tuple[Any, bool]:
    """The initializer of a variable, and whether the layer carries it."""
    carried = getattr(owner, argument, None)
    if carried is not None:
        return carried, True
    kind = type(parent).__name__
    if argument == "kernel_init" and len(steps) > 1 and steps[-2] in _RECURRENT.get(kind, ()):
        recurrent = "recurrent_kernel_init"
        carried = getattr(parent, recurrent, None)
        return (
            (carried, True) if carried is not None else (_default(type(parent), recurrent), False)
        )
    return _default(cls, argument), False


def _default(cls: Any, argument: str) -> Any:
    parameter = inspect.signature(cls.__init__).parameters.get(argument)
    return None if parameter is None or parameter.default is inspect._empty else parameter.default


def _made_shape(owner: Any, kind: str, variable: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that the constructor hands to the initializer."""
    if kind == "LinearGeneral":
        # Flattened to a matrix: batch and input axes together, then output axes.
        outputs = len(_tuple(owner.out_features))
        if variable == "bias":
            return (math.prod(shape),)
        axes = len(dict(owner.batch_axis)) + len(_tuple(owner.in_features)) + outputs
        shape = shape[len(shape) - axes :]
        return (math.prod(shape[:-outputs]), math.prod(shape[-outputs:]))
    ranks = {"Linear": 2, "Embed": 2, "LoRA": 2}
    if variable == "kernel" and hasattr(owner, "kernel_shape"):
        return tuple(owner.kernel_shape)
    if variable != "bias" and kind in ranks:
        # Layers stacked by nnx.vmap have further axes in front.
        return shape[-ranks[kind] :]
    return shape


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _fill(value: Any) -> Origin:
    values = np.unique(np.asarray(value, float)) if hasattr(value, "__array__") else np.empty(0)
    if values.size != 1:
        return unknown("its initial value is not one number")
    return constant(float(values[0]))


def _child(node: Any, step: Any) -> Any:
    if isinstance(step, str) and hasattr(node, step):
        return getattr(node, step)
    return node[step]


def require_deterministic(model: Any) -> None:
    """Refuse layers that draw random numbers or look at the rest of the batch."""
    from flax import nnx

    for path, layer in nnx.iter_graph(model):
        name = path_name(_keys(path)) if path else "the model"
        if isinstance(layer, nnx.BatchNorm) and not layer.use_running_average:
            msg = f"{name} is an nnx.BatchNorm in training mode"
            raise BatchStatisticsError(
                msg,
                why="It normalises one example by statistics of the whole batch.",
                remedy="call model.eval() first, so that the stored statistics are used, or use "
                "nnx.LayerNorm",
            )
        if isinstance(layer, nnx.Dropout):
            rate = layer.rate
        elif isinstance(layer, nnx.MultiHeadAttention):
            rate = layer.dropout_rate
        else:
            continue
        if rate and not layer.deterministic:
            msg = f"{name} applies dropout in training mode"
            raise RandomnessError(
                msg,
                why="It multiplies by random numbers that are not parameters.",
                remedy="call model.eval() first",
            )
