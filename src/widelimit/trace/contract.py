"""Contractions: a parameter with anything, a known matrix with a field, a field with a field."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from widelimit.errors import UnsupportedPrimitiveError
from widelimit.graph.build import Builder
from widelimit.trace.arrays import (
    Array,
    Atom,
    Concatenation,
    Operand,
    Parameter,
    Position,
    materialise,
)
from widelimit.trace.averages import refuse
from widelimit.trace.leaves import Leaves, as_array
from widelimit.trace.pointwise import elementwise
from widelimit.trace.reduce import reduce_sum
from widelimit.trace.source import Dims, free_axes, with_parameter
from widelimit.trace.structure import broadcast, take, transpose


def contract(
    b: Builder, leaves: Leaves, left: Operand, right: Operand, dims: Dims, dtype: Any
) -> Operand:
    """``lax.dot_general`` where at least one operand is random."""
    if isinstance(left, Parameter) and isinstance(right, Parameter):
        raise UnsupportedPrimitiveError(
            "two parameters are multiplied with each other before they meet the input",
            why="a product of random matrices is no matrix of independent entries.",
            remedy="apply them to the input one after the other: W2 @ (W1 @ x).",
            where=b.where,
        )
    if isinstance(left, Parameter):
        return with_parameter(b, leaves, left, right, dims, parameter_first=True)
    if isinstance(right, Parameter):
        return with_parameter(b, leaves, right, left, dims.swap(), parameter_first=False)
    if isinstance(left, Concatenation) or isinstance(right, Concatenation):
        return _pieces(b, leaves, left, right, dims, dtype)
    if left.known or right.known:
        fast = _known_matrix(b, left, right, dims)
        if fast is not None:
            return fast
    return _general(b, left, right, dims, dtype)


# --------------------------------------------------------------------------- without one


def _pieces(
    b: Builder, leaves: Leaves, left: Operand, right: Operand, dims: Dims, dtype: Any
) -> Operand:
    if isinstance(right, Concatenation) and right.axis in dims.right_contract:
        other_axis = dims.left_contract[dims.right_contract.index(right.axis)]
        joined, other, flip = right, left, False
    elif isinstance(left, Concatenation) and left.axis in dims.left_contract:
        other_axis = dims.right_contract[dims.left_contract.index(left.axis)]
        joined, other, flip = left, right, True
    else:
        return _general(b, as_array(b, leaves, left), as_array(b, leaves, right), dims, dtype)
    start, total = 0, []
    for piece in joined.pieces:
        size = piece.shape[joined.axis]
        part = take(b, other, other_axis, np.arange(start, start + size))
        pair = (piece, part) if flip else (part, piece)
        total.append(as_array(b, leaves, contract(b, leaves, *pair, dims, dtype)))
        start += size
    return elementwise(b, "add", lambda *x: sum(x), total, dtype)


def _known_matrix(b: Builder, left: Array, right: Array, dims: Dims) -> Array | None:
    """A known array contracted with positions of a field: one linear map."""
    if right.known:
        left, right, dims, flipped = right, left, dims.swap(), True
    else:
        flipped = False
    touched = [*dims.right_batch, *dims.right_contract]
    atoms = [x for k in touched for x in right.axes[k]]
    if not all(isinstance(x, Position) for x in atoms):
        return None
    if left.average is not None and (left.average.vanishing or not left.average.settled):
        raise refuse("dot_general", left.average, b.where)
    if not any(isinstance(x, Position) for k in dims.right_contract for x in right.axes[k]):
        return None
    known_free = free_axes(len(left.axes), dims.left_contract, dims.left_batch)
    field_free = free_axes(len(right.axes), dims.right_contract, dims.right_batch)
    acted = tuple(x.axis for x in atoms if isinstance(x, Position))
    batch_shape = [right.shape[k] for k in dims.right_batch]
    inner_shape = [right.shape[k] for k in dims.right_contract]
    free_shape = [left.shape[k] for k in known_free]
    out_sizes = [*(right.size(x) for k in dims.right_batch for x in right.axes[k])]
    out_sizes += [s for s in free_shape if s > 1]
    order = (*dims.left_batch, *known_free, *dims.left_contract)

    def matrix(known: Any) -> Any:
        return jnp.transpose(materialise(left, known, jnp), order).reshape(
            math.prod(batch_shape), math.prod(free_shape), math.prod(inner_shape)
        )

    def function(block: Any, known: Any) -> Any:
        vector = block.reshape(math.prod(batch_shape), math.prod(inner_shape))
        return jnp.einsum("bij,bj->bi", matrix(known), vector).reshape(out_sizes)

    field = b.map(
        right.field, acted, tuple(out_sizes), function, (left.value,), name="dot_general",
        matrix=matrix,
    )
    untouched = [k for k in range(len(right.node.shape)) if k not in acted]
    place = len(untouched)
    batch_axes: list[tuple[Atom, ...]] = []
    for k in dims.right_batch:
        fresh: list[Atom] = []
        for _ in right.axes[k]:
            fresh.append(Position(place))
            place += 1
        batch_axes.append(tuple(fresh))
    known_axes: list[tuple[Atom, ...]] = []
    for s in free_shape:
        known_axes.append((Position(place),) if s > 1 else ())
        place += int(s > 1)
    rename = {k: i for i, k in enumerate(untouched)}
    field_axes = [
        tuple(replace(x, axis=rename[x.axis]) if isinstance(x, Position) else x
              for x in right.axes[k])
        for k in field_free
    ]
    middle = (*field_axes, *known_axes) if flipped else (*known_axes, *field_axes)
    return Array(field, (*batch_axes, *middle))


def _general(b: Builder, left: Array, right: Array, dims: Dims, dtype: Any) -> Operand:
    """Multiply in common axes (batch, left, right, contracted), then sum the last ones."""
    left_free = free_axes(len(left.axes), dims.left_contract, dims.left_batch)
    right_free = free_axes(len(right.axes), dims.right_contract, dims.right_batch)
    moved_left = transpose(b, left, (*dims.left_batch, *left_free, *dims.left_contract))
    moved_right = transpose(b, right, (*dims.right_batch, *right_free, *dims.right_contract))
    assert isinstance(moved_left, Array)
    assert isinstance(moved_right, Array)
    n_b, n_l, n_r, n_c = (
        len(dims.left_batch), len(left_free), len(right_free), len(dims.left_contract),
    )
    batch = moved_left.shape[:n_b]
    inner = moved_left.shape[n_b + n_l :]
    shape = (
        *batch, *moved_left.shape[n_b : n_b + n_l], *moved_right.shape[n_b : n_b + n_r], *inner,
    )
    tail = range(n_b + n_l + n_r, n_b + n_l + n_r + n_c)
    wide_left = broadcast(b, moved_left, shape, (*range(n_b + n_l), *tail))
    wide_right = broadcast(
        b, moved_right, shape, (*range(n_b), *range(n_b + n_l, n_b + n_l + n_r), *tail)
    )
    assert isinstance(wide_left, Array)
    assert isinstance(wide_right, Array)
    product = elementwise(b, "mul", lambda x, y: x * y, [wide_left, wide_right], dtype)
    return reduce_sum(b, product, tuple(tail))
