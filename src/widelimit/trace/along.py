"""Linear maps along one position axis after the other: pooling, padding, running sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from widelimit.graph.windows import Window, window_sum
from widelimit.trace.arrays import Array, Channel, Operand, Position, Repeat, concrete, is_constant
from widelimit.trace.reader import Reader, rule
from widelimit.trace.regroup import drop_position, spread_channel


def as_position(r: Reader, a: Array, axis: int, name: str) -> Array:
    """The array with one program axis as exactly one position axis."""
    size = a.shape[axis]
    if any(isinstance(x, Position) for x in a.axes[axis]):
        # Channels beside positions, as after a pixel shuffle, are positions from here on.
        while channels := [x for x in a.axes[axis] if isinstance(x, Channel)]:
            a = spread_channel(r.b, a, channels[0].axis, wide=False)
    atoms = a.axes[axis]
    if len(atoms) == 1 and isinstance(atoms[0], Position):
        return a
    positions = tuple(x.axis for x in atoms if isinstance(x, Position))
    if len(positions) + sum(isinstance(x, Repeat) for x in atoms) < len(atoms):
        raise r.unsupported(name, "it walks over a wide axis instead of over positions.")
    kept = [1 if isinstance(x, Repeat) else a.size(x) for x in atoms]
    full = [a.size(x) for x in atoms]

    def arrange(t: Any) -> Any:
        return jnp.broadcast_to(t.reshape(kept), full).reshape(size)

    node = r.b.select_any(a.node, positions, (size,), arrange, "arrange")
    left = [k for k in range(len(a.node.shape)) if k not in positions]
    rename = {k: i for i, k in enumerate(left)}
    axes = [
        tuple(replace(x, axis=rename[x.axis]) if isinstance(x, Position) else x for x in ax)
        if k != axis
        else (Position(len(left)),)
        for k, ax in enumerate(a.axes)
    ]
    return Array(node, tuple(axes), a.average)


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
