"""Which nodes are reached from which."""

from __future__ import annotations

from widelimit.graph import nodes as n


def reachable(roots: list[n.Node], *, through_values: bool = True) -> list[n.Node]:
    """The nodes that the roots depend on, inputs first; or only up to the first values met."""
    order: list[n.Node] = []
    seen: set[int] = set()
    stack: list[tuple[n.Node, bool]] = [(r, False) for r in reversed(roots)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            if through_values or isinstance(node, n.Field):
                stack.extend((c, False) for c in reversed(children(node)))
    return order


def children(node: n.Node) -> list[n.Node]:
    """The nodes a node is computed from."""
    match node:
        case n.Compute(arguments=arguments):
            return list(arguments)
        case n.Expectation(operand=operand):
            return [operand]
        case n.OneHot(index=index):
            return [index]
        case n.Source(operand=operand) | n.Overlap(operand=operand):
            return [operand]
        case n.Tangent(factor=factor):
            return [factor.node]
        case n.Together(operands=operands):
            return list(operands)
        case n.Scale(factor=factor, operand=operand):
            return [factor.node, operand.node]
        case n.Map(operand=operand, values=values):
            return [operand, *values]
        case n.Apply(root=root, values=values):
            return [root.node, *(v.node for v in values)]
        case n.Field():
            return [p.node for p in node.parts]
    return []
