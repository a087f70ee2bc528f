"""Gaussian fields with a mean, their known and their random part kept apart.

Sums are flattened, and linear operations carried out on the values and on the fields separately,
so that whoever meets a Gaussian field can take its mean off by looking at the terms of one sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from widelimit.graph import nodes as n
from widelimit.graph.arrange import in_axes
from widelimit.graph.nodes import Part, Shape, whole, within

if TYPE_CHECKING:
    from widelimit.graph.build import Builder


def flattened(terms: Iterable[Part]) -> list[Part]:
    """The terms of a sum, those of fields with a mean in their place."""
    flat: list[Part] = []
    for t in terms:
        if n.shifted(t.node):
            assert isinstance(t.node, n.Sum)
            flat += [within(p, t.dims) for p in t.node.terms]
        else:
            flat.append(t)
    return flat


def centred(b: Builder, node: n.Field) -> tuple[tuple[Part, ...], Part]:
    """The known parts of a Gaussian field, and the rest, of mean zero.

    Raises
    ------
    NotImplementedError
        If the mean is not written apart: no builder makes such a field.
    """
    if not n.shifted(node):
        if not n.zero_mean(node):
            msg = "a Gaussian field whose mean is not written apart"
            raise NotImplementedError(msg)
        return (), whole(node)
    known = tuple(t for t in node.parts if isinstance(t.node, n.Value))
    rest = tuple(t for t in node.parts if not isinstance(t.node, n.Value))
    if len(rest) == 1:
        return known, rest[0]
    return known, whole(b.add(node.shape, node.channels, rest))


def split(b: Builder, node: n.Node, channels: Shape) -> tuple[n.Value, n.Node]:
    """A Gaussian node as its mean and a node of mean zero, both in all of its axes."""
    if isinstance(node, n.Value):
        return node, b.constant(np.zeros(node.shape))
    assert isinstance(node, n.Field)
    known, rest = centred(b, node)
    zero: n.Value = b.constant(np.zeros(node.shape))
    if not known:
        return zero, node
    total: n.Value | None = None
    for t in known:
        full = multiplied(b, node.shape, Part(b.constant(np.ones((), _dtype(t))), ()), t)
        total = full if total is None else _added(b, total, full)
    assert total is not None
    return total, b.add(node.shape, channels, [rest])


def scale(b: Builder, shape: Shape, channels: Shape, factor: Part, operand: Part) -> n.Field:
    """A field with a mean times a known value, term by term."""
    scaled: list[n.Node] = []
    for p in operand.node.parts:  # type: ignore[attr-defined]
        t = within(p, operand.dims)
        if isinstance(t.node, n.Value):
            scaled.append(multiplied(b, shape, factor, t))
        else:
            scaled.append(b.scale(shape, channels, factor, t))
    return b.add(shape, channels, [whole(x) for x in scaled])


def multiplied(b: Builder, shape: Shape, first: Part, second: Part) -> n.Value:
    """The product of two values, in all axes of ``shape``."""
    x, y = first.node, second.node
    assert isinstance(x, n.Value)
    assert isinstance(y, n.Value)

    def product(x: Any, y: Any) -> Any:
        a, c = in_axes(x, first.dims, len(shape)), in_axes(y, second.dims, len(shape))
        select = np.where if isinstance(x, np.ndarray) else jnp.where
        both = select(a, c, 0) if a.dtype == bool and c.dtype != bool else a * c
        return np.broadcast_to(both, shape) if isinstance(both, np.ndarray) else jnp.broadcast_to(
            both, shape
        )

    if isinstance(x, n.Constant) and isinstance(y, n.Constant):
        return b.constant(np.asarray(product(x.array, y.array)))
    node = b.compute("mul", product, (x, y), shape, np.result_type(x.dtype, y.dtype))
    b.sizes.note(node, b.sizes.of(x).times(b.sizes.of(y)))
    return node


def joined(b: Builder, values: tuple[n.Value, ...], axis: int, shape: Shape) -> n.Value:
    """Values joined along an axis."""
    dtype = np.result_type(*(v.dtype for v in values))
    node = b.compute("concatenate", lambda *x: jnp.concatenate(x, axis), values, shape, dtype)
    b.sizes.note(node, b.sizes.largest(values))
    return node


def _added(b: Builder, x: n.Value, y: n.Value) -> n.Value:
    dtype = np.result_type(x.dtype, y.dtype)
    node = b.compute("add", lambda x, y: x + y, (x, y), x.shape, dtype)
    b.sizes.note(node, b.sizes.largest((x, y)))
    return node


def _dtype(part: Part) -> Any:
    assert isinstance(part.node, n.Value)
    return part.node.dtype
