"""The scalar functions of a graph as dual activations, made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit import duals
from widelimit.errors import NotGaussianError
from widelimit.graph import nodes as n
from widelimit.graph.scalar import evaluate

Function = Callable[..., Any]


class Activations:
    """Activations by node, their products and their derivatives, shared by all evaluations."""

    def __init__(self) -> None:
        self._table: dict[tuple, Any] = {}
        self._keep: list[Any] = []

    def of(self, node: n.Apply) -> duals.Activation:
        """The activation of a pointwise node."""
        return self._once(("node", id(node)), (node,), lambda: _make(node))

    def product(self, a: duals.Activation, b: duals.Activation) -> duals.Activation:
        """U -> a(u) b(u); the parameters of both, one after the other."""

        def make() -> duals.Activation:
            k = a.n_params
            both = lambda u, *p: a.fn(u, *p[:k]) * b.fn(u, *p[k:])
            return duals.Activation(both, n_params=k + b.n_params)

        return self._once(("product", id(a), id(b)), (a, b), make)

    def derivative(self, a: duals.Activation) -> duals.Activation:
        """U -> a'(u), as automatic differentiation gives it."""

        def make() -> duals.Activation:
            slope = lambda u, *p: jax.jvp(lambda t: a.fn(t, *p), (u,), (jnp.ones_like(u),))[1]
            return duals.Activation(slope, n_params=a.n_params)

        return self._once(("derivative", id(a)), (a,), make)

    def _once(self, key: tuple, keep: tuple, make: Callable[[], Any]) -> Any:
        if key not in self._table:
            self._keep.extend(keep)
            self._table[key] = make()
        return self._table[key]


def _make(node: n.Apply) -> duals.Activation:
    def function(u: Any, *parameters: Any) -> Any:
        u = jnp.asarray(u)
        out = jnp.asarray(evaluate(node.expression, u, parameters))
        shape = jnp.broadcast_shapes(u.shape, *(jnp.shape(p) for p in parameters))
        return jnp.broadcast_to(out, shape).astype(u.dtype)

    check_finite(node)
    return duals.Activation(function, n_params=len(node.values))


def check_finite(node: n.Apply) -> None:
    """Refuse functions without a second moment under a Gaussian.

    Raises
    ------
    NotGaussianError
        For a pole, the logarithm of a negative number, or growth like exp(u²).
    """
    if node.values:
        return
    grid = np.concatenate([np.linspace(-9, 9, 1441), [-1e-300, 1e-300, -0.4371, 0.7913]])
    with np.errstate(all="ignore"), jax.ensure_compile_time_eval():
        out = np.asarray(evaluate(node.expression, grid), np.float64)
        tail = np.asarray(evaluate(node.expression, np.array([-30.0, 30.0])), np.float64)
    name = getattr(node.expression, "name", "function")
    grows = np.any(np.abs(tail) > 1e34) or not np.all(np.isfinite(tail))
    inner = np.abs(out[:1441])
    with np.errstate(all="ignore"):
        neighbours = np.maximum(inner[:-8], inner[8:])
        spikes = inner[4:-4] > 1e3 * (neighbours + 1e-3 * np.median(inner) + 1e-30)
    poles = np.any(spikes & (inner[4:-4] > 1e2))
    if np.all(np.isfinite(out)) and not grows and not poles:
        return
    raise NotGaussianError(
        f"`{name}` is not finite, or grows too fast, on a Gaussian value",
        why="its second moment under a Gaussian does not exist (a pole, the logarithm of a "
        "negative number, or growth like exp(u²)).",
        remedy="bound the argument, for instance add a positive constant to a denominator that "
        "is a square.",
        where=node.where,
    )
