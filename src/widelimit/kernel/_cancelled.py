"""Fields whose terms may cancel, and leave only what the law of large numbers dropped.

The reader bounds sizes from above, and cannot see ``W h - W (h - mean(h))`` cancel, nor whether a
mean over width is zero. Such fields are rare; the second moments of sums are computed at a few
inputs, and compared with those of the terms, and such means are computed.
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
from widelimit.graph.entangled import entangled
from widelimit.graph.walk import children, reachable
from widelimit.limit.activations import Activations
from widelimit.limit.evaluate import ZERO, Evaluation, Side, deep
from widelimit.limit.moments import moment
from widelimit.trace import Graph
from widelimit.trace.averages import is_scaled_up, scaled_up

_EXAMPLES = 3
_SMALL = 0.1
"""A mean that is less than this part of its summand's size does not count as of order one."""
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
    nodes = reachable([x.node for x in graph.suspects])
    with _concretely(), deep(len(graph.nodes)):
        own, zero = _cancellations(graph, nodes, _inputs(example), trainable)
    lost: dict[n.Node, float] = {}
    for node in nodes:
        below = max((lost[c] for c in children(node)), default=0.0)
        lost[node] = below + own.get(node, 0.0)
    sizes = graph.sizes.settled(zero)
    for node, where in graph.suspects:
        size = sizes.of(node)
        if is_scaled_up(size, size.kept - lost[node]):
            raise scaled_up(size.width, where)


def _concretely() -> AbstractContextManager[None]:
    """Numbers and not tracers, also inside of a caller's trace."""
    traced = isinstance(jnp.zeros(()), jax.core.Tracer)
    return jax.ensure_compile_time_eval() if traced else nullcontext()


def _cancellations(
    graph: Graph, nodes: list[n.Node], inputs: list[jax.Array], trainable: tuple[bool, ...]
) -> tuple[dict[n.Node, float], set[n.Node]]:
    """The logarithm of how much smaller each sum is than its own terms allow.

    And the fields whose mean is zero, or too small to tell, of those where it matters.
    """
    activations = Activations()
    stds = [1.0 if leaf.std is None else leaf.std for leaf in graph.leaves]
    sums = [x for x in nodes if isinstance(x, n.Sum) or (isinstance(x, n.Map) and not x.selects)]
    doubts = [graph.sizes.doubts[x] for x in nodes if x in graph.sizes.doubts]
    summed = list(dict.fromkeys(x for d in doubts for x in d.summands))
    unknown: list[n.Node] = []
    drawn = entangled(nodes)

    def run(leaves: list[Any]) -> tuple[list[tuple[Any, Any]], list[Any]]:
        side = Side(leaves, _EXAMPLES)
        ev = Evaluation(
            (side, side), stds, trainable, float_dtype(leaves), activations, with_tangent=False,
            entangled=drawn,
        )
        unknown.clear()
        found = []
        for node in sums:
            try:
                found.append((_bound(ev, node), _mean_square(_size(ev, node))))
            except WideLimitError:
                unknown.append(node)
                found.append((1.0, 0.0))
        means = []
        for node in summed:
            try:
                part = _mean_square(ev.mean(node, 0)) / _mean_square(_size(ev, node))
                means.append(jnp.sqrt(part))
            except WideLimitError:
                means.append(0.0)
        return found, means

    # As one program, unless a series would be compiled anew for every layer.
    staged = activations.series([*sums, *summed], derivative=False)
    pairs, means = run(inputs) if staged else jax.jit(run)(inputs)
    zero = {node for node, mean in zip(summed, means) if not float(mean) > _SMALL}
    own = {node: _lost(float(a), float(b)) for node, (a, b) in zip(sums, pairs)}
    # What cannot be computed cannot be cleared.
    return {**own, **dict.fromkeys(unknown, math.inf)}, zero


def _lost(bound: float, square: float) -> float:
    """The logarithm of a bound over what is there, given as its square; at least zero."""
    if square == 0:
        return math.inf if bound > 0 else 0.0
    return max(math.log(bound) - math.log(square) / 2, 0.0) if bound > 0 else 0.0


def _bound(ev: Evaluation, node: n.Node) -> Any:
    """What the terms of a sum would add up to if none cancelled."""
    if isinstance(node, n.Sum):
        return jnp.sqrt(sum(_mean_square(_size(ev, t.node)) for t in node.terms))
    assert isinstance(node, n.Map)
    # Positions that are independent add up to so much less, and what was dropped of each is then
    # as independent.
    terms = math.prod(node.operand.shape[k] for k in node.acted)
    return jnp.max(_coherent(ev, node)) / math.sqrt(max(terms, 1))


def _mean_square(size: Any) -> Any:
    return jnp.mean(size**2)


def _size(ev: Evaluation, node: n.Node) -> Any:
    """The root of the second moment at every position, shape (examples or 1, *shape)."""
    if isinstance(node, n.Value):
        return jnp.abs(ev.value(node, 0))
    own = tuple(range(len(node.shape)))
    block = ev.at(moment, node, own, node, own, len(own), "left")
    square = jnp.zeros((1,) * (1 + len(own)), ev.dtype) if block is ZERO else jnp.asarray(block)
    return jnp.broadcast_to(jnp.sqrt(jnp.maximum(square, 0)), (len(square), *node.shape))


def _coherent(ev: Evaluation, node: n.Map) -> Any:
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
    weights = jnp.sum(jnp.abs(matrix), axis=1)
    return jnp.max(weights) * size


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
