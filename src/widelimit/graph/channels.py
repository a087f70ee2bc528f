"""Change the channel axes of a field, down to the draws they come from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from widelimit.graph import nodes as n
from widelimit.graph.build import Builder
from widelimit.graph.nodes import Part, Shape

IndexMap = Callable[[np.ndarray], np.ndarray]


def take(b: Builder, field: n.Field, channel: int, chosen: np.ndarray) -> n.Field:
    """Keep the ``chosen`` places of a channel axis, in that order."""
    size = len(chosen)
    step = np.diff(chosen)
    if size > 1 and np.all(step == step[0]) and step[0] != 0:
        stop = int(chosen[-1]) + (1 if step[0] > 0 else -1)
        window = slice(int(chosen[0]), stop if stop >= 0 else None, int(step[0]))
        view = lambda i, k: i[(slice(None),) * k + (window,)]
        return _change(b, field, (channel,), (size,), view)
    return _change(b, field, (channel,), (size,), lambda i, k: np.take(i, chosen, axis=k))


def split(b: Builder, field: n.Field, channel: int, sizes: Shape) -> n.Field:
    """Split a channel axis into several, in row-major order."""

    def reshape(index: np.ndarray, k: int) -> np.ndarray:
        return index.reshape(*index.shape[:k], *sizes, *index.shape[k + 1 :])

    return _change(b, field, (channel,), sizes, reshape)


def permute(b: Builder, field: n.Field, order: tuple[int, ...]) -> n.Field:
    """Reorder the channel axes."""
    if order == tuple(range(len(order))):
        return field
    channels = tuple(field.channels[k] for k in order)

    def visit(node: n.Field) -> n.Field:
        match node:
            case n.Source(draw=draw):
                own = draw.own
                if own != len(node.channels):
                    msg = "reordering channels of a partly contracted field"
                    raise NotImplementedError(msg)
                moved = _reordered(b, draw, order)
                operand = node.operand
                if isinstance(node, n.Weighted):
                    assert isinstance(operand, n.Field)
                    operand = visit(operand)
                return b.resourced(
                    node, channels, draw=moved, operand=operand
                )
            case n.Copied(operand=operand, own=own):
                places = [order.index(k) for k in own]
                inner = sorted(range(len(own)), key=lambda i: places[i])
                return b.copied(
                    permute(b, operand, tuple(inner)), channels, tuple(sorted(places))
                )
            case n.Overlap(operand=operand):
                summed = len(operand.channels) - len(order)
                full = (*order, *range(len(order), len(order) + summed))
                return b.overlap(permute(b, operand, full), summed)
            case n.Entry(draw=draw) | n.Tangent(draw=draw):
                return _with_draw(b, node, _reordered(b, draw, order), channels, visit_part)
        return _through(b, node, channels, visit_part)

    def visit_part(p: Part) -> Part:
        if isinstance(p.node, n.Field) and p.node.channels:
            return Part(visit(p.node), p.dims)
        return p

    return visit(field)


def _reordered(b: Builder, draw: n.Draw, order: tuple[int, ...]) -> n.Draw:
    rest = range(draw.own, draw.entries.ndim)
    return b.draw(draw.leaf, np.transpose(draw.entries, (*order, *rest)), draw.own)


def _changed(b: Builder, draw: n.Draw, index: np.ndarray) -> n.Draw:
    return b.draw(draw.leaf, index, index.ndim - 1)


def _change(
    b: Builder,
    field: n.Field,
    old: tuple[int],
    new: Shape,
    change: Callable[[np.ndarray, int], np.ndarray],
) -> n.Field:
    (k,) = old

    def visit(node: n.Field, k: int) -> n.Field:
        channels = (*node.channels[:k], *new, *node.channels[k + 1 :])

        def visit_part(p: Part) -> Part:
            if isinstance(p.node, n.Field) and p.node.channels:
                return Part(visit(p.node, k), p.dims)
            return p

        match node:
            case n.Source(draw=draw):
                own = draw.own
                moved, operand = draw, node.operand
                if k < own:
                    moved = _changed(b, draw, change(draw.index, k))
                if k >= own or isinstance(node, n.Weighted):
                    assert isinstance(operand, n.Field)
                    operand = visit(operand, k if k < own else k - own)
                return b.resourced(node, channels, draw=moved, operand=operand)
            case n.Copied(operand=operand, own=places):
                further = len(new) - 1
                places = tuple(
                    x for p in places
                    for x in (range(k, k + len(new)) if p == k else (p + further * (p > k),))
                )
                if k in node.own:
                    operand = visit(operand, node.own.index(k))
                return b.copied(operand, channels, places)
            case n.Overlap(operand=operand):
                summed = len(operand.channels) - len(node.channels)
                return b.overlap(visit(operand, k), summed)
            case n.Entry(draw=draw) | n.Tangent(draw=draw):
                moved = _changed(b, draw, change(draw.index, k))
                return _with_draw(b, node, moved, channels, visit_part)
            case n.Spread():
                msg = "changing the channels beside a spread axis"
                raise NotImplementedError(msg)
        return _through(b, node, channels, visit_part)

    return visit(field, k)


def _with_draw(
    b: Builder, node: n.Field, draw: n.Draw, channels: Shape, visit_part: Callable[[Part], Part]
) -> n.Field:
    match node:
        case n.Entry():
            return b.entry(draw, node.scale, channels)
        case n.Tangent():
            return b.tangent(
                draw, node.scale, visit_part(node.factor), node.shape, channels, node.shared
            )
    raise TypeError(type(node))


def _through(
    b: Builder, node: n.Field, channels: Shape, visit_part: Callable[[Part], Part]
) -> n.Field:
    match node:
        case n.Map():
            operand = visit_part(n.whole(node.operand)).node
            assert isinstance(operand, n.Field)
            out = node.shape[len(node.shape) - node.n_out :]
            return b.map(
                operand, node.acted, out, node.function, node.values,
                selects=node.selects, name=node.name, along=node.along, matrix=node.matrix,
            )
        case n.Together():
            operands = tuple(
                visit_part(n.whole(x)).node if isinstance(x, n.Field) else x
                for x in node.operands
            )
            return b.together(node.function, operands, node.shape, channels, node.name)
        case n.Join():
            pieces = tuple(visit_part(n.whole(p)).node for p in node.pieces)
            return b.join(pieces, node.axis, channels)
    return b.rebuild(node, node.shape, channels, visit_part)
