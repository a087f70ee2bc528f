"""Linear maps along one position axis after the other: pooling, padding, running sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend.core import JaxprEqn

from widelimit.graph.windows import Window, window_sum
from widelimit.trace.arrays import Array, Operand, Position, concrete, is_constant
from widelimit.trace.reader import Reader, rule
from widelimit.trace.regroup import drop_position, one_position


def as_position(r: Reader, a: Array, axis: int, name: str) -> Array:
    """The array with one program axis as exactly one position axis."""
    found = one_position(r.b, a, axis)
    if found is None:
        raise r.unsupported(name, "it walks over a wide axis instead of over positions.")
    return found


def mapped(
    r: Reader, a: Array, axis: int, size: int, along: Callable[[Any, int], Any], *,
    selects: bool = False, name: str,
) -> Array:
    """A linear map of one program axis, which has to be one of positions."""
    a = as_position(r, a, axis, name)
    (atom,) = a.axes[axis]
    assert isinstance(atom, Position)
    field = r.b.map(
        a.field, (atom.axis,), (size,), lambda t: along(t, 0), selects=selects, name=name,
        along=along,
    )
    axes = list(drop_position(a.axes, atom.axis))
    axes[axis] = (Position(len(field.shape) - 1, atom.wide),)
    return Array(field, tuple(axes), a.average)


@rule("reduce_window_sum")
def pooling(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Sums over windows, one axis after the other."""
    a = r.array(operands[0])
    p = eqn.params
    for axis, (size, stride, (low, high), spacing, dilation) in enumerate(
        zip(
            p["window_dimensions"], p["window_strides"], p["padding"], p["base_dilation"],
            p["window_dilation"],
        )
    ):
        window = Window(size, stride, low, high, spacing, dilation)
        if window.trivial:
            continue
        along = lambda t, k, w=window: window_sum(t, (k,), (w,))
        count = window.outputs(a.shape[axis])
        a = mapped(r, a, axis, count, along, selects=size == 1, name="sum pooling")
    return [a]


@rule("pad")
def pad(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Zeros around positions and between them, or positions cut off."""
    a, fill = r.array(operands[0]), operands[1]
    if not is_constant(fill) or np.any(concrete(fill) != 0):  # type: ignore[arg-type]
        raise r.unsupported("pad", "only padding with zeros keeps the limit linear.")
    for axis, (low, high, inner) in enumerate(eqn.params["padding_config"]):
        if (low, high, inner) == (0, 0, 0):
            continue
        window = Window(1, low=low, high=high, spacing=inner + 1)
        along = lambda t, k, w=window: window_sum(t, (k,), (w,))
        count = window.outputs(a.shape[axis])
        a = mapped(r, a, axis, count, along, selects=True, name="pad")
    return [a]


@rule("cumsum")
def cumulative_sum(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Running sums over positions."""
    a, axis, reverse = r.array(operands[0]), eqn.params["axis"], eqn.params["reverse"]
    along = lambda t, k: jax.lax.cumsum(t, axis=k, reverse=reverse)
    return [mapped(r, a, axis, a.shape[axis], along, name="cumsum")]
