"""Writing into an array: places set, added to or multiplied, and sums over edges."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from widelimit.trace import structure as st
from widelimit.trace.along import as_position
from widelimit.trace.arrays import (
    Array,
    Operand,
    Position,
    concrete,
    is_constant,
    known_array,
    materialise,
)
from widelimit.trace.indexing import mapped
from widelimit.trace.pointwise import elementwise
from widelimit.trace.reader import Reader, rule


@rule("scatter", "scatter-add", "scatter_add", "scatter-mul", "scatter_mul")
def scatter(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Places written to: known while reading and each once, or rows added by known numbers."""
    base, chosen, updates = operands
    if eqn.primitive.name == "scatter" and eqn.params.get("update_jaxpr") is not None:
        raise r.unsupported(eqn.primitive.name, "a function is applied to the places chosen.")
    if is_constant(chosen):
        found = _each_once(r, eqn, base, concrete(chosen), updates)  # type: ignore[arg-type]
        if found is not None:
            return [found]
    if eqn.primitive.name in ("scatter-add", "scatter_add"):
        return [_rows_added(r, eqn, base, chosen, updates)]
    raise r.unsupported(
        eqn.primitive.name,
        "the places are not known while reading, or one is written twice, or they are no choice "
        "along single axes.",
    )


def _each_once(
    r: Reader, eqn: JaxprEqn, base: Operand, numbers: np.ndarray, updates: Operand
) -> Operand | None:
    """Masks over the places: what stays, and the updates moved to where they are written."""
    shape, p = eqn.invars[0].aval.shape, eqn.params
    how = {"dimension_numbers": p["dimension_numbers"], "mode": p["mode"]}
    index = jnp.asarray(numbers)
    into = jnp.zeros(shape, jnp.int32)
    count = np.asarray(jax.lax.scatter_add(into, index, jnp.ones(updates.shape, jnp.int32), **how))
    if not np.any(count):
        return base
    if np.max(count) > 1:
        return None
    flat = np.arange(np.prod(updates.shape, dtype=int), dtype=np.int32).reshape(updates.shape)
    came = np.asarray(jax.lax.scatter(into - 1, index, jnp.asarray(flat), **how))
    came = _extended(came)
    moved = st.by_index(r.b, updates, lambda own: own.reshape(-1)[came], tuple(shape))
    if moved is None:
        return None
    dtype = eqn.outvars[0].aval.dtype
    written, kept = (known_array(r.b, x.astype(np.float64)) for x in (count > 0, count == 0))
    act = lambda name, f, a, b: elementwise(r.b, name, f, [r.array(a), r.array(b)], dtype)
    times = lambda a, b: act("mul", lambda x, y: x * y, a, b)
    plus = lambda a, b: act("add", lambda x, y: x + y, a, b)
    everywhere = bool(np.all(count))
    new = moved if everywhere else times(moved, written)
    match eqn.primitive.name:
        case "scatter":
            return moved if everywhere else plus(times(base, kept), new)
        case "scatter-add" | "scatter_add":
            return plus(base, new)
        case _:
            return times(base, moved if everywhere else plus(new, kept))


def _extended(places: np.ndarray) -> np.ndarray:
    """Entries below zero replaced by others of their line, so that a box becomes the whole."""
    for axis in range(places.ndim):
        line = np.moveaxis(places, axis, 0).copy()
        for k in range(1, len(line)):
            line[k] = np.where(line[k] < 0, line[k - 1], line[k])
        for k in range(len(line) - 1, 0, -1):
            line[k - 1] = np.where(line[k - 1] < 0, line[k], line[k - 1])
        places = np.moveaxis(line, 0, axis)
    return places


def _rows_added(
    r: Reader, eqn: JaxprEqn, base: Operand, chosen: Operand, updates: Operand
) -> Operand:
    """Rows added up by known numbers, as messages along the edges of a graph are."""
    d = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    simple = (
        len(d.scatter_dims_to_operand_dims) == 1
        and d.inserted_window_dims == d.scatter_dims_to_operand_dims
        and not getattr(d, "operand_batching_dims", ())
        and isinstance(chosen, Array)
        and chosen.known
    )
    if not simple:
        raise r.unsupported(eqn.primitive.name, "it is no sum of whole rows by known numbers.")
    assert isinstance(chosen, Array)
    (axis,) = d.scatter_dims_to_operand_dims
    size, rows = shape[axis], chosen.shape[:-1]
    numbers = st.reshape(r.b, chosen, rows)
    assert isinstance(numbers, Array)
    batch = [k for k in range(len(updates.shape)) if k not in d.update_window_dims]
    moved = st.transpose(r.b, updates, (*batch, *d.update_window_dims))
    edges = int(np.prod(rows, dtype=int))
    moved = as_position(
        r, r.array(st.reshape(r.b, moved, (edges, *moved.shape[len(rows) :]))), 0, "scatter-add"
    )
    (atom,) = moved.axes[0]
    assert isinstance(atom, Position)

    clips = "clip" in str(eqn.params["mode"]).lower()

    def add_up(block: Any, known: Any) -> Any:
        i = materialise(numbers, known, jnp).reshape(-1)
        i = jnp.clip(i, 0, size - 1) if clips else i
        return jnp.zeros(size, block.dtype).at[jnp.where(i < 0, size, i)].add(block, mode="drop")

    if moved.known:
        raise r.unsupported(eqn.primitive.name, "known rows are added to random ones.")
    found = mapped(r, moved, 0, atom, (size,), add_up, numbers, "scatter-add")
    order = [k for k in range(len(shape)) if k != axis]
    back = tuple(int(k) for k in np.argsort([axis, *order]))
    result = st.transpose(r.b, found, back)
    if is_constant(base) and not np.any(concrete(base)):  # type: ignore[arg-type]
        return result
    arrays = [r.array(base), r.array(result)]
    return elementwise(r.b, "add", lambda x, y: x + y, arrays, eqn.outvars[0].aval.dtype)
