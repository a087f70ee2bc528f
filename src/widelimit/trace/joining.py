"""Arrays joined along one axis: positions become one axis, other kinds stay apart."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from widelimit.errors import UnsupportedPrimitiveError
from widelimit.graph import channels as chan
from widelimit.graph import joins
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
    known_shaped,
    materialise,
)
from widelimit.trace.regroup import common_sizes, one_position, refine
from widelimit.trace.structure import transpose


def concatenate(b: Builder, pieces: list[Operand], axis: int) -> Operand:
    """Join along one axis; position axes become one, other kinds stay apart."""
    flat: list[Array | Parameter] = []
    for p in pieces:
        if isinstance(p, Concatenation):
            if p.axis != axis:
                raise UnsupportedPrimitiveError(
                    "arrays joined from different kinds along one axis are joined along another",
                    why="the two seams cross.",
                    remedy="concatenate along one axis only.",
                    where=b.where,
                )
            flat.extend(p.pieces)
        else:
            flat.append(p)
    arrays = [p for p in flat if isinstance(p, Array)]
    if len(arrays) == len(flat) and _joinable(arrays, axis):
        return _join(b, arrays, axis)
    return Concatenation(tuple(flat), axis)


def _joinable(arrays: list[Array], axis: int) -> bool:
    atoms = [x for a in arrays for x in a.axes[axis]]
    if any(isinstance(x, Channel) for x in atoms):
        return False
    wide = [isinstance(x, Position) and x.wide for x in atoms]
    fields = [a for a in arrays if not a.known]
    if any(wide) or not fields:
        return not fields
    # Every piece must show the same channels in the same places.
    first = fields[0]
    kinds = lambda a: [
        [isinstance(x, Channel) for x in ax] for k, ax in enumerate(a.axes) if k != axis
    ]
    sizes_agree = all(kinds(a) == kinds(first) for a in fields)
    return sizes_agree and len(fields) == len(arrays)


def _join(b: Builder, arrays: list[Array], axis: int) -> Array:
    if all(a.known for a in arrays):
        values = tuple(a.value for a in arrays)
        shape = list(arrays[0].shape)
        shape[axis] = sum(a.shape[axis] for a in arrays)

        def call(*blocks: Any) -> Any:
            full = [materialise(a, x, jnp) for a, x in zip(arrays, blocks)]
            return jnp.concatenate(full, axis).reshape([s for s in shape if s != 1])

        kept = tuple(s for s in shape if s != 1)
        node = b.compute("concatenate", call, values, kept, arrays[0].value.dtype)
        return known_shaped(node, tuple(shape))
    rest = [k for k in range(len(arrays[0].axes)) if k != axis]
    order = (*rest, axis)
    moved = [transpose(b, a, order) for a in arrays]
    heads = [m.shape[-1] for m in moved]
    length = sum(heads)
    nodes: list[n.Node] = []
    axes: tuple[tuple[Atom, ...], ...] = ()
    sizes = [common_sizes([m for m in moved if isinstance(m, Array)], k)
             for k in range(len(rest))]
    for m, head in zip(moved, heads):
        assert isinstance(m, Array)
        a = m
        for k, cut in enumerate(sizes):
            a = refine(b, a, k, cut)
        a = _as_positions(b, a, head)
        nodes.append(a.node)
        axes = a.axes
    last = len(nodes[0].shape) - 1
    field = b.join(tuple(nodes), last, nodes[0].channels)  # type: ignore[attr-defined]
    out = Array(field, axes)
    assert out.shape[-1] == length
    return transpose(b, out, tuple(np.argsort(order)))  # type: ignore[return-value]


def _as_positions(b: Builder, a: Array, head: int) -> Array:
    """Repeats become positions and the joined axis comes last, so that pieces agree."""
    if len(a.axes[-1]) > 1:
        merged = one_position(b, a, len(a.axes) - 1)
        assert merged is not None  # no channels are joined here
        a = merged
    a = _reopened(b, a)
    joined: tuple[Atom, ...] = a.axes[-1] or (Repeat(head),)
    axes: list[tuple[Atom, ...]] = []
    positions: list[tuple[int | None, int]] = []  # where it was (None for a repeat), and its size
    channels: list[int] = []
    for atoms in (*a.axes[:-1], joined):
        seen: list[Atom] = []
        for x in atoms:
            if isinstance(x, Channel):
                seen.append(Channel(len(channels)))
                channels.append(x.axis)
            else:
                seen.append(Position(len(positions)))
                positions.append((x.axis if isinstance(x, Position) else None, a.size(x)))
        axes.append(tuple(seen))
    order = [was for was, _ in positions if was is not None]
    repeats = [i for i, (was, _) in enumerate(positions) if was is None]
    shape = tuple(size for _, size in positions)

    def arrange(t: Any) -> Any:
        return jnp.broadcast_to(jnp.expand_dims(jnp.transpose(t, order), repeats), shape)

    field = chan.permute(b, a.field, tuple(channels))
    last = positions[-1][0]
    if not repeats and last is not None and order[:-1] == sorted(order[:-1]):
        if last != len(shape) - 1:
            # One axis moves to the end: all of its places, chosen along it.
            everything = lambda t, axis: t  # noqa: ARG005
            field = b.map(
                field, (last,), shape[-1:], lambda t: t, pure=True, name="take", along=everything
            )
        return Array(field, tuple(axes))
    acted = tuple(range(len(field.shape)))
    if order != list(acted) or repeats:
        field = b.map(field, acted, shape, arrange, pure=True, name="arrange")
    return Array(field, tuple(axes))


def _reopened(b: Builder, a: Array) -> Array:
    """A place taken from an axis, and repeated, as positions of that axis again."""
    if any(isinstance(x, Position) for x in a.axes[-1]):
        return a
    field = joins.reopened(b, a.field)
    if field is None:
        return a
    last, size = len(field.shape) - 1, a.shape[-1]
    if size > 1:
        again = lambda t, k: jnp.take(t, np.zeros(size, int), k)
        field = b.map(
            field, (last,), (size,), lambda t: again(t, 0), pure=True, name="take", along=again
        )
    return Array(field, (*a.axes[:-1], (Position(last),)), a.average)
