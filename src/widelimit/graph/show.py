"""Print a graph as a table a person can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from widelimit.graph import nodes as n
from widelimit.graph.scalar import show
from widelimit.graph.walk import children, reachable

Layouts = Mapping[int, tuple[tuple[bool, ...], int]]
"""By the id of a node: which position axes are tied, and bytes per pair."""


def table(
    outputs: tuple[Any, ...], names: tuple[str, ...], layouts: Layouts | None = None
) -> str:
    """One line per node: number, kind, what it is made of, axes, layout, and the source line."""
    nodes = reachable([o.node for o in outputs])
    number = {id(x): i for i, x in enumerate(nodes)}
    layout = ("layout", "bytes/pair") if layouts is not None else ()
    rows = [("", "node", "of", "positions", "channels", *layout, "line")]
    for i, node in enumerate(nodes):
        of = " ".join(f"%{number[id(c)]}" for c in children(node))
        where = getattr(node, "where", None)
        line = f"{where.file.rsplit('/', 1)[-1]}:{where.line}" if where else ""
        field = isinstance(node, n.Field)
        channels = _by(node.channels) if field else "known"
        asked = () if layouts is None else _asked(node, layouts)
        rows.append((f"%{i}", _name(node, names), of, _by(node.shape), channels, *asked, line))
    widths = [max(len(r[k]) for r in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows
    )


def _by(sizes: tuple[int, ...]) -> str:
    return " × ".join(map(str, sizes)) or "1"


def _asked(node: n.Node, layouts: Layouts) -> tuple[str, str]:
    """Whether pairs of positions are computed, or only each position with itself."""
    if not isinstance(node, n.Field):
        return "", ""
    if id(node) not in layouts:
        return "not asked", ""
    tied, size = layouts[id(node)]
    words = ["tied" if t else "full" for t in tied]
    same = len(set(words)) == 1
    return (words[0] if same else " × ".join(words)), f"{size:,}"


def _name(node: n.Node, names: tuple[str, ...]) -> str:
    match node:
        case n.Constant(array=array):
            return f"constant {float(array):.4g}" if array.shape == () else "constant"
        case n.Input(number=number):
            return f"input {number}"
        case n.Compute(name=name):
            return f"compute {name}"
        case n.Source(draw=draw):
            return f"source {names[draw.leaf]}"
        case n.Entry(draw=draw):
            return f"entry {names[draw.leaf]}"
        case n.Tangent(draw=draw):
            return f"tangent {names[draw.leaf]}"
        case n.Apply(expression=expression):
            return f"apply {show(expression, 1)}"
        case n.Map(name=name):
            return f"map {name}"
        case n.Together(name=name):
            return f"together {name}"
        case n.Mixed(name=name):
            return f"mixed {name}"
    return type(node).__name__.lower()
