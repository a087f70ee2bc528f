"""Contractions with a parameter: where the central limit theorem makes a Gaussian field."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from widelimit.errors import SharedAcrossWidthError, WideLimitError
from widelimit.graph import channels as chan
from widelimit.graph import nodes as n
from widelimit.graph.build import Builder
from widelimit.graph.windows import Window
from widelimit.trace.arrays import (
    Array,
    Atom,
    Channel,
    Concatenation,
    Operand,
    Parameter,
    Position,
    Repeat,
)
from widelimit.trace.averages import refuse
from widelimit.trace.dependence import is_constant_field, refuse_copies
from widelimit.trace.joining import concatenate
from widelimit.trace.leaves import Leaves, as_array, constant_along, narrow
from widelimit.trace.pointwise import elementwise
from widelimit.trace.reduce import reduce_sum
from widelimit.trace.structure import broadcast, transpose

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


def free_axes(rank: int, *used: Axes) -> list[int]:
    """The axes that are not used."""
    return [k for k in range(rank) if not any(k in u for u in used)]


@dataclass(frozen=True)
class Taps:
    """One spatial axis of a convolution, on the parameter and on the operand."""

    parameter: int
    operand: int
    window: Window


def with_parameter(
    b: Builder,
    leaves: Leaves,
    p: Parameter,
    u: Operand,
    dims: Dims,
    *,
    parameter_first: bool,
    beside: int = 0,
    taps: tuple[Taps, ...] = (),
) -> Operand:
    """A parameter contracted with anything else.

    ``dims.left`` speaks of the parameter, ``dims.right`` of the operand. ``beside`` is the size of
    what the operand is joined with, in the same sum. The free axes of the operand named in
    ``taps`` are walked over by the parameter's.

    Raises
    ------
    SharedAcrossWidthError
        If one entry multiplies a whole wide axis, or all copies along one.
    """
    if isinstance(u, Concatenation):
        return _with_pieces(b, leaves, p, u, dims, parameter_first=parameter_first, taps=taps)
    if isinstance(u, Parameter):
        u = as_array(b, leaves, u)
    info = leaves.infos[p.leaf]
    if u.average is not None and not u.average.settled:
        raise refuse("dot_general", u.average, b.where)
    tapped = tuple(t.parameter for t in taps)
    p_free = free_axes(p.index.ndim, dims.left_contract, dims.left_batch, tapped)
    u_free = free_axes(len(u.axes), dims.right_contract, dims.right_batch)
    batch = [x for k in dims.right_batch for x in u.axes[k]]
    inner = [x for k in dims.right_contract for x in u.axes[k]]
    index = np.transpose(p.index, (*dims.left_batch, *p_free, *dims.left_contract, *tapped))
    index = index.reshape(
        [u.size(x) for x in batch]
        + [p.index.shape[k] for k in p_free]
        + [u.size(x) for x in inner]
        + [p.index.shape[k] for k in tapped]
    )
    first_summed = len(batch) + len(p_free)
    varies = [not constant_along(index, k) for k in range(index.ndim)]
    if any(not varies[k] and index.shape[k] > 1 for k in range(first_summed, index.ndim)):
        raise SharedAcrossWidthError(
            f"one entry of parameter `{info.name}` multiplies a whole contracted axis",
            why="the terms of the sum are then not independent.",
            remedy="sum first and multiply afterwards.",
            where=b.where,
        )
    # Own channels: free axes that vary, then batch axes that vary along channels or repeats.
    own = [k for k in range(len(batch), first_summed) if varies[k]]
    own += [k for k, x in enumerate(batch) if varies[k] and not isinstance(x, Position)]
    separate = [k for k, x in enumerate(batch) if varies[k] and isinstance(x, Position)]
    draw = _draw(b, leaves, p.leaf, index, own, separate, first_summed)

    shared = [x for k, x in enumerate(batch) if isinstance(x, Channel) and not varies[k]]
    shared += [x for k in u_free for x in u.axes[k] if isinstance(x, Channel)]
    weighted = _is_weighted(b, u, inner, shared)
    if not u.known:
        refuse_copies(b, u.field, {x.axis for x in inner if isinstance(x, Channel)})
    if shared and not n.zero_mean(u.node):
        raise _shared(b)
    count = math.prod(u.size(x) for x in inner if not isinstance(x, Position))
    summed = [x.axis for x in inner if isinstance(x, Position)]
    averaged = math.prod(u.size(x) for x in inner if _wide(x))
    if not weighted and not u.known and not is_constant_field(u.node):
        narrow(b, averaged + beside)
    kept = [x.axis for x in batch if isinstance(x, Position)]
    kept += [x.axis for k in u_free for x in u.axes[k] if isinstance(x, Position)]
    windows: list[tuple[int, Window]] = []
    for t in taps:
        (atom,) = u.axes[t.operand]
        assert isinstance(atom, Position)
        windows.append((atom.axis, t.window))
    own_shape = tuple(index.shape[k] for k in own)
    operand = _beside_weights(b, u.field, batch, own, own_shape) if weighted else u.node
    field: n.Field = b.source(
        draw, operand, tuple(kept), tuple(summed), tuple(batch[k].axis for k in separate),  # type: ignore[union-attr]
        count, p.scale, (*own_shape, *(u.size(x) for x in shared)), tuple(windows),
        n.Weighted if weighted else n.Source,
    )

    # The program's axes of the result.
    def seen(x: Atom) -> Atom:
        match x:
            case Position(axis, wide):
                return Position(kept.index(axis), wide)
            case Channel():
                return Channel(len(own) + shared.index(x))
        return x

    owned = {k: Channel(i) for i, k in enumerate(own)}
    places = iter(range(len(batch)))
    batch_axes = []
    for k in dims.right_batch:
        here = [(next(places), x) for x in u.axes[k]]
        batch_axes.append(tuple(owned.get(place) or seen(x) for place, x in here))
    new_axes: list[tuple[Atom, ...]] = []
    for place, axis in enumerate(p_free, len(batch)):
        size = p.index.shape[axis]
        repeat: tuple[Atom, ...] = (Repeat(size),) if size > 1 else ()
        new_axes.append((owned[place],) if place in owned else repeat)
    other_axes = [tuple(seen(x) for x in u.axes[k]) for k in u_free]
    middle = (*new_axes, *other_axes) if parameter_first else (*other_axes, *new_axes)
    result = Array(field, (*batch_axes, *middle))
    if info.mean:
        if taps:
            msg = "a kernel whose entries have a mean."
            raise NotImplementedError(msg)
        return _add_mean(b, result, info.mean * p.scale, u, dims, u_free, parameter_first)
    return result


def _wide(x: Atom) -> bool:
    return isinstance(x, Channel) or (isinstance(x, Position) and x.wide)


def _draw(
    b: Builder, leaves: Leaves, leaf: int, index: np.ndarray, own: list[int],
    separate: list[int], first_summed: int,
) -> n.Draw:
    """The random numbers of one use: own channels, then everything that is summed."""
    used = {*own, *separate, *range(first_summed, index.ndim)}
    block = index[tuple(slice(None) if k in used else 0 for k in range(index.ndim))]
    order = sorted(used)
    summed = range(first_summed, index.ndim)
    block = np.transpose(block, [order.index(k) for k in (*own, *separate, *summed)])
    leaves.use(b, leaf, block, len(own) + len(separate))
    return b.draw(leaf, block, len(own))


def _is_weighted(b: Builder, u: Array, inner: list[Atom], shared: list[Channel]) -> bool:
    """Whether a random operand is multiplied by parameters without a sum over width.

    Raises
    ------
    SharedAcrossWidthError
        If the same parameters multiply all of its channels.
    """
    if u.known or is_constant_field(u.node) or any(_wide(x) for x in inner):
        return False
    if any(isinstance(x, Repeat) for x in inner):
        return False
    if shared or not u.field.channels:
        raise SharedAcrossWidthError(
            "a parameter acts on positions only, and all channels of a wide axis share it",
            why="a sum over so many positions is not Gaussian, and the channels that share its "
            "weights are not independent; with finitely many positions there is no limit.",
            remedy="give every channel weights of its own, mix positions by a constant matrix, "
            "or sample finite networks instead.",
            where=b.where,
        )
    return True


def _beside_weights(
    b: Builder, field: n.Field, batch: list[Atom], own: list[int], channels: tuple[int, ...]
) -> n.Field:
    """The operand in the channels of its weights; those it does not have repeat it."""
    places = {
        i: batch[k].axis for i, k in enumerate(own)  # type: ignore[union-attr]
        if k < len(batch) and isinstance(batch[k], Channel)
    }
    order = tuple(places[i] for i in sorted(places))
    return b.copied(chan.permute(b, field, order), channels, tuple(sorted(places)))


def _shared(b: Builder) -> SharedAcrossWidthError:
    return SharedAcrossWidthError(
        "a parameter is contracted with one of several wide axes",
        why="the same weights act on every copy along the other wide axis, and the copies "
        "have a common mean, so the results are not independent.",
        remedy="contract all wide axes, or give every copy its own weights.",
        where=b.where,
    )


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


def _with_pieces(
    b: Builder,
    leaves: Leaves,
    p: Parameter,
    u: Concatenation,
    dims: Dims,
    *,
    parameter_first: bool,
    taps: tuple[Taps, ...],
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
            with_parameter(
                b, leaves, q, piece, dims, parameter_first=parameter_first,
                beside=u.shape[u.axis] - size if u.axis in dims.right_contract else 0, taps=taps,
            )
        )
        start += size
    if u.axis in dims.right_contract:
        arrays = [as_array(b, leaves, r) for r in results]
        return elementwise(b, "add", lambda *x: sum(x), arrays, None)
    tapped = tuple(t.parameter for t in taps)
    p_free = free_axes(p.index.ndim, dims.left_contract, dims.left_batch, tapped)
    u_free = free_axes(len(u.shape), dims.right_contract, dims.right_batch)
    if u.axis in dims.right_batch:
        axis = dims.right_batch.index(u.axis)
    else:
        axis = len(dims.right_batch) + u_free.index(u.axis)
        axis += len(p_free) if parameter_first else 0
    return concatenate(b, results, axis)
