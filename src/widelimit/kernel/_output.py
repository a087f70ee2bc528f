"""Moments of the output nodes, in the arrangement of axes that the program shows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.graph import nodes as n
from widelimit.graph.walk import reachable
from widelimit.limit.evaluate import ZERO, Evaluation
from widelimit.limit.moments import moment
from widelimit.limit.place import stretch
from widelimit.limit.tangents import tangent
from widelimit.trace import Graph
from widelimit.trace.arrays import Array as Seen
from widelimit.trace.arrays import Channel, Position, Repeat


def as_output(graph: Graph, out: list[list[Any]]) -> tuple:
    """One pytree like the network's output for each kernel."""
    return tuple(jax.tree.unflatten(graph.structure, one) for one in out)


def positions(graph: Graph) -> int:
    """Positions of the largest field."""
    fields = [x.shape for x in graph.nodes if isinstance(x, n.Field)]
    return max((int(np.prod(shape, dtype=int)) for shape in fields), default=1)


def pair_block(ev: Evaluation, out: Seen, kind: str) -> Any:
    """One output's kernel, shape (n1, n2, *positions, *positions)."""
    n1, n2 = ev.sides[0].size, ev.sides[1].size
    full = _full(ev, out, kind, "cross", (n1, n2))
    if ev.symmetric:
        own = _full(ev, out, kind, "left", (n1,))
        on = jnp.eye(n1, dtype=bool).reshape(n1, n1, *(1,) * (full.ndim - 2))
        full = jnp.where(on, own[:, None], full)
        if isinstance(out.node, n.Field) and _drawn(ev, out.node):
            half = (full.ndim - 2) // 2
            first, second = range(2, 2 + half), range(2 + half, 2 + 2 * half)
            # The upper half, so that tiles of the whole give the same.
            below = jnp.tril(jnp.ones((n1, n1), bool), -1).reshape(on.shape)
            mirrored = jnp.transpose(full, (1, 0, *second, *first))
            full = jnp.where(on, (full + mirrored) / 2, jnp.where(below, mirrored, full))
    return full


def _drawn(ev: Evaluation, node: n.Node) -> bool:
    """Whether some integral is taken by sampling, and errors are not the same on both sides."""
    if id(node) in ev.entangled.above:
        return True
    return any(isinstance(x, n.Together) for x in reachable([node]))


def diagonal_block(ev: Evaluation, out: Seen, kind: str) -> Any:
    """One output's kernel of each example with itself, shape (n, *positions)."""
    node = out.node
    r = len(node.shape)
    own = tuple(range(r))
    block = ev.at(moment if kind == "nngp" else tangent, node, own, node, own, r, "left")
    count = ev.sides[0].size
    if block is ZERO:
        block = jnp.zeros((1,) * (1 + r), ev.dtype)
    for k, size in enumerate((count, *node.shape)):
        block = stretch(block, k, size)
    order, sizes = _seen(out)
    block = jnp.transpose(block, (0, *(1 + k for k in order)))
    block = block.reshape(count, *(s if real else 1 for s, real in sizes))
    block = jnp.broadcast_to(block, (count, *(s for s, _ in sizes)))
    return block.reshape(count, *_axes_sizes(out))


def _full(ev: Evaluation, out: Seen, kind: str, pairing: Any, batch: tuple[int, ...]) -> Any:
    node = out.node
    r = len(node.shape)
    rule = moment if kind == "nngp" else tangent
    block = ev.at(rule, node, tuple(range(r)), node, tuple(range(r, 2 * r)), 2 * r, pairing)
    if block is ZERO:
        block = jnp.zeros((1,) * (len(batch) + 2 * r), ev.dtype)
    for k, size in enumerate((*batch, *node.shape, *node.shape)):
        block = stretch(block, k, size)
    order, sizes = _seen(out)
    b = len(batch)
    block = jnp.transpose(block, (*range(b), *(b + k for k in order), *(b + r + k for k in order)))
    return _with_repeats(block, b, out, sizes)


def _seen(out: Seen) -> tuple[list[int], list[tuple[int, bool]]]:
    """Positions in the order the program shows them, and every non-channel atom's size."""
    order, sizes = [], []
    for axis in out.axes:
        for atom in axis:
            if isinstance(atom, Position):
                order.append(atom.axis)
                sizes.append((out.size(atom), True))
            elif isinstance(atom, Repeat):
                sizes.append((out.size(atom), False))
    return order, sizes


def _axes_sizes(out: Seen) -> list[int]:
    """The sizes of the output's axes, without channels and axes of size one."""
    sizes = []
    for axis in out.axes:
        kept = [out.size(a) for a in axis if not isinstance(a, Channel)]
        if kept:
            sizes.append(int(np.prod(kept, dtype=int)))
    return sizes


def _with_repeats(block: Any, b: int, out: Seen, sizes: list[tuple[int, bool]]) -> Any:
    batch = block.shape[:b]
    thin = [s if real else 1 for s, real in sizes]
    full = [s for s, _ in sizes]
    block = block.reshape(*batch, *thin, *thin)
    block = jnp.broadcast_to(block, (*batch, *full, *full))
    axes = _axes_sizes(out)
    return block.reshape(*batch, *axes, *axes)
