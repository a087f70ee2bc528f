"""Fields that are functions of several dependent Gaussian fields, for which there is no formula.

The state of a gated recurrent cell, h' = z h + (1 - z) tanh(a + r b), depends on the gates of all
earlier steps, which share their weights. Its moments are drawn (``limit/particles.py``). Which
fields are drawn is decided here, once: all that one parameter multiplies is drawn or nothing is,
so that the covariances of one layer are moments of the same draws, and consistent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from widelimit.graph import nodes as n
from widelimit.graph.walk import children, reachable


@dataclass(frozen=True)
class Entangled:
    """The fields of a graph that are drawn.

    Attributes
    ----------
    fields
        Their ids.
    above
        The ids of all nodes that are computed from them, and of themselves.
    roots
        How many Gaussian fields they are functions of.
    """

    fields: frozenset[int] = frozenset()
    above: frozenset[int] = frozenset()
    roots: int = 0


def entangled(outputs: list[n.Node]) -> Entangled:
    """Find the fields that are drawn."""
    nodes = reachable(outputs)
    found = {id(x) for x in nodes if isinstance(x, n.Field) and _is_seed(x)}
    if not found:
        return Entangled()
    operands = _operands(nodes)
    while True:
        before = len(found)
        for x in nodes:
            if isinstance(x, n.Field) and x.drawable and not x.gaussian and _is_over(x, found):
                found.add(id(x))
        for pieces in operands.values():
            if any(id(x) in found for x in pieces):
                found |= {id(x) for x in pieces if x.drawable and not x.gaussian}
        if len(found) == before:
            break
    above = set(found)
    for x in nodes:
        if any(id(c) in above for c in children(x)):
            above.add(id(x))
    roots, _ = below([x for x in nodes if isinstance(x, n.Field) and id(x) in found])
    return Entangled(frozenset(found), frozenset(above), len(roots))


def _is_over(node: n.Field, found: set[int]) -> bool:
    return any(id(p.node) in found for p in parts(node))


def _operands(nodes: list[n.Node]) -> dict[int, list[n.Field]]:
    """By parameter, the fields that it multiplies."""
    out: dict[int, list[n.Field]] = defaultdict(list)
    for x in nodes:
        if isinstance(x, n.Source):
            out[x.draw.leaf] += _pieces(x.operand)
    return out


def _pieces(node: n.Node) -> list[n.Field]:
    """What linear maps and joins over positions are made of."""
    match node:
        case n.Value():
            return []
        case n.Map(operand=operand) | n.Spread(operand=operand) | n.Copied(operand=operand):
            return _pieces(operand)
        case n.Join(pieces=pieces):
            return [x for p in pieces for x in _pieces(p)]
        case n.Sum() | n.Scale() if not node.drawable:
            return [x for p in node.parts for x in _pieces(p.node)]
    assert isinstance(node, n.Field)
    return [node]


def _is_seed(node: n.Field) -> bool:
    if not node.drawable:
        return False
    if isinstance(node, n.Mixed):
        return True
    if not isinstance(node, n.Product):
        return False
    functions = [list(_functions(f.node)) for f in node.factors]
    return any(
        x.root.node is not y.root.node and n.related(x, y)
        for i, first in enumerate(functions) for second in functions[i + 1 :]
        for x in first for y in second
    )


def _functions(node: n.Node) -> Iterator[n.Apply]:
    """The functions of one Gaussian that a field is made of."""
    if isinstance(node, n.Apply):
        yield node
    elif isinstance(node, n.Field) and not node.gaussian:
        for p in parts(node):
            yield from _functions(p.node)


def below(fields: list[n.Field]) -> tuple[list[n.Field], list[n.Value]]:
    """The Gaussian fields and the known values that fields are functions of."""
    roots: list[n.Field] = []
    values: list[n.Value] = []
    seen: set[int] = set()
    stack: list[n.Node] = list(fields)
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, n.Value):
            values.append(node)
        elif isinstance(node, n.Field):
            if is_root(node):
                roots.append(node)
            else:
                stack += [p.node for p in parts(node)]
    return roots, values


def is_root(node: n.Field) -> bool:
    """Whether it is a Gaussian field of mean zero, to be drawn as it is."""
    return node.gaussian and n.zero_mean(node)


def parts(node: n.Field) -> tuple[n.Part, ...]:
    """What a drawn field is computed from."""
    return (n.whole(node.operand),) if isinstance(node, n.Copied) else n.pointwise_parts(node)
