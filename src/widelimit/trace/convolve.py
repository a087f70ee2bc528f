"""Convolutions: a parameter that walks over positions, or a known filter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from widelimit.graph.windows import Window
from widelimit.trace import joining
from widelimit.trace import structure as st
from widelimit.trace.along import as_position
from widelimit.trace.arrays import (
    Array,
    Concatenation,
    Operand,
    Parameter,
    Position,
    concrete,
    is_constant,
)
from widelimit.trace.reader import Reader, rule
from widelimit.trace.source import Dims, Taps, with_parameter


@rule("conv_general_dilated")
def convolution(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Convolutions of any layout, stride, padding, dilation and number of groups."""
    image, kernel = operands
    p = eqn.params
    numbers = p["dimension_numbers"]
    if p["batch_group_count"] != 1:
        raise r.unsupported(eqn.primitive.name, "the batch is divided into groups.")
    if isinstance(image, Parameter):
        raise r.unsupported(eqn.primitive.name, "its input is a parameter.")
    image = st.transpose(r.b, image, numbers.lhs_spec)  # (batch, channels, *positions)
    kernel = st.transpose(r.b, kernel, numbers.rhs_spec)  # (out, in of a group, *taps)
    windows = [
        Window(kernel.shape[2 + k], stride, low, high, spacing, dilation)
        for k, (stride, (low, high), spacing, dilation) in enumerate(
            zip(p["window_strides"], p["padding"], p["lhs_dilation"], p["rhs_dilation"])
        )
    ]
    groups = p["feature_group_count"]
    if isinstance(kernel, Parameter):
        out = _with_weights(r, image, kernel, windows, groups)
    elif is_constant(kernel) and isinstance(image, Array):
        out = _with_filter(r, image, concrete(kernel), windows, groups)  # type: ignore[arg-type]
    else:
        raise r.unsupported(eqn.primitive.name, "its kernel depends on the input or is random.")
    back = tuple(int(k) for k in np.argsort(numbers.out_spec))
    return [st.transpose(r.b, out, back)]


def _with_weights(
    r: Reader, image: Array | Concatenation, kernel: Parameter, windows: list[Window], groups: int
) -> Operand:
    """(batch, channels, *positions) and (out, in, *taps) -> (batch, out, *positions)."""
    spatial = len(windows)
    out, taps = kernel.shape[0], kernel.shape[2:]
    if groups == 1:
        image = _spread_out(r, image, 2, spatial)
        dims = Dims((1,), (1,), (), ())
        walks = tuple(Taps(2 + k, 2 + k, w) for k, w in enumerate(windows))
        found = with_parameter(
            r.b, r.leaves, kernel, image, dims, parameter_first=False, taps=walks
        )
        # (batch, *positions, out)
        return st.transpose(r.b, found, (0, spatial + 1, *range(1, spatial + 1)))
    batch, channels, *positions = image.shape
    image = st.reshape(r.b, image, (batch, groups, channels // groups, *positions))  # type: ignore[assignment]
    image = _spread_out(r, image, 3, spatial)
    weights = st.reshape(r.b, kernel, (groups, out // groups, kernel.shape[1], *taps))
    assert isinstance(weights, Parameter)
    dims = Dims((2,), (2,), (0,), (1,))
    walks = tuple(Taps(3 + k, 3 + k, w) for k, w in enumerate(windows))
    found = with_parameter(r.b, r.leaves, weights, image, dims, parameter_first=False, taps=walks)
    # (groups, batch, *positions, out of a group)
    order = (1, 0, spatial + 2, *range(2, spatial + 2))
    found = st.transpose(r.b, found, order)
    shape = found.shape
    return st.reshape(r.b, found, (batch, out, *shape[3:]))


def _spread_out(
    r: Reader, image: Array | Concatenation, first: int, count: int
) -> Array | Concatenation:
    """The spatial axes as one position axis each."""
    if isinstance(image, Concatenation):
        pieces = tuple(_spread_out(r, r.array(q), first, count) for q in image.pieces)
        if image.axis >= first:  # joined along positions: now that they are, one array
            return r.array(joining.concatenate(r.b, list(pieces), image.axis))
        return replace(image, pieces=pieces)  # type: ignore[arg-type]
    for axis in range(first, first + count):
        image = as_position(r, image, axis, "conv_general_dilated")
    return image


def _with_filter(
    r: Reader, image: Array, kernel: np.ndarray, windows: list[Window], groups: int
) -> Operand:
    """A known kernel, one for all channels: a linear map over positions, as in a blur.

    With several outputs for each channel, these are positions: the patches around each place.
    """
    batch, channels = image.shape[:2]
    several = len(kernel) // groups
    taps = kernel.reshape(groups, several, *kernel.shape[1:])
    if groups != channels or np.any(taps != taps[:1]):
        raise r.unsupported(
            "conv_general_dilated",
            "its kernel is known, and mixes channels or changes from channel to channel.",
        )
    for axis in range(2, 2 + len(windows)):
        image = as_position(r, image, axis, "conv_general_dilated")
    acted = tuple(x.axis for ax in image.axes[2:] for x in ax if isinstance(x, Position))
    shape = tuple(w.outputs(s) for w, s in zip(windows, image.shape[2:]))
    out = (several, *shape) if several > 1 else shape

    def run(block: Any) -> Any:
        found = jax.lax.conv_general_dilated(
            block[None, None],
            jnp.asarray(taps[0], block.dtype),
            [w.stride for w in windows],
            [(w.low, w.high) for w in windows],
            [w.spacing for w in windows],
            [w.dilation for w in windows],
        )
        return found.reshape(out)

    one_hot = np.sum(taps[0] != 0, axis=tuple(range(1, taps[0].ndim))) == 1
    selects = bool(np.all(one_hot) and np.all((taps[0] == 0) | (taps[0] == 1)))
    field = r.b.map(image.field, acted, out, run, selects=selects, name="filter")
    left = [k for k in range(len(image.node.shape)) if k not in acted]
    rename = {k: i for i, k in enumerate(left)}
    seen = lambda x: replace(x, axis=rename[x.axis]) if isinstance(x, Position) else x
    first, second = (tuple(seen(x) for x in ax) for ax in image.axes[:2])
    base = len(left) + (several > 1)
    own = (Position(len(left)),) if several > 1 else ()
    spatial = [(Position(base + k),) for k in range(len(windows))]
    found = Array(field, (first, (*second, *own), *spatial), image.average)
    assert found.shape == (batch, channels * several, *shape)
    return found
