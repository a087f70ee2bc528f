"""Fields whose terms may cancel, and leave only what the law of large numbers dropped.

The reader bounds sizes from above, and cannot see ``W h - W (h - mean(h))`` cancel. Such fields are
rare; their second moment is computed at a few inputs, and compared.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.errors import WideLimitError
from widelimit.graph.sizes import NOTHING
from widelimit.kernel._inputs import float_dtype
from widelimit.limit.activations import Activations
from widelimit.limit.evaluate import ZERO, Evaluation, Side, deep
from widelimit.limit.moments import moment
from widelimit.trace import Graph
from widelimit.trace.averages import is_scaled_up, scaled_up

_EXAMPLES = 3


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
    with jax.ensure_compile_time_eval(), deep(len(graph.nodes)):
        inputs = _inputs(example)
        side = Side(inputs, _EXAMPLES)
        ev = Evaluation(
            (side, side), stds, trainable, float_dtype(inputs), Activations(), with_tangent=False
        )
        for node, size, where in graph.suspects:
            own = tuple(range(len(node.shape)))
            try:
                block = ev.at(moment, node, own, node, own, len(own), "left")
            except WideLimitError:
                kept = NOTHING  # what cannot be computed cannot be cleared
            else:
                kept = NOTHING if block is ZERO else _log_root_mean(np.asarray(block))
            if is_scaled_up(size, kept):
                raise scaled_up(size.width, where)


def _log_root_mean(square: np.ndarray) -> float:
    mean = float(np.mean(square))
    return 0.5 * math.log(mean) if mean > 0 else NOTHING


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
