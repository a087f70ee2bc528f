"""Operations that only move entries: reshape, transpose, broadcast, slice, join, index."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.errors import UnsupportedPrimitiveError
from widelimit.graph import channels as chan
from widelimit.graph.build import Builder
from widelimit.graph.nodes import Shape
from widelimit.trace.arrays import (
    Array,
    Atom,
    Channel,
    Concatenation,
    Operand,
    Parameter,
    Position,
    Repeat,
    known_array,
)
from widelimit.trace.regroup import drop_position, refine, squeezed


def transpose(b: Builder, a: Operand, order: tuple[int, ...]) -> Operand:
    """Reorder the program axes."""
    match a:
        case Parameter():
            return replace(a, index=np.transpose(a.index, order))
        case Concatenation():
            pieces = tuple(transpose(b, p, order) for p in a.pieces)
            return Concatenation(pieces, order.index(a.axis))  # type: ignore[arg-type]
    return replace(a, axes=tuple(a.axes[k] for k in order))


def broadcast(b: Builder, a: Operand, shape: Shape, dims: tuple[int, ...]) -> Operand:
    """``lax.broadcast_in_dim``: new axes repeat, axes of size one stretch."""
    match a:
        case Parameter():
            block = a.index.reshape([a.shape[dims.index(k)] if k in dims else 1
                                     for k in range(len(shape))])
            return replace(a, index=np.broadcast_to(block, shape))
        case Concatenation():
            pieces = []
            for p in a.pieces:
                own = list(shape)
                own[dims[a.axis]] = p.shape[a.axis]
                pieces.append(broadcast(b, p, tuple(own), dims))
            return Concatenation(tuple(pieces), dims[a.axis])
    axes: list[tuple[Atom, ...]] = []
    for k, size in enumerate(shape):
        if k in dims and a.shape[dims.index(k)] == size:
            axes.append(a.axes[dims.index(k)])
        else:
            axes.append((Repeat(size),) if size != 1 else ())
    return replace(a, axes=tuple(axes))


def reshape(b: Builder, a: Operand, shape: Shape) -> Operand:
    """Regroup the axes in row-major order."""
    if a.shape == shape:
        return a
    match a:
        case Parameter():
            return replace(a, index=a.index.reshape(shape))
        case Concatenation():
            return _reshape_pieces(b, a, shape)
    if 0 in shape:
        return known_array(b, np.zeros(shape))
    a = squeezed(b, a)
    flat = tuple(atom for axis in a.axes for atom in axis)
    if not flat:
        return replace(a, axes=tuple(() for _ in shape))
    merged = Array(a.node, (flat,), a.average)
    try:
        cuts = _cuts([merged.size(x) for x in flat])
        wanted = _cuts(list(shape))
        sizes = _sizes_between(sorted(cuts | wanted))
        merged = refine(b, merged, 0, sizes)
    except ValueError:
        merged = _merge_positions(b, merged)
        sizes = _sizes_between(sorted(_cuts([merged.size(x) for x in merged.axes[0]])
                                      | _cuts(list(shape))))
        try:
            merged = refine(b, merged, 0, sizes)
        except ValueError as bad:
            raise UnsupportedPrimitiveError(
                "`reshape` mixes a wide axis with another in a way that cannot be followed",
                why="the new axes do not fall on boundaries of the wide axis.",
                remedy="reshape the wide axis by itself, or keep it last.",
                where=b.where,
            ) from bad
    return Array(merged.node, _regroup(merged, shape), merged.average)


def _cuts(sizes: list[int]) -> set[int]:
    out, product = {1}, 1
    for s in reversed(sizes):
        product *= s
        out.add(product)
    return out


def _sizes_between(cuts: list[int]) -> Shape:
    sizes = []
    for small, big in zip(cuts, cuts[1:]):
        if big % small:
            raise ValueError(cuts)
        sizes.append(big // small)
    return tuple(reversed(sizes))


def _regroup(a: Array, shape: Shape) -> tuple[tuple[Atom, ...], ...]:
    atoms = list(a.axes[0])
    axes: list[tuple[Atom, ...]] = []
    for size in shape:
        group: list[Atom] = []
        while math.prod(a.size(x) for x in group) < size:
            group.append(atoms.pop(0))
        axes.append(tuple(group))
    return tuple(axes)


def _merge_positions(b: Builder, a: Array) -> Array:
    """Merge all atoms, which must be positions, into one."""
    atoms = a.axes[0]
    if not all(isinstance(x, Position) for x in atoms):
        raise UnsupportedPrimitiveError(
            "`reshape` mixes a wide axis with another in a way that cannot be followed",
            why="the new axes do not fall on boundaries of the wide axis.",
            remedy="reshape the wide axis by itself, or keep it last.",
            where=b.where,
        )
    acted = tuple(x.axis for x in atoms if isinstance(x, Position))
    size = math.prod(a.size(x) for x in atoms)
    node = b.select_any(a.node, acted, (size,), lambda t: t.reshape(size), "reshape")
    return Array(node, ((Position(0),),), a.average)


def _reshape_pieces(b: Builder, a: Concatenation, shape: Shape) -> Operand:
    before, after = a.shape[: a.axis], a.shape[a.axis + 1 :]
    head = math.prod(before)
    for axis, size in enumerate(shape):
        if math.prod(shape[:axis]) == head and size == a.shape[a.axis]:
            tail = shape[axis + 1 :]
            if math.prod(tail) != math.prod(after):
                break
            pieces = tuple(
                reshape(b, p, (*shape[:axis], p.shape[a.axis], *tail)) for p in a.pieces
            )
            return Concatenation(pieces, axis)  # type: ignore[arg-type]
    raise UnsupportedPrimitiveError(
        "`reshape` of an axis joined from different kinds of arrays",
        why="the joined axis would be cut across the seam.",
        remedy="reshape the parts before concatenating them.",
        where=b.where,
    )


# --------------------------------------------------------------------------- taking entries


def take(b: Builder, a: Operand, axis: int, chosen: np.ndarray) -> Operand:
    """Keep the ``chosen`` places of one program axis, in that order."""
    if len(chosen) == a.shape[axis] and np.array_equal(chosen, np.arange(len(chosen))):
        return a
    match a:
        case Parameter():
            return replace(a, index=_take_view(a.index, axis, chosen))
        case Concatenation() if axis != a.axis:
            return Concatenation(tuple(take(b, p, axis, chosen) for p in a.pieces), a.axis)  # type: ignore[misc]
        case Concatenation():
            return _take_across(b, a, chosen)
    if len(chosen) == 0:
        return known_array(b, np.zeros((*a.shape[:axis], 0, *a.shape[axis + 1 :])))
    atoms = a.axes[axis]
    if all(isinstance(x, Repeat) for x in atoms):
        new = (Repeat(len(chosen)),) if len(chosen) > 1 else ()
        return replace(a, axes=(*a.axes[:axis], new, *a.axes[axis + 1 :]))
    if len(atoms) > 1:
        return _take_atoms(b, a, axis, chosen)
    (atom,) = atoms
    if isinstance(atom, Channel):
        return _take_channel(b, a, axis, atom, chosen)
    assert isinstance(atom, Position)
    out = (len(chosen),) if len(chosen) > 1 else ()
    picked = chosen if len(chosen) > 1 else int(chosen[0])
    along = _taking(chosen)
    node = b.select_any(a.node, (atom.axis,), out, lambda t: t[picked], "take", along)
    axes = drop_position(a.axes, atom.axis)
    fresh = (Position(len(node.shape) - 1, atom.wide),) if out else ()
    return Array(node, (*axes[:axis], fresh, *axes[axis + 1 :]), a.average)


def _taking(chosen: np.ndarray) -> Callable[..., Any]:
    """The choice of places on one axis of any array, as a slice where it is one."""
    step = np.diff(chosen)
    if len(chosen) == 1 or (np.all(step == step[0]) and step[0] > 0):
        first, last = int(chosen[0]), int(chosen[-1]) + 1
        stride = int(step[0]) if len(chosen) > 1 else 1
        return lambda t, axis: jax.lax.slice_in_dim(t, first, last, stride, axis)
    return lambda t, axis: jnp.take(t, chosen, axis)


def _take_view(index: np.ndarray, axis: int, chosen: np.ndarray) -> np.ndarray:
    step = np.diff(chosen)
    if len(chosen) == 1 or (np.all(step == step[0]) and step[0] > 0):
        stride = int(step[0]) if len(chosen) > 1 else 1
        window = slice(int(chosen[0]), int(chosen[-1]) + 1, stride)
        return index[(slice(None),) * axis + (window,)]
    return np.take(index, chosen, axis=axis)


def _take_channel(b: Builder, a: Array, axis: int, atom: Channel, chosen: np.ndarray) -> Array:
    if len(np.unique(chosen)) != len(chosen):
        raise UnsupportedPrimitiveError(
            "indexing repeats channels of a wide axis",
            why="repeated channels are not independent of each other.",
            remedy="index every channel at most once.",
            where=b.where,
        )
    if len(chosen) == 1:
        # One channel of a wide axis: a single random number, with no copies beside it.
        field = chan.split(b, chan.take(b, a.field, atom.axis, chosen), atom.axis, ())
        shift = lambda x: Channel(x.axis - 1) if (
            isinstance(x, Channel) and x.axis > atom.axis
        ) else x
        axes = [tuple(shift(x) for x in ax) for ax in a.axes]
        axes[axis] = ()
        return Array(field, tuple(axes))
    return Array(chan.take(b, a.field, atom.axis, chosen), a.axes)


def _take_atoms(b: Builder, a: Array, axis: int, chosen: np.ndarray) -> Operand:
    """Indexing an axis made of several atoms, when it acts on one of them."""
    sizes = tuple(a.size(x) for x in a.axes[axis])
    grid = np.stack(np.unravel_index(chosen, sizes))
    if len(chosen) == 1:
        expanded = reshape(b, a, (*a.shape[:axis], *sizes, *a.shape[axis + 1 :]))
        for k in range(len(sizes)):
            expanded = take(b, expanded, axis + k, grid[k])
        return reshape(b, expanded, (*a.shape[:axis], 1, *a.shape[axis + 1 :]))
    for k in range(len(sizes)):
        kept = np.unique(grid[k])
        rest = tuple(s for i, s in enumerate(sizes) if i != k)
        product = (*sizes[:k], len(kept), *sizes[k + 1 :])
        if math.prod(product) != len(chosen) or len(chosen) != len(kept) * math.prod(rest):
            continue
        full = np.ravel_multi_index(
            np.ix_(*[kept if i == k else np.arange(s) for i, s in enumerate(sizes)]), sizes
        )
        if np.array_equal(full.ravel(), chosen):
            expanded = reshape(b, a, (*a.shape[:axis], *sizes, *a.shape[axis + 1 :]))
            picked = take(b, expanded, axis + k, kept)
            return reshape(b, picked, (*a.shape[:axis], len(chosen), *a.shape[axis + 1 :]))
    if all(isinstance(x, Position) for x in a.axes[axis]):
        merged_axes = tuple(x.axis for x in a.axes[axis] if isinstance(x, Position))
        out = (len(chosen),) if len(chosen) > 1 else ()
        picked_i = chosen if len(chosen) > 1 else int(chosen[0])
        node = b.select_any(a.node, merged_axes, out, lambda t: t.reshape(-1)[picked_i], "take")
        left = [k for k in range(len(a.node.shape)) if k not in merged_axes]
        rename = {k: i for i, k in enumerate(left)}
        axes = [
            tuple(replace(x, axis=rename[x.axis]) if isinstance(x, Position) else x for x in ax)
            if i != axis
            else ()
            for i, ax in enumerate(a.axes)
        ]
        if out:
            axes[axis] = (Position(len(left)),)
        return Array(node, tuple(axes), a.average)
    raise UnsupportedPrimitiveError(
        "indexing cuts across the wide part of an axis",
        why="the axis is made of several, and the places chosen are not whole slices of one.",
        remedy="reshape the axis apart and index the part you mean.",
        where=b.where,
    )


def _take_across(b: Builder, a: Concatenation, chosen: np.ndarray) -> Operand:
    starts = np.cumsum([0, *a.sizes])
    owner = np.searchsorted(starts, chosen, side="right") - 1
    pieces: list[Array | Parameter] = []
    i = 0
    while i < len(chosen):
        j = i
        while j < len(chosen) and owner[j] == owner[i]:
            j += 1
        part = take(b, a.pieces[owner[i]], a.axis, chosen[i:j] - starts[owner[i]])
        assert not isinstance(part, Concatenation)
        pieces.append(part)
        i = j
    return pieces[0] if len(pieces) == 1 else Concatenation(tuple(pieces), a.axis)


def by_index(
    b: Builder, a: Operand, move: Callable[[Any], Any], shape: Shape
) -> Operand | None:
    """Any selection of entries, understood by doing it to the array of flat indices."""
    flat = np.arange(math.prod(a.shape)).reshape(a.shape)
    moved = np.asarray(move(flat))
    if np.any(moved < 0):
        return None
    if isinstance(a, Parameter):
        return replace(a, index=a.index.reshape(-1)[moved])
    if moved.size == 0:
        return None
    places = np.unravel_index(moved, a.shape)
    # Each axis of the array has to be chosen along result axes of its own.
    along = [
        [j for j in range(moved.ndim) if np.any(p != np.take(p, [0], j))] for p in places
    ]
    order = [j for one in along for j in one]
    if len(set(order)) < len(order):
        return None
    result: Operand = a
    for axis, (p, own) in enumerate(zip(places, along)):
        line = p[tuple(slice(None) if j in own else 0 for j in range(moved.ndim))]
        result = take(b, result, axis, line.reshape(-1))
    result = reshape(b, result, tuple(moved.shape[j] for j in order))
    result = transpose(b, result, tuple(int(k) for k in np.argsort(order)))
    return broadcast(b, result, shape, tuple(sorted(order)))
