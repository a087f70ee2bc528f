"""Indexing: look-ups in a table of parameters, choices of positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from widelimit.trace import structure as st
from widelimit.trace.along import as_position
from widelimit.trace.arrays import (
    Array,
    Atom,
    Operand,
    Parameter,
    Position,
    concrete,
    is_constant,
    known_shaped,
    materialise,
)
from widelimit.trace.pointwise import elementwise
from widelimit.trace.reader import Reader, rule
from widelimit.trace.regroup import squeezed
from widelimit.trace.source import Dims, with_parameter


@rule("dynamic_slice", "gather")
def index(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Indexing with indices known while reading, or computed from the input."""
    a, *starts = operands
    if not all(is_constant(s) for s in starts):
        return [_by_value(r, eqn, a, starts)]
    numbers = [concrete(s) for s in starts]  # type: ignore[arg-type]

    def move(flat: np.ndarray) -> Any:
        parameters = dict(eqn.params)
        if "fill_value" in parameters:
            parameters["fill_value"] = -1  # marks entries outside the array
        return eqn.primitive.bind(jnp.asarray(flat), *map(jnp.asarray, numbers), **parameters)

    moved = st.by_index(r.b, a, move, tuple(eqn.outvars[0].aval.shape))
    if moved is None:
        raise r.unsupported(eqn.primitive.name, "the index is not a choice along single axes.")
    return [moved]


def _by_value(r: Reader, eqn: JaxprEqn, a: Operand, starts: list[Operand]) -> Operand:
    """Rows of ``a`` chosen by integers that depend on the input."""
    found = _which_rows(r, eqn, starts)
    if found is None:
        raise r.unsupported(
            eqn.primitive.name,
            "the index depends on the input and is no choice of whole rows, or it is random.",
        )
    fill = eqn.params.get("fill_value")
    zero = fill is not None and fill == 0
    if not (zero or fill is None or np.isnan(fill)):
        raise r.unsupported(
            eqn.primitive.name, "places outside of the array get a value other than 0 or NaN."
        )
    axis, numbers, offsets = found
    clips = eqn.primitive.name == "dynamic_slice" or "clip" in str(eqn.params["mode"]).lower()
    clips = clips or zero
    rows = numbers.shape
    if isinstance(a, Parameter):
        one_hot = _one_hot(r, numbers, a.shape[axis], clips=clips)
        dims = Dims((axis,), (len(rows),), (), ())
        result = with_parameter(r.b, r.leaves, a, one_hot, dims, parameter_first=False)
    else:
        result = _rows(r, r.array(a), axis, numbers, clips=clips)
    if zero:
        result = _zero_outside(r, result, numbers, a.shape[axis])
    # (rows, other axes) -> the order of the program, the axis itself of size one if it is left.
    rank = len(eqn.outvars[0].aval.shape)
    eqn_offsets = offsets
    if len(offsets) == len(a.shape):
        offsets = tuple(x for k, x in enumerate(offsets) if k != axis)
    batch = [k for k in range(rank) if k not in eqn_offsets]
    order = [*batch, *offsets]
    back = st.transpose(r.b, result, tuple(order.index(k) for k in sorted(order)))
    return st.reshape(r.b, back, tuple(eqn.outvars[0].aval.shape))


def _which_rows(
    r: Reader, eqn: JaxprEqn, starts: list[Operand]
) -> tuple[int, Array, tuple[int, ...]] | None:
    """The axis whose entries are chosen, the numbers that choose, and where the other axes go."""
    shape, sizes = eqn.invars[0].aval.shape, eqn.params["slice_sizes"]
    cut = [k for k, (size, full) in enumerate(zip(sizes, shape)) if size != full]
    if len(cut) > 1:
        return None
    if eqn.primitive.name == "dynamic_slice":
        axis = cut[0] if cut else 0
        numbers, offsets = starts[axis], tuple(range(len(shape)))
    else:
        d = eqn.params["dimension_numbers"]
        if getattr(d, "operand_batching_dims", ()):
            return None
        # Where the slice is the whole axis, clipping leaves its start no choice.
        free = [k for k in d.start_index_map if sizes[k] != shape[k]] or [d.start_index_map[0]]
        axis = free[0]
        several = len(d.start_index_map) > 1
        if len(free) > 1 or (several and "clip" not in str(eqn.params["mode"]).lower()):
            return None
        if d.collapsed_slice_dims not in ((), (axis,)):
            return None
        (chosen,), offsets = starts, d.offset_dims
        last = len(chosen.shape) - 1
        chosen = st.take(r.b, chosen, last, np.array([d.start_index_map.index(axis)]))
        numbers = st.reshape(r.b, chosen, chosen.shape[:-1])
    known = isinstance(numbers, Array) and numbers.known
    if not known or sizes[axis] != 1 or cut not in ([], [axis]):
        return None
    assert isinstance(numbers, Array)
    return axis, numbers, offsets


def _one_hot(r: Reader, numbers: Array, size: int, *, clips: bool) -> Array:
    """A known array that is one where the table is looked up."""
    shape = numbers.shape

    def places(block: Any) -> Any:
        i = materialise(numbers, block, jnp)
        i = jnp.clip(i, 0, size - 1) if clips else i
        return i.reshape([s for s in shape if s != 1])

    kept = tuple(s for s in shape if s != 1)
    arguments = (numbers.value,)
    which = r.b.compute("index", places, arguments, kept, numbers.value.dtype)
    node = r.b.one_hot(which, size)
    axes: list[tuple[Atom, ...]] = []
    for s in shape:
        axes.append((Position(sum(len(x) for x in axes)),) if s != 1 else ())
    return Array(node, (*axes, (Position(len(kept)),)))


def _zero_outside(r: Reader, found: Operand, numbers: Array, size: int) -> Array:
    """Rows times one where they were inside of the array, and zero elsewhere."""
    rows = numbers.shape

    def inside(block: Any) -> Any:
        i = materialise(numbers, block, jnp)
        return ((i >= 0) & (i < size)).reshape([s for s in rows if s != 1]) * 1.0

    kept = tuple(s for s in rows if s != 1)
    value = r.b.compute("inside", inside, (numbers.value,), kept, np.dtype(np.float64))
    mask = st.broadcast(r.b, known_shaped(value, rows), found.shape, tuple(range(len(rows))))
    return elementwise(
        r.b, "mul", lambda x, y: x * y, [r.array(found), r.array(mask)], np.dtype(np.float64)
    )


def _rows(r: Reader, a: Array, axis: int, numbers: Array, *, clips: bool) -> Array:
    """Positions of a field chosen by known numbers: (rows, other axes)."""
    a = as_position(r, a, axis, "gather")
    (atom,) = a.axes[axis]
    assert isinstance(atom, Position)
    size, rows = a.shape[axis], numbers.shape

    def choose(block: Any, known: Any) -> Any:
        i = materialise(numbers, known, jnp)
        found = block[jnp.clip(i, 0, size - 1)]
        return found if clips else jnp.where((i >= 0) & (i < size), found, jnp.nan)

    return mapped(r, a, axis, atom, rows, choose, numbers, "gather")


def mapped(
    r: Reader, a: Array, axis: int, atom: Position, rows: tuple[int, ...],
    function: Callable[..., Any], numbers: Array, name: str,
) -> Array:
    """A map of one axis to ``rows``, which come first in the result."""
    field = r.b.map(a.field, (atom.axis,), rows, function, (numbers.value,), name=name)
    base = len(field.shape) - len(rows)
    first = tuple((Position(base + k),) for k in range(len(rows)))
    seen = lambda x: (
        replace(x, axis=x.axis - (x.axis > atom.axis)) if isinstance(x, Position) else x
    )
    rest = tuple(tuple(seen(x) for x in ax) for k, ax in enumerate(a.axes) if k != axis)
    return squeezed(r.b, Array(field, (*first, *rest)))
