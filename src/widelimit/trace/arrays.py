"""What a program variable holds while a network is read, and how two of them line up.

A node of the graph has position axes and channel axes of its own; the program's array shows them
in some arrangement. Every program axis is a tuple of atoms, so that reshapes and transposes only
regroup atoms and the width axis is known without being declared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from widelimit.errors import AmbiguousScaleError, SharedAcrossWidthError, UnsupportedPrimitiveError
from widelimit.graph import channels as chan
from widelimit.graph import nodes as n
from widelimit.graph.build import Builder
from widelimit.graph.index import Relation
from widelimit.graph.nodes import Part, Shape
from widelimit.trace.averages import Average


@dataclass(frozen=True)
class Position:
    """Position axis ``axis`` of the node; ``wide`` if a width axis was read as positions."""

    axis: int
    wide: bool = False


@dataclass(frozen=True)
class Channel:
    """Channel axis ``axis`` of the node."""

    axis: int


@dataclass(frozen=True)
class Repeat:
    """The array is constant along this axis."""

    size: int


Atom = Position | Channel | Repeat


@dataclass(frozen=True, eq=False)
class Array:
    """A value or a field in the program's arrangement."""

    node: n.Node
    axes: tuple[tuple[Atom, ...], ...]
    average: Average | None = None

    @property
    def known(self) -> bool:
        """Whether this is deterministic given the example."""
        return isinstance(self.node, n.Value)

    @property
    def field(self) -> n.Field:
        """The field; only where ``known`` is false."""
        assert isinstance(self.node, n.Field)
        return self.node

    @property
    def value(self) -> n.Value:
        """The value; only where ``known`` is true."""
        assert isinstance(self.node, n.Value)
        return self.node

    def size(self, atom: Atom) -> int:
        """The length of an atom."""
        match atom:
            case Position(axis):
                return self.node.shape[axis]
            case Channel(axis):
                return self.field.channels[axis]
            case Repeat(size):
                return size

    @property
    def shape(self) -> Shape:
        """The program's shape."""
        return tuple(math.prod(self.size(a) for a in axis) for axis in self.axes)


@dataclass(frozen=True, eq=False)
class Parameter:
    """Entries of a parameter, times a constant, not used yet."""

    leaf: int
    index: np.ndarray
    scale: float = 1.0

    @property
    def shape(self) -> Shape:
        """The program's shape."""
        return self.index.shape


@dataclass(frozen=True, eq=False)
class Concatenation:
    """Pieces of different kinds joined along ``axis``."""

    pieces: tuple[Array | Parameter, ...]
    axis: int

    @property
    def shape(self) -> Shape:
        """The program's shape."""
        shape = list(self.pieces[0].shape)
        shape[self.axis] = sum(self.sizes)
        return tuple(shape)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The lengths of the pieces."""
        return tuple(p.shape[self.axis] for p in self.pieces)


Operand = Array | Parameter | Concatenation


def known_array(b: Builder, array: Any) -> Array:
    """A constant of the program, as small as it can be written."""
    array = np.asarray(array)
    axes: list[tuple[Atom, ...]] = []
    index: list[Any] = []
    count = 0
    for k, size in enumerate(array.shape):
        if size == 0:
            axes.append((Position(count),))
            index.append(slice(None))
            count += 1
        elif size == 1:
            axes.append(())
            index.append(0)
        elif np.all(array == np.take(array, [0], axis=k)):
            axes.append((Repeat(size),))
            index.append(0)
        else:
            axes.append((Position(count),))
            index.append(slice(None))
            count += 1
    return Array(b.constant(array[tuple(index)]), tuple(axes))


def value_array(value: n.Value) -> Array:
    """A value whose program axes are its position axes."""
    axes = tuple(() if s == 1 else (Position(k),) for k, s in enumerate(value.shape))
    return Array(value, axes)


def is_constant(array: Operand) -> bool:
    """Whether the array is a constant of the program."""
    return isinstance(array, Array) and isinstance(array.node, n.Constant)


def concrete(array: Array) -> np.ndarray:
    """A constant of the program in its full shape."""
    assert isinstance(array.node, n.Constant)
    return np.asarray(materialise(array, array.node.array, np))


def materialise(array: Array, block: Any, xp: Any) -> Any:
    """The program's array from the node's own block of numbers."""
    order = [a.axis for axis in array.axes for a in axis if isinstance(a, Position)]
    left_out = [k for k in range(len(array.node.shape)) if k not in order]
    block = xp.transpose(block, (*left_out, *order))
    block = xp.reshape(block, block.shape[len(left_out) :])
    wide = [array.size(a) if isinstance(a, Position) else 1 for axis in array.axes for a in axis]
    full = [array.size(a) for axis in array.axes for a in axis]
    return xp.reshape(xp.broadcast_to(xp.reshape(block, wide), full), array.shape)


# --------------------------------------------------------------------------- regrouping


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


# --------------------------------------------------------------------------- lining up


@dataclass(frozen=True)
class Aligned:
    """Operands as parts of one new node, and how the program sees that node."""

    parts: tuple[Part, ...]
    shape: Shape
    channels: Shape
    axes: tuple[tuple[Atom, ...], ...]


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


def align(b: Builder, arrays: list[Array]) -> Aligned:
    """Line up arrays of one program shape (or scalars) atom by atom."""
    rank = max(len(a.axes) for a in arrays)
    full = [i for i, a in enumerate(arrays) if len(a.axes) == rank]
    arrays = list(arrays)
    for axis in range(rank):
        try:
            sizes = common_sizes([arrays[i] for i in full], axis)
            for i in full:
                arrays[i] = refine(b, arrays[i], axis, sizes)
        except ValueError as bad:
            raise UnsupportedPrimitiveError(
                "two arrays meet whose axes are grouped differently",
                why="the same program axis is cut into factors that do not divide each other.",
                remedy="reshape both arrays in the same way before combining them.",
                where=b.where,
            ) from bad
        for place in range(len(sizes)):
            _spread_where_needed(b, arrays, full, axis, place)
    shape: list[int] = []
    channels: list[int] = []
    axes: list[tuple[Atom, ...]] = []
    where_is: dict[tuple[int, int], Atom] = {}
    for axis in range(rank):
        atoms: list[Atom] = []
        for place in range(max(len(arrays[i].axes[axis]) for i in full)):
            here = [(arrays[i], arrays[i].axes[axis][place]) for i in full]
            size = here[0][0].size(here[0][1])
            if any(isinstance(a, Channel) for _, a in here):
                atom: Atom = Channel(len(channels))
                channels.append(size)
            elif any(isinstance(a, Position) for _, a in here):
                wide = any(isinstance(a, Position) and a.wide for _, a in here)
                atom = Position(len(shape), wide)
                shape.append(size)
            else:
                atom = Repeat(size)
            where_is[(axis, place)] = atom
            atoms.append(atom)
        axes.append(tuple(atoms))
    parts = tuple(_part(b, a, where_is, tuple(channels)) for a in arrays)
    _refuse_own_overlap(b, [p.node for p in parts if isinstance(p.node, n.Field)])
    return Aligned(parts, tuple(shape), tuple(channels), tuple(axes))


def _spread_where_needed(
    b: Builder, arrays: list[Array], full: list[int], axis: int, place: int
) -> None:
    atoms = {i: arrays[i].axes[axis][place] for i in full}
    positions = {i: a for i, a in atoms.items() if isinstance(a, Position)}
    if not positions:
        _spread_tables(b, arrays, atoms)
        return
    wide = any(a.wide for a in positions.values())
    for i, atom in atoms.items():
        if isinstance(atom, Channel):
            _refuse_weight_pattern(b, arrays[i])
            from_layer = any(isinstance(s, n.Source) for s in gaussian_leaves(arrays[i].node))
            beside_known = all(arrays[j].known for j in positions)
            arrays[i] = spread_channel(
                b, arrays[i], atom.axis, wide=wide or (from_layer and beside_known)
            )


def _spread_tables(b: Builder, arrays: list[Array], atoms: dict[int, Atom]) -> None:
    """A table of parameters, one row for each repeat of a wide field: its rows are positions."""
    repeated = any(
        isinstance(x, Repeat)
        and not arrays[i].known
        and any(isinstance(y, Channel) for axis in arrays[i].axes for y in axis)
        for i, x in atoms.items()
    )
    if not repeated:
        return
    for i, x in atoms.items():
        leaves = gaussian_leaves(arrays[i].node)
        if isinstance(x, Channel) and not any(isinstance(s, n.Source) for s in leaves):
            arrays[i] = spread_channel(b, arrays[i], x.axis, wide=False)


def refuse_copies(b: Builder, field: n.Field, summed: set[int]) -> None:
    """A sum over channels that are copies of each other has to be over all channels.

    Raises
    ------
    SharedAcrossWidthError
        If what they share stays: the sum is then not Gaussian, and its mean is random.
    """
    left = set(range(len(field.channels))) - summed
    if summed & field.alike and (left or field.alone):
        raise SharedAcrossWidthError(
            "a sum over channels that share random numbers",
            why="what they share, such as the attention weights of one head, does not average "
            "out in the sum.",
            remedy="sum over the heads as well, in one layer.",
            where=b.where,
        )


def _refuse_own_overlap(b: Builder, fields: list[n.Field]) -> None:
    """A sum over channels, repeated over them again, beside one of the fields that it sums.

    Channel by channel they are independent in the limit, but their mean product falls off as
    1/sqrt(width) only, more slowly than the fluctuations that are followed elsewhere.
    """
    for field in fields:
        summed = [d for x in field.overlaps for d in x.operand.draws]
        others = [d for x in fields if x is not field for d in n.draws_of(x)]
        if any(d.relation(e) is not Relation.DISJOINT for d in summed for e in others):
            raise SharedAcrossWidthError(
                "a sum over channels meets one of the fields that it sums",
                why="it is independent of each channel only up to 1/sqrt(width), and over all "
                "channels that adds up.",
                remedy="use other weights for the field that the sum multiplies (in attention, "
                "other weights for the values than for queries and keys).",
                where=b.where,
            )


def is_constant_field(node: n.Node) -> bool:
    """Whether a field is the same in every draw: constants that are trained."""
    return all(isinstance(x, n.Tangent | n.Value) for x in gaussian_leaves(node))


def _refuse_weight_pattern(b: Builder, array: Array) -> None:
    """A weight matrix times a fixed pattern: its entries would become millions of positions."""
    leaves = gaussian_leaves(array.node)
    entries = all(isinstance(x, n.Entry | n.Tangent | n.Value) for x in leaves)
    spread = [k for k in array.node.shape if k > 1]
    if entries and spread and math.prod((*spread, *array.field.channels)) > 4096:
        raise UnsupportedPrimitiveError(
            "a weight is multiplied by a pattern that changes from entry to entry",
            why="its entries are then not identically distributed (a mask or a fixed rescaling "
            "of a weight matrix).",
            remedy="apply the pattern to the input or the output of the layer, or use separate "
            "parameters for its blocks.",
            where=b.where,
        )


def _part(
    b: Builder, array: Array, where_is: dict[tuple[int, int], Atom], channels: Shape
) -> Part:
    dims = [0] * len(array.node.shape)
    order: dict[int, int] = {}  # where a channel of the node ends up -> the channel
    for axis, atoms in enumerate(array.axes):
        for place, atom in enumerate(atoms):
            target = where_is[(axis, place)]
            if isinstance(atom, Position):
                assert isinstance(target, Position)
                dims[atom.axis] = target.axis
            elif isinstance(atom, Channel):
                assert isinstance(target, Channel)
                order[target.axis] = atom.axis
    node = array.node
    if isinstance(node, n.Field):
        if len(order) < len(channels):
            node = share(b, node, channels, order)
        else:
            node = chan.permute(b, node, tuple(order[k] for k in sorted(order)))
    return Part(node, tuple(dims))


def share(b: Builder, node: n.Field, channels: Shape, own: dict[int, int]) -> n.Field:
    """Broadcast a field over channels: a constant parameter, or one with other channels left."""
    if own and not is_constant_field(node):
        places = tuple(sorted(own))
        return b.copied(chan.permute(b, node, tuple(own[k] for k in places)), channels, places)

    def part(p: Part) -> Part:
        return p if isinstance(p.node, n.Value) else Part(visit(p.node), p.dims)

    def visit(node: n.Node) -> n.Field:
        match node:
            case n.Tangent():
                return b.tangent(node.draw, node.scale, node.factor, node.shape, channels, True)
            case n.Sum() | n.Scale() | n.Apply():
                return b.rebuild(node, node.shape, channels, part)
        if isinstance(node, n.Overlap):
            raise AmbiguousScaleError(
                f"a sum over {node.count} channels that stays random is used by all channels",
                why="divided by sqrt(width) the sum does not become deterministic, and the limit "
                "is a mixture of Gaussian processes, not one.",
                remedy="divide the sum by the width, or take many such sums (the heads of an "
                "attention layer) and add up what they weigh in one layer.",
                where=b.where,
            )
        raise SharedAcrossWidthError(
            "one random number is used by all channels of a wide axis",
            why="the channels are then not independent of each other, and the limit is a mixture "
            "of Gaussian processes, not one.",
            remedy="give every channel its own parameter, or make the shared one a constant "
            "(a prior with std 0).",
            where=b.where,
        )

    return visit(node)


def gaussian_leaves(node: n.Node) -> list[n.Node]:
    """The sources and entries a node is made of, at its own layer."""
    if isinstance(node, n.Source | n.Overlap | n.Entry | n.Tangent | n.Value):
        return [node]
    assert isinstance(node, n.Field)
    return [leaf for p in node.parts for leaf in gaussian_leaves(p.node)]
