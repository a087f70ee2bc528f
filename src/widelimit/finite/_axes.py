"""Which axes of the parameter arrays are widths: read off the graph of the network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from widelimit.graph import nodes as n
from widelimit.graph.walk import children, reachable
from widelimit.trace import Graph, Leaf

Axis = tuple[int, int]
"""A parameter's number and one of its axes."""

MAX_READINGS = 64


@dataclass(frozen=True)
class Growth:
    """How array sizes follow the width: axis size times ``multiplier ** power``."""

    powers: dict[Axis, int]

    def sizes(self, leaf: int, shape: tuple[int, ...], multiplier: float) -> tuple[int, ...] | None:
        """The grown shape of one parameter, None where a size is not whole."""
        out = []
        for axis, size in enumerate(shape):
            grown = size * multiplier ** self.powers.get((leaf, axis), 0)
            if abs(grown - round(grown)) > 1e-6 or round(grown) < 1:
                return None
            out.append(round(grown))
        return tuple(out)


def _varying(draw: n.Draw, axis: int, leaf: Leaf) -> list[Axis]:
    """The parameter's axes along which an axis of the draw moves."""
    line = draw.index[tuple(slice(None) if k == axis else 0 for k in range(draw.index.ndim))]
    if line.size < 2:
        return []
    places = np.unravel_index(line, leaf.shape)
    return [(draw.leaf, k) for k, p in enumerate(places) if np.any(p != p[0])]


@dataclass(frozen=True)
class _Contracted:
    """The channels of a source's operand that are summed over, those copied, those shared."""

    summed: tuple[int, ...]
    batch: dict[int, int]
    left: dict[int, int]


def _contracted(node: n.Source) -> _Contracted:
    """Which channels of the operand the parameter is contracted with, from their sizes."""
    if not isinstance(node.operand, n.Field):
        return _Contracted((), {}, {})
    sizes = node.operand.channels
    if isinstance(node, n.Weighted):
        return _Contracted((), {k: k for k in range(len(sizes))}, {})
    own = node.draw.own
    left_sizes = node.channels[own:]
    for count in range(len(sizes), -1, -1):
        for summed in itertools.combinations(range(len(sizes)), count):
            total = math.prod(sizes[k] for k in summed)
            if node.count % total:
                continue
            rest = [k for k in range(len(sizes)) if k not in summed]
            left: dict[int, int] = {}
            for place, size in enumerate(left_sizes):
                found = next((k for k in rest if sizes[k] == size and k not in left), None)
                if found is None:
                    break
                left[found] = own + place
            if len(left) < len(left_sizes):
                continue
            batch: dict[int, int] = {}
            for k in rest:
                if k in left:
                    continue
                match = next(
                    (c for c in range(own - 1, -1, -1)
                     if node.channels[c] == sizes[k] and c not in batch.values()),
                    None,
                )
                if match is not None:
                    batch[k] = match
            if len(batch) + len(left) == len(rest):
                return _Contracted(summed, batch, left)
    return _Contracted(tuple(range(len(sizes))), {}, {})


def last_layer(graph: Graph) -> tuple[int, ...]:
    """The random parameters in which the outputs are linear and that nothing else depends on."""
    top: set[int] = set()
    stack = [out.node for out in graph.outputs]
    while stack:
        node = stack.pop()
        if id(node) in top:
            continue
        match node:
            case n.Source() | n.Entry():
                top.add(id(node))
            case n.Scale():
                stack.append(node.operand.node)
            case n.Sum() | n.Map() | n.Join() | n.Spread():
                stack.extend(p.node for p in node.parts)
    nodes = reachable([out.node for out in graph.outputs])
    random = [s for s in nodes if isinstance(s, n.Source | n.Entry)]
    found = {s.draw.leaf for s in random if id(s) in top}
    deeper = {s.draw.leaf for s in random if id(s) not in top}
    return tuple(sorted(k for k in found - deeper if not graph.leaves[k].constant))


class Axes:
    """Channels of a graph traced back to the axes of the parameters they come from."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = reachable([out.node for out in graph.outputs])
        self._memo: dict[tuple[int, int], frozenset[Axis]] = {}
        self._contracted = {
            id(s): _contracted(s) for s in self.nodes if isinstance(s, n.Source)
        }
        self.hidden: frozenset[Axis] = frozenset(
            axis for node in self.nodes for k, operand in self._consumed(node)
            for axis in self.origin(operand, k)
        )

    def _consumed(self, node: n.Node) -> Iterator[tuple[int, n.Field]]:
        match node:
            case n.Source(operand=n.Field() as operand):
                for k in self._contracted[id(node)].summed:
                    yield k, operand
            case n.Overlap(operand=operand):
                for k in range(len(node.channels), len(operand.channels)):
                    yield k, operand
            case n.Expectation(operand=operand):
                for k in range(len(operand.channels)):
                    yield k, operand

    def origin(self, node: n.Node, channel: int) -> frozenset[Axis]:
        """The parameters' axes that a channel axis of a node runs along."""
        key = (id(node), channel)
        if key not in self._memo:
            self._memo[key] = frozenset(self._origin(node, channel))
        return self._memo[key]

    def _origin(self, node: n.Node, channel: int) -> Iterator[Axis]:
        if not isinstance(node, n.Field) or channel >= len(node.channels):
            return
        match node:
            case n.Source():
                own = node.draw.own
                if channel < own:
                    yield from _varying(node.draw, channel, self.graph.leaves[node.draw.leaf])
                found = self._contracted.get(id(node)) or _contracted(node)
                for k, c in (*found.batch.items(), *found.left.items()):
                    if c == channel:
                        yield from self.origin(node.operand, k)
            case n.Entry() | n.Tangent():
                if channel < node.draw.own:
                    yield from _varying(node.draw, channel, self.graph.leaves[node.draw.leaf])
                if isinstance(node, n.Tangent):
                    yield from self.origin(node.factor.node, channel)
            case n.Overlap(operand=operand):
                yield from self.origin(operand, channel)
            case n.Copied(operand=operand, own=own) if channel in own:
                yield from self.origin(operand, own.index(channel))
            case n.Copied():
                return
            case n.Spread():
                before = node.operand.channels
                gone = next(
                    (k for k in range(len(before) - 1, -1, -1)
                     if before[:k] + before[k + 1 :] == node.channels),
                    len(before) - 1,
                )
                yield from self.origin(node.operand, channel + (channel >= gone))
            case _:
                for part in node.parts:
                    yield from self.origin(part.node, channel)

    # ------------------------------------------------------------------- growth

    def widths(self) -> list[int]:
        """The sizes of the sums over width."""
        out = []
        for node in self.nodes:
            sizes = [operand.channels[k] for k, operand in self._consumed(node)]
            if sizes:
                out.append(math.prod(sizes))
        return out

    def depth(self) -> int:
        """The largest number of parameter layers on a path to the output."""
        depth: dict[int, int] = {}
        for node in self.nodes:
            below = max((depth[id(c)] for c in children(node)), default=0)
            depth[id(node)] = below + isinstance(node, n.Source)
        return max((depth[id(out.node)] for out in self.graph.outputs), default=0)

    def hidden_growths(self) -> Iterator[Growth]:
        """Ways to grow every hidden width, the likeliest first.

        A parameter's own channel axis grows once. An axis that is contracted with channels grows
        with them; which axis that is follows from the sizes, and where several fit, each way is
        given in turn.
        """
        choices: dict[int, list[dict[Axis, int]]] = {}
        for node in self.nodes:
            if isinstance(node, n.Source) and node.draw.leaf not in choices:
                options = list(self._contracted_growth(node))
                if options:
                    choices[node.draw.leaf] = options
        own = {axis: 1 for axis in self.hidden}
        for picked in itertools.islice(itertools.product(*choices.values()), MAX_READINGS):
            powers = dict(own)
            for option in picked:
                for axis, power in option.items():
                    powers[axis] = max(power, powers.get(axis, 0))
            yield Growth(powers)

    def _contracted_growth(self, node: n.Source) -> Iterator[dict[Axis, int]]:
        groups = self._groups(node)
        if not groups:
            return
        leaf = self.graph.leaves[node.draw.leaf]
        last = node.draw.own
        inner = _varying(node.draw, last, leaf)
        if not inner:
            return
        fits = [
            sorted(
                (a for a in inner if leaf.shape[a[1]] % size == 0),
                key=lambda a, size=size: leaf.shape[a[1]] != size,
            ) or inner
            for size in groups
        ]
        for picked in itertools.product(*fits):
            powers: dict[Axis, int] = {}
            for axis in picked:
                powers[axis] = powers.get(axis, 0) + 1
            yield powers

    def _groups(self, node: n.Source) -> list[int]:
        """Sizes of the contracted channels, those along one parameter axis taken together."""
        groups: list[tuple[frozenset[Axis], int]] = []
        for k, operand in self._consumed(node):
            axes, size = self.origin(operand, k), operand.channels[k]
            for other in [g for g in groups if g[0] & axes]:
                groups.remove(other)
                axes, size = axes | other[0], size * other[1]
            groups.append((axes, size))
        return [size for axes, size in groups if axes]
