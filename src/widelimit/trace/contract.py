"""Contractions: a parameter with anything, a known matrix with a field, a field with a field."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from widelimit.errors import SharedAcrossWidthError, UnsupportedPrimitiveError, WideLimitError
from widelimit.graph import nodes as n
from widelimit.graph.build import Builder
from widelimit.trace.arrays import (
    Array,
    Atom,
    Channel,
    Concatenation,
    Operand,
    Parameter,
    Position,
    Repeat,
    is_constant_field,
    materialise,
)
from widelimit.trace.averages import refuse
from widelimit.trace.leaves import Leaves, as_array, constant_along, narrow
from widelimit.trace.pointwise import elementwise
from widelimit.trace.reduce import reduce_sum
from widelimit.trace.structure import broadcast, concatenate, take, transpose

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Dims:
    """The axes of a contraction: contracted and batched, on the left and on the right."""

    left_contract: Axes
    right_contract: Axes
    left_batch: Axes
    right_batch: Axes

    def swap(self) -> Dims:
        """The same contraction with the operands exchanged."""
        return Dims(self.right_contract, self.left_contract, self.right_batch, self.left_batch)


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
        return _with_parameter(b, leaves, left, right, dims, parameter_first=True)
    if isinstance(right, Parameter):
        return _with_parameter(b, leaves, right, left, dims.swap(), parameter_first=False)
    if isinstance(left, Concatenation) or isinstance(right, Concatenation):
        return _pieces(b, leaves, left, right, dims, dtype)
    if left.known or right.known:
        fast = _known_matrix(b, left, right, dims)
        if fast is not None:
            return fast
    return _general(b, left, right, dims, dtype)


def _free(rank: int, *used: Axes) -> list[int]:
    return [k for k in range(rank) if not any(k in u for u in used)]


# --------------------------------------------------------------------------- with a parameter


def _with_parameter(
    b: Builder,
    leaves: Leaves,
    p: Parameter,
    u: Operand,
    dims: Dims,
    *,
    parameter_first: bool,
    beside: int = 0,
) -> Operand:
    """``dims.left`` speaks of the parameter, ``dims.right`` of the operand.

    ``beside`` is the size of what the operand is joined with, in the same sum.
    """
    if isinstance(u, Concatenation):
        return _parameter_with_pieces(b, leaves, p, u, dims, parameter_first=parameter_first)
    if isinstance(u, Parameter):
        u = as_array(b, leaves, u)
    info = leaves.infos[p.leaf]
    if u.average is not None and not u.average.settled:
        raise refuse("dot_general", u.average, b.where)
    p_free = _free(p.index.ndim, dims.left_contract, dims.left_batch)
    u_free = _free(len(u.axes), dims.right_contract, dims.right_batch)
    batch_atoms = [x for k in dims.right_batch for x in u.axes[k]]
    inner_atoms = [x for k in dims.right_contract for x in u.axes[k]]
    index = np.transpose(p.index, (*dims.left_batch, *p_free, *dims.left_contract))
    index = index.reshape(
        [u.size(x) for x in batch_atoms]
        + [p.index.shape[k] for k in p_free]
        + [u.size(x) for x in inner_atoms]
    )
    n_batch, n_free = len(batch_atoms), len(p_free)
    varies = [not constant_along(index, k) for k in range(index.ndim)]
    for k, atom in enumerate(inner_atoms):
        if not varies[n_batch + n_free + k] and u.size(atom) > 1:
            raise SharedAcrossWidthError(
                f"one entry of parameter `{info.name}` multiplies a whole contracted axis",
                why="the terms of the sum are then not independent.",
                remedy="sum first and multiply afterwards.",
                where=b.where,
            )
    # Own channels: free axes that vary, then batch axes that vary along channels or repeats.
    own = [n_batch + k for k in range(n_free) if varies[n_batch + k]]
    own += [
        k for k, x in enumerate(batch_atoms) if varies[k] and not isinstance(x, Position)
    ]
    separate_axes = [
        k for k, x in enumerate(batch_atoms) if varies[k] and isinstance(x, Position)
    ]
    inner = list(range(n_batch + n_free, index.ndim))
    picked = [slice(None)] * index.ndim
    for k in range(n_batch + n_free):
        if not varies[k]:
            picked[k] = 0  # type: ignore[call-overload]
    block = index[tuple(picked)]
    kept_axes = [k for k in range(index.ndim) if isinstance(picked[k], slice)]
    block = np.transpose(
        block, [kept_axes.index(k) for k in (*own, *separate_axes, *inner)]
    )
    own_shape = tuple(index.shape[k] for k in own)
    contracted = math.prod(index.shape[k] for k in inner)
    rows = block.reshape(-1, contracted) if block.size else block.reshape(0, contracted)
    leaves.use(b, p.leaf, rows)
    draw = b.draw(p.leaf, block.reshape(*own_shape, -1))

    # The operand's axes.
    left_over = [
        x.axis
        for k, x in enumerate(batch_atoms)
        if isinstance(x, Channel) and not varies[k]
    ] + [x.axis for k in u_free for x in u.axes[k] if isinstance(x, Channel)]
    if left_over and not n.zero_mean(u.node):
        raise SharedAcrossWidthError(
            "a parameter is contracted with one of several wide axes",
            why="the same weights act on every copy along the other wide axis, and the copies "
            "have a common mean, so the results are not independent.",
            remedy="contract all wide axes, or give every copy its own weights.",
            where=b.where,
        )
    count = 1
    summed: list[int] = []
    averaged = 1
    for x in inner_atoms:
        if isinstance(x, Position):
            summed.append(x.axis)
            averaged *= u.size(x) if x.wide else 1
        else:
            averaged *= u.size(x) if isinstance(x, Channel) else 1
            count *= u.size(x)
    if not u.known and not is_constant_field(u.node):
        narrow(b, averaged + beside)
    kept = [x.axis for x in batch_atoms if isinstance(x, Position)]
    kept += [x.axis for k in u_free for x in u.axes[k] if isinstance(x, Position)]
    separate = tuple(
        x.axis for k, x in enumerate(batch_atoms) if varies[k] and isinstance(x, Position)
    )
    left_sizes = tuple(u.field.channels[c] for c in left_over)
    channels = (*own_shape, *left_sizes)
    field: n.Field = b.source(
        draw, u.node, tuple(kept), tuple(summed), separate, count, p.scale, channels
    )

    # The program's axes of the result.
    channel_of = {k: i for i, k in enumerate(own)}
    left_of = {c: len(own) + i for i, c in enumerate(left_over)}

    def seen(x: Atom) -> Atom:
        match x:
            case Position(axis, wide):
                return Position(kept.index(axis), wide)
            case Channel(axis):
                return Channel(left_of[axis])
        return x

    batch_axes: list[tuple[Atom, ...]] = []
    position = 0
    for k in dims.right_batch:
        atoms: list[Atom] = []
        for x in u.axes[k]:
            own_channel = varies[position] and not isinstance(x, Position)
            atoms.append(Channel(channel_of[position]) if own_channel else seen(x))
            position += 1
        batch_axes.append(tuple(atoms))
    free_axes: list[tuple[Atom, ...]] = []
    for k, axis in enumerate(p_free):
        size = p.index.shape[axis]
        if n_batch + k in channel_of:
            free_axes.append((Channel(channel_of[n_batch + k]),))
        else:
            free_axes.append((Repeat(size),) if size > 1 else ())
    other_axes = [tuple(seen(x) for x in u.axes[k]) for k in u_free]
    middle = (*free_axes, *other_axes) if parameter_first else (*other_axes, *free_axes)
    result = Array(field, (*batch_axes, *middle))
    if info.mean:
        return _add_mean(b, result, info.mean * p.scale, u, dims, u_free, parameter_first)
    return result


def _add_mean(
    b: Builder,
    result: Array,
    mean: float,
    u: Array,
    dims: Dims,
    u_free: list[int],
    parameter_first: bool,
) -> Array:
    if any(isinstance(x, Channel) for k in dims.right_contract for x in u.axes[k]):
        raise WideLimitError(
            "a parameter with a mean is contracted with a wide axis",
            why="the mean adds up over the width and diverges, or makes the channels dependent.",
            remedy="use a zero-mean prior for weights.",
            where=b.where,
        )
    total = reduce_sum(b, u, dims.right_contract)
    assert isinstance(total, Array)
    order = [k for k in range(len(u.axes)) if k not in dims.right_contract]
    total_t = transpose(b, total, tuple(order.index(k) for k in (*dims.right_batch, *u_free)))
    n_b, n_u, rank = len(dims.right_batch), len(u_free), len(result.axes)
    start = rank - n_u if parameter_first else n_b
    where_to = (*range(n_b), *range(start, start + n_u))
    spread = broadcast(b, total_t, result.shape, where_to)
    assert isinstance(spread, Array)
    constant = Array(b.constant(np.asarray(mean)), ())
    scaled = elementwise(b, "mul", lambda x, y: x * y, [constant, spread], None)
    return elementwise(b, "add", lambda x, y: x + y, [scaled, result], None)


def _parameter_with_pieces(
    b: Builder,
    leaves: Leaves,
    p: Parameter,
    u: Concatenation,
    dims: Dims,
    *,
    parameter_first: bool,
) -> Operand:
    results: list[Operand] = []
    start = 0
    inside = u.axis in dims.right_contract or u.axis in dims.right_batch
    for piece in u.pieces:
        size = piece.shape[u.axis]
        q = p
        if inside:
            pairs = zip(
                (*dims.right_contract, *dims.right_batch), (*dims.left_contract, *dims.left_batch)
            )
            axis = dict(pairs)[u.axis]
            window = [slice(None)] * p.index.ndim
            window[axis] = slice(start, start + size)
            q = replace(p, index=p.index[tuple(window)])
        results.append(
            _with_parameter(
                b, leaves, q, piece, dims, parameter_first=parameter_first,
                beside=u.shape[u.axis] - size if u.axis in dims.right_contract else 0,
            )
        )
        start += size
    if u.axis in dims.right_contract:
        arrays = [as_array(b, leaves, r) for r in results]
        return elementwise(b, "add", lambda *x: sum(x), arrays, None)
    p_free = _free(p.index.ndim, dims.left_contract, dims.left_batch)
    u_free = _free(len(u.shape), dims.right_contract, dims.right_batch)
    if u.axis in dims.right_batch:
        axis = dims.right_batch.index(u.axis)
    else:
        axis = len(dims.right_batch) + u_free.index(u.axis)
        axis += len(p_free) if parameter_first else 0
    return concatenate(b, results, axis)


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
    known_free = _free(len(left.axes), dims.left_contract, dims.left_batch)
    field_free = _free(len(right.axes), dims.right_contract, dims.right_batch)
    acted = tuple(x.axis for x in atoms if isinstance(x, Position))
    batch_shape = [right.shape[k] for k in dims.right_batch]
    inner_shape = [right.shape[k] for k in dims.right_contract]
    free_shape = [left.shape[k] for k in known_free]
    out_sizes = [*(right.size(x) for k in dims.right_batch for x in right.axes[k])]
    out_sizes += [s for s in free_shape if s > 1]
    order = (*dims.left_batch, *known_free, *dims.left_contract)

    def function(block: Any, known: Any) -> Any:
        matrix = jnp.transpose(materialise(left, known, jnp), order)
        matrix = matrix.reshape(
            math.prod(batch_shape), math.prod(free_shape), math.prod(inner_shape)
        )
        vector = block.reshape(math.prod(batch_shape), math.prod(inner_shape))
        return jnp.einsum("bij,bj->bi", matrix, vector).reshape(out_sizes)

    field = b.map(
        right.field, acted, tuple(out_sizes), function, (left.value,), name="dot_general"
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
    left_free = _free(len(left.axes), dims.left_contract, dims.left_batch)
    right_free = _free(len(right.axes), dims.right_contract, dims.right_batch)
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
