"""Fields computed place by place, from values of what they are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from widelimit.graph import nodes as n
from widelimit.graph.scalar import evaluate
from widelimit.limit.evaluate import is_mask, times


def computed(node: n.Field, at: Callable[[n.Part], Any]) -> Any:
    """A pointwise field from the values of its parts, arrays that broadcast.

    Comparisons and rounded numbers keep their types, as the functions of them expect.
    """
    count = lambda p: _counted(at(p))
    match node:
        case n.Sum(terms=terms):
            return sum(count(t) for t in terms)
        case n.Scale(factor=factor, operand=operand):
            return times(count(operand), at(factor))
        case n.Product(factors=factors):
            return math.prod(count(f) for f in factors)
        case n.Apply(expression=expression, root=root, values=values):
            return evaluate(expression, at(root), tuple(at(v) for v in values))
        case n.Mixed(function=function, operands=operands):
            return function(*jnp.broadcast_arrays(*(at(x) for x in operands)))
    msg = f"{type(node).__name__} is not computed place by place"
    raise TypeError(msg)


def _counted(array: Any) -> Any:
    """Truth values as numbers."""
    return array.astype(jnp.int8) if is_mask(array) else array
