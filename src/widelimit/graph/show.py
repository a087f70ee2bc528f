"""Print a graph as a table a person can read."""

from __future__ import annotations

from typing import Any

from widelimit.graph import nodes as n
from widelimit.graph.scalar import show
from widelimit.graph.walk import children, reachable


def table(outputs: tuple[Any, ...], names: tuple[str, ...]) -> str:
    """One line per node: number, kind, what it is made of, axes, and the source line."""
    nodes = reachable([o.node for o in outputs])
    number = {id(x): i for i, x in enumerate(nodes)}
    rows = [("", "node", "of", "positions", "channels", "line")]
    for i, node in enumerate(nodes):
        of = " ".join(f"%{number[id(c)]}" for c in children(node))
        where = getattr(node, "where", None)
        line = f"{where.file.rsplit('/', 1)[-1]}:{where.line}" if where else ""
        channels = str(node.channels) if isinstance(node, n.Field) else "known"
        rows.append((f"%{i}", _name(node, names), of, str(node.shape), channels, line))
    widths = [max(len(r[k]) for r in rows) for k in range(6)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows
    )


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
    return type(node).__name__.lower()
