"""Fields whose terms may cancel, and leave only what the law of large numbers dropped.

The reader bounds sizes from above, and cannot see ``W h - W (h - mean(h))`` cancel. Such fields are
rare; the second moments of sums are computed at a few inputs, and compared with those of the terms.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.batches import float_dtype
from widelimit.errors import WideLimitError
from widelimit.graph import nodes as n
from widelimit.graph.walk import children, reachable
from widelimit.limit.activations import Activations
from widelimit.limit.evaluate import ZERO, Evaluation, Side, deep
from widelimit.limit.moments import moment
from widelimit.trace import Graph
from widelimit.trace.averages import is_scaled_up, scaled_up

_EXAMPLES = 3
_LARGEST = 256
"""Entries up to which the matrix of a linear map is written out."""


def check_suspects(graph: Graph, example: Any, trainable: tuple[bool, ...]) -> None:
    """Refuse a network with a field that consists of what was dropped.

    Raises
    ------
    AmbiguousScaleError
        If a factor of the width makes the fluctuation of a mean matter.
    """
    if not graph.suspects:
        return
    stds = [1.0 if leaf.std is None else leaf.std for leaf in graph.leaves]
    with _concretely(), deep(len(graph.nodes)):
        inputs = _inputs(example)
        side = Side(inputs, _EXAMPLES)
        ev = Evaluation(
            (side, side), stds, trainable, float_dtype(inputs), Activations(), with_tangent=False
        )
        lost = _cancellations(ev, [x.node for x in graph.suspects])
        for node, size, where in graph.suspects:
            if is_scaled_up(size, size.kept - lost[node]):
                raise scaled_up(size.width, where)


def _concretely() -> AbstractContextManager[None]:
    """Numbers and not tracers, also inside of a caller's trace."""
    traced = isinstance(jnp.zeros(()), jax.core.Tracer)
    return jax.ensure_compile_time_eval() if traced else nullcontext()


def _cancellations(ev: Evaluation, nodes: list[n.Node]) -> dict[n.Node, float]:
    """The logarithm of how much smaller each node is than its terms, and theirs, allow."""
    lost: dict[n.Node, float] = {}
    for node in reachable(nodes):
        below = max((lost[c] for c in children(node)), default=0.0)
        try:
            own = _own_cancellation(ev, node)
        except WideLimitError:
            own = math.inf  # what cannot be computed cannot be cleared
        lost[node] = below + own
    return lost


def _own_cancellation(ev: Evaluation, node: n.Node) -> float:
    match node:
        case n.Sum(terms=terms):
            most = [_size(ev, t.node) for t in terms]
            bound = math.sqrt(sum(float(np.mean(x**2)) for x in most))
        case n.Map(selects=False):
            # Positions that are independent add up to so much less, and what was dropped of
            # each is then as independent.
            terms = math.prod(node.operand.shape[k] for k in node.acted)
            bound = float(np.max(_coherent(ev, node))) / math.sqrt(max(terms, 1))
        case _:
            return 0.0
    size = math.sqrt(float(np.mean(_size(ev, node) ** 2)))
    if size == 0:
        return math.inf if bound > 0 else 0.0
    return max(math.log(bound / size), 0.0) if bound > 0 else 0.0


def _size(ev: Evaluation, node: n.Node) -> np.ndarray:
    """The root of the second moment at every position, shape (examples or 1, *shape)."""
    if isinstance(node, n.Value):
        return np.abs(np.asarray(ev.value(node, 0)))
    own = tuple(range(len(node.shape)))
    block = ev.at(moment, node, own, node, own, len(own), "left")
    square = np.zeros((1,) * (1 + len(own))) if block is ZERO else np.asarray(block)
    return np.broadcast_to(np.sqrt(np.maximum(square, 0.0)), (len(square), *node.shape))


def _coherent(ev: Evaluation, node: n.Map) -> np.ndarray:
    """What a linear map could make of its operand if nothing cancelled: Σ |a_i| size_i."""
    size = _size(ev, node.operand)
    shape = tuple(node.operand.shape[k] for k in node.acted)
    terms = math.prod(shape)
    if terms > _LARGEST:
        return terms * size
    values = [ev.value(v, 0) for v in node.values]
    count = max([1, *(len(v) for v in values)])
    values = [jnp.broadcast_to(v, (count, *v.shape[1:])) for v in values]
    basis = jnp.eye(terms, dtype=ev.dtype).reshape(terms, *shape)
    one = lambda *v: jax.vmap(lambda e: node.function(e, *v))(basis)
    matrix = jax.vmap(one)(*values) if values else one()[None]
    weights = np.sum(np.abs(np.asarray(matrix)), axis=1)
    return np.max(weights) * size


def _inputs(example: Any) -> list[jax.Array]:
    """Inputs to look at: Gaussian, or zeros where they are no real numbers."""
    rng = np.random.default_rng(0)
    return [
        jnp.asarray(
            rng.normal(size=(_EXAMPLES, *s.shape))
            if jnp.issubdtype(s.dtype, jnp.floating) else np.zeros((_EXAMPLES, *s.shape)), s.dtype,
        )
        for s in jax.tree.leaves(example)
    ]
