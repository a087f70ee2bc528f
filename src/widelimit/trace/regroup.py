"""The atoms of a program axis cut anew: split, squeezed, or read as positions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from widelimit.graph import channels as chan
from widelimit.graph.build import Builder
from widelimit.graph.nodes import Shape
from widelimit.trace.arrays import Array, Atom, Channel, Position, Repeat


def split_atom(b: Builder, array: Array, axis: int, place: int, sizes: Shape) -> Array:
    """Split one atom of a program axis into several, in row-major order."""
    atom = array.axes[axis][place]
    match atom:
        case Repeat():
            fresh: tuple[Atom, ...] = tuple(Repeat(s) for s in sizes)
            return replace(array, axes=_replace(array.axes, axis, place, fresh))
        case Channel(c):
            field = chan.split(b, array.field, c, sizes)
            fresh = tuple(Channel(c + i) for i in range(len(sizes)))
            shift = lambda a: Channel(a.axis + len(sizes) - 1) if (
                isinstance(a, Channel) and a.axis > c
            ) else a
            axes = tuple(tuple(shift(a) for a in ax) for ax in array.axes)
            return Array(field, _replace(axes, axis, place, fresh))
        case Position(p, wide):
            node = b.select_any(array.node, (p,), sizes, lambda t: t.reshape(sizes), "reshape")
            axes = drop_position(array.axes, p)
            base = len(array.node.shape) - 1
            fresh = tuple(Position(base + i, wide) for i in range(len(sizes)))
            return Array(node, _replace(axes, axis, place, fresh), array.average)


def squeezed(b: Builder, array: Array) -> Array:
    """The array without positions of size one, which no array shows."""
    for axis, atoms in enumerate(array.axes):
        for place, atom in enumerate(atoms):
            if not isinstance(atom, Position) or array.size(atom) != 1:
                continue
            along = lambda t, k: t  # noqa: ARG005
            node = b.select_any(
                array.node, (atom.axis,), (), lambda t: t.reshape(()), "squeeze", along
            )
            axes = drop_position(array.axes, atom.axis)
            fewer = (*axes[axis][:place], *axes[axis][place + 1 :])
            axes = (*axes[:axis], fewer, *axes[axis + 1 :])
            return squeezed(b, Array(node, axes, array.average))
    return array


def drop_position(
    axes: tuple[tuple[Atom, ...], ...], position: int
) -> tuple[tuple[Atom, ...], ...]:
    """Renumber positions after ``position`` moved away; its own atom stays as a placeholder."""
    shift = lambda a: replace(a, axis=a.axis - 1) if (
        isinstance(a, Position) and a.axis > position
    ) else a
    return tuple(tuple(shift(a) for a in axis) for axis in axes)


def _replace(
    axes: tuple[tuple[Atom, ...], ...], axis: int, place: int, fresh: tuple[Atom, ...]
) -> tuple[tuple[Atom, ...], ...]:
    old = axes[axis]
    return (*axes[:axis], (*old[:place], *fresh, *old[place + 1 :]), *axes[axis + 1 :])


def refine(b: Builder, array: Array, axis: int, sizes: Shape) -> Array:
    """Cut a program axis into atoms of the given sizes."""
    atoms = array.axes[axis]
    if all(isinstance(a, Repeat) for a in atoms):
        repeats = tuple(Repeat(s) for s in sizes)
        return replace(array, axes=(*array.axes[:axis], repeats, *array.axes[axis + 1 :]))
    wanted = list(sizes)
    place = 0
    while place < len(array.axes[axis]):
        size = array.size(array.axes[axis][place])
        got: list[int] = []
        while math.prod(got) < size:
            got.append(wanted.pop(0))
        if math.prod(got) != size:
            raise ValueError(axis)
        if len(got) > 1:
            array = split_atom(b, array, axis, place, tuple(got))
        place += max(len(got), 1)
    return array


def common_sizes(arrays: list[Array], axis: int) -> Shape:
    """The coarsest cutting of a program axis that respects every array's atoms."""
    cuts: set[int] = {1}
    total = 1
    for array in arrays:
        atoms = array.axes[axis]
        total = math.prod(array.size(a) for a in atoms)
        if all(isinstance(a, Repeat) for a in atoms):
            continue
        product = 1
        for atom in reversed(atoms):
            product *= array.size(atom)
            cuts.add(product)
    cuts.add(total)
    ordered = sorted(cuts)
    sizes = []
    for small, big in zip(ordered, ordered[1:]):
        if big % small:
            raise ValueError(axis)
        sizes.append(big // small)
    return tuple(reversed(sizes))


def one_position(b: Builder, a: Array, axis: int) -> Array | None:
    """The array with one program axis as exactly one position axis; None for a wide axis."""
    size = a.shape[axis]
    if any(isinstance(x, Position) for x in a.axes[axis]):
        # Channels beside positions, as after a pixel shuffle, are positions from here on.
        while channels := [x for x in a.axes[axis] if isinstance(x, Channel)]:
            a = spread_channel(b, a, channels[0].axis, wide=False)
    atoms = a.axes[axis]
    if len(atoms) == 1 and isinstance(atoms[0], Position):
        return a
    positions = tuple(x.axis for x in atoms if isinstance(x, Position))
    if len(positions) + sum(isinstance(x, Repeat) for x in atoms) < len(atoms):
        return None
    kept = [1 if isinstance(x, Repeat) else a.size(x) for x in atoms]
    full = [a.size(x) for x in atoms]

    def arrange(t: Any) -> Any:
        return jnp.broadcast_to(t.reshape(kept), full).reshape(size)

    node = b.select_any(a.node, positions, (size,), arrange, "arrange")
    left = [k for k in range(len(a.node.shape)) if k not in positions]
    rename = {k: i for i, k in enumerate(left)}
    axes = [
        tuple(replace(x, axis=rename[x.axis]) if isinstance(x, Position) else x for x in ax)
        if k != axis
        else (Position(len(left)),)
        for k, ax in enumerate(a.axes)
    ]
    return Array(node, tuple(axes), a.average)


def spread_channel(b: Builder, array: Array, axis: int, *, wide: bool) -> Array:
    """Read a channel axis as positions."""
    field = b.spread(array.field, axis)
    last = len(field.shape) - 1

    def shift(a: Atom) -> Atom:
        if isinstance(a, Channel):
            if a.axis == axis:
                return Position(last, wide)
            if a.axis > axis:
                return Channel(a.axis - 1)
        return a

    return Array(field, tuple(tuple(shift(a) for a in ax) for ax in array.axes))
