"""Fields computed place by place, from values of what they are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from widelimit.graph import nodes as n
from widelimit.graph.scalar import evaluate
from widelimit.limit.evaluate import times


def computed(node: n.Field, at: Callable[[n.Part], Any]) -> Any:
    """A pointwise field from the values of its parts, arrays that broadcast."""
    match node:
        case n.Sum(terms=terms):
            return sum(at(t) for t in terms)
        case n.Scale(factor=factor, operand=operand):
            return times(at(operand), at(factor))
        case n.Product(factors=factors):
            return math.prod(at(f) for f in factors)
        case n.Apply(expression=expression, root=root, values=values):
            return evaluate(expression, at(root), tuple(at(v) for v in values))
        case n.Mixed(function=function, operands=operands):
            blocks = [at(x) for x in operands]
            floats = [b.dtype for b in blocks if jnp.issubdtype(b.dtype, jnp.floating)]
            return function(*jnp.broadcast_arrays(*blocks)).astype(jnp.result_type(*floats))
    msg = f"{type(node).__name__} is not computed place by place"
    raise TypeError(msg)
