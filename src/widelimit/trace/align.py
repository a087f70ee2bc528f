"""Arrays of one program shape lined up atom by atom, as parts of one new node."""

from __future__ import annotations

import math
from dataclasses import dataclass

from widelimit.errors import AmbiguousScaleError, SharedAcrossWidthError, UnsupportedPrimitiveError
from widelimit.graph import channels as chan
from widelimit.graph import nodes as n
from widelimit.graph.build import Builder
from widelimit.graph.nodes import Part, Shape
from widelimit.trace.arrays import Array, Atom, Channel, Position, Repeat
from widelimit.trace.dependence import gaussian_leaves, is_constant_field, refuse_own_overlap
from widelimit.trace.regroup import common_sizes, refine, spread_channel


@dataclass(frozen=True)
class Aligned:
    """Operands as parts of one new node, and how the program sees that node."""

    parts: tuple[Part, ...]
    shape: Shape
    channels: Shape
    axes: tuple[tuple[Atom, ...], ...]


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
    refuse_own_overlap(b, [p.node for p in parts if isinstance(p.node, n.Field)])
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
            leaves = gaussian_leaves(arrays[i].node)
            from_layer = any(isinstance(s, n.Source | n.Overlap) for s in leaves)
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
        if isinstance(x, Channel) and not any(isinstance(s, n.Source | n.Overlap) for s in leaves):
            arrays[i] = spread_channel(b, arrays[i], x.axis, wide=False)


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
