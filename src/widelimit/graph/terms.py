"""Like terms of a sum, collected: h - h is nothing, and not two fields of order one.

What cancels leaves only what the law of large numbers dropped, and that must be seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from widelimit.graph import nodes as n
from widelimit.graph.apart import multiplied
from widelimit.graph.nodes import Part, whole, within

if TYPE_CHECKING:
    from widelimit.graph.build import Builder

_ROUNDING = 1e-14
"""A coefficient smaller than this beside its summands is their rounding error."""


def collected(b: Builder, terms: list[Part]) -> list[Part]:
    """The terms with the multiples of one field added up; those that cancel are left out."""
    groups: dict[tuple, list[tuple[float, Part, Part]]] = {}
    for t in terms:
        coefficient, base = _multiple(t)
        groups.setdefault((id(base.node), base.dims), []).append((coefficient, base, t))
    out: list[Part] = []
    for group in groups.values():
        coefficients = [c for c, _, _ in group]
        total, size = sum(coefficients), sum(map(abs, coefficients))
        _, base, term = group[0]
        if len(group) == 1:
            out.append(term)
        elif abs(total) > _ROUNDING * size:
            out.append(multiple(b, total, base))
    return out


def _multiple(part: Part) -> tuple[float, Part]:
    """A part as a number times another; values are left as they are."""
    node = part.node
    coefficient = 1.0
    while isinstance(node, n.Scale) and _is_number(node.factor.node):
        coefficient *= float(node.factor.node.array)  # type: ignore[attr-defined]
        part = within(node.operand, part.dims)
        node = part.node
    return coefficient, part


def _is_number(node: n.Node) -> bool:
    return (
        isinstance(node, n.Constant)
        and node.array.shape == ()
        and np.issubdtype(node.array.dtype, np.floating)
    )


def multiple(b: Builder, number: float, part: Part) -> Part:
    """A number times a part."""
    node, factor = part.node, Part(b.constant(np.asarray(number)), ())
    if isinstance(node, n.Value):
        return Part(multiplied(b, node.shape, factor, whole(node)), part.dims)
    assert isinstance(node, n.Field)
    return Part(b.scale(node.shape, node.channels, factor, whole(node)), part.dims)
