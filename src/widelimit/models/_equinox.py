"""Reading Equinox modules: the documented initialisation of every layer class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from widelimit.errors import BatchStatisticsError, RandomnessError, WideLimitError
from widelimit.models._origin import Origin, constant, uniform, unknown
from widelimit.priors import STANDARD_NORMAL, Prior, as_prior
from widelimit.priors._names import path_name

PROTOCOL = "__widelimit_prior__"

# Bounds and constants as documented in, and checked against, Equinox 0.13. Fields by layer.


def _dense(fan_in: int) -> dict[str, Origin]:
    limit = 1.0 if fan_in == 0 else 1 / math.sqrt(fan_in)
    return {"weight": uniform(limit), "bias": uniform(limit)}


def _linear(layer: eqx.nn.Linear) -> dict[str, Origin]:
    return _dense(1 if layer.in_features == "scalar" else layer.in_features)


def _conv(layer: eqx.nn.Conv | eqx.nn.ConvTranspose) -> dict[str, Origin]:
    return _dense((layer.in_channels // layer.groups) * math.prod(layer.kernel_size))


def _recurrent(layer: eqx.nn.GRUCell | eqx.nn.LSTMCell) -> dict[str, Origin]:
    limit = math.sqrt(1 / layer.hidden_size)
    return {name: uniform(limit) for name in ("weight_ih", "weight_hh", "bias", "bias_n")}


def _affine(_: Any) -> dict[str, Origin]:
    return {"weight": constant(1.0), "bias": constant(0.0)}


def _embedding(_: Any) -> dict[str, Origin]:
    return {"weight": Origin(STANDARD_NORMAL)}


def _prelu(layer: eqx.nn.PReLU) -> dict[str, Origin]:
    slope = layer.negative_slope
    if not hasattr(slope, "__array__"):
        return {"negative_slope": unknown("its initial value is not stored in an abstract module")}
    values = np.unique(np.asarray(slope, float))
    if values.size != 1:
        return {"negative_slope": unknown("its slopes differ from one another")}
    return {"negative_slope": constant(float(values[0]))}


def _weight_norm(_: Any) -> dict[str, Origin]:
    return {"g": unknown("weight normalisation starts it at the norms of another random array")}


def _spectral_norm(_: Any) -> dict[str, Origin]:
    reason = "spectral normalisation divides it by its own largest singular value"
    return {"layer": unknown(reason)}


_LAYERS: tuple[tuple[Any, Callable[[Any], dict[str, Origin]]], ...] = (
    (eqx.nn.Linear, _linear),
    (eqx.nn.Conv, _conv),
    (eqx.nn.ConvTranspose, _conv),
    (eqx.nn.GRUCell, _recurrent),
    (eqx.nn.LSTMCell, _recurrent),
    (eqx.nn.LayerNorm, _affine),
    (eqx.nn.RMSNorm, _affine),
    (eqx.nn.GroupNorm, _affine),
    (eqx.nn.BatchNorm, _affine),
    (eqx.nn.Embedding, _embedding),
    (eqx.nn.PReLU, _prelu),
    (eqx.nn.WeightNorm, _weight_norm),
    (eqx.nn.SpectralNorm, _spectral_norm),
)


def origins(model: Any) -> dict[str, Origin]:
    """Where each parameter of a model comes from, by name.

    Arrays in plain containers outside any module are standard Gaussian. A module states its own
    priors with a method ``__widelimit_prior__`` that returns a mapping from field to Prior, for
    everything in that field.
    """
    return dict(_walk(model, (), Origin(STANDARD_NORMAL, stated=True), False))


def _walk(node: Any, path: tuple[Any, ...], origin: Origin, settled: bool) -> Iterator:
    """Names and origins below a node; ``settled`` when a module above has answered for it."""
    if isinstance(node, eqx.nn.StateIndex | eqx.nn.State):
        return
    fields: Mapping[str, Origin] = {}
    if isinstance(node, eqx.Module) and not settled:
        fields = _fields(node)
        kind = type(node).__name__
        origin = unknown(f"{kind} holds this array itself, and does not say how it is made")
    children, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda n: n is not node)
    for step, child in children:
        if not step:
            yield path_name(path), origin
            continue
        own = fields.get(getattr(step[-1], "name", ""))
        below = origin if own is None else own
        yield from _walk(child, (*path, *step), below, settled or own is not None)


def _fields(module: eqx.Module) -> Mapping[str, Origin]:
    own = getattr(module, PROTOCOL, None)
    if own is not None:
        return {name: Origin(_stated(name, p), stated=True) for name, p in own().items()}
    for kind, read in _LAYERS:
        if isinstance(module, kind):
            return read(module)
    return {}


def _stated(name: str, value: Any) -> Prior | str:
    prior = as_prior(value)
    if prior is None:
        msg = f"{PROTOCOL} states {value!r} for {name}: neither a prior nor a standard deviation"
        raise ValueError(msg)
    return prior


def require_deterministic(model: Any) -> None:
    """Refuse layers that draw random numbers or look at the rest of the batch."""
    for path, layer in modules(model):
        name = path_name(path) if path else "the model"
        if isinstance(layer, eqx.nn.BatchNorm) and not layer.inference:
            msg = f"{name} is an eqx.nn.BatchNorm in training mode"
            raise BatchStatisticsError(
                msg,
                why="It normalises one example by statistics of the whole batch.",
                remedy="use eqx.nn.inference_mode(model) and pass (model, state), or use "
                "eqx.nn.LayerNorm",
            )
        rate = getattr(layer, "p", None)
        off = isinstance(rate, int | float) and rate == 0
        if isinstance(layer, eqx.nn.Dropout) and not layer.inference and not off:
            msg = f"{name} is an eqx.nn.Dropout in training mode"
            raise RandomnessError(
                msg,
                why="It multiplies by random numbers that are not parameters.",
                remedy="use eqx.nn.inference_mode(model)",
            )


def require_state(model: Any, state: Any) -> None:
    """Refuse a stateful model that comes without its state."""
    if state is not None:
        return
    is_index = lambda node: isinstance(node, eqx.nn.StateIndex)
    flat, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=is_index)
    for path, leaf in flat:
        if is_index(leaf):
            msg = f"{path_name(path)} is part of a stateful model"
            raise WideLimitError(
                msg,
                why="The model is called as model(x, state), and no state was given.",
                remedy="pass the pair (model, state) that eqx.nn.make_with_state returns",
            )


def modules(model: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every module in a model, with its path."""
    if isinstance(model, eqx.Module):
        yield path, model
    children, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=lambda n: n is not model)
    for step, child in children:
        if step:
            yield from modules(child, (*path, *step))
