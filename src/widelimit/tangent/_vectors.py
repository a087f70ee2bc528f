"""Kernel columns from products with vectors: nothing is kept of an example."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.tangent._axes import Axes
from widelimit.tangent._problem import Arrays

Function = Callable[[Sequence[Any], Arrays, Any], Any]
"""(parameters, the other arrays, one example) -> one output."""


def weighted(gradient: Sequence[Any], weights: Sequence[Any]) -> tuple[Any, ...]:
    """A gradient times what each parameter counts; None is one."""
    return tuple(g if w is None else g * w for g, w in zip(gradient, weights))


@dataclass
class Vectors:
    """Kernel columns T e = J (J' e), one backward and one forward pass for each."""

    function: Function
    axes: Axes
    dtype: Any
    memory: int

    def of(self, arrays: Arrays, x: Any) -> Any:
        """Nothing is kept but the examples."""
        del arrays
        return x

    def kernel(self, arrays: Arrays, left: Any, right: Any) -> Any:
        """Shape (n1, n2, *axes.result)."""
        axes = self.axes
        theta = arrays.theta
        batch = lambda t: jax.vmap(lambda x: self.function(t, arrays, x))(left)
        push = forward(batch, theta)
        count = math.prod(axes.shape)
        # A tangent of all parameters, and what a forward pass keeps of it.
        held = 3 * sum(t.size * t.dtype.itemsize for t in theta)
        columns = max(1, self.memory // max(held, 1))

        def example(x: Any) -> Any:
            _, pull = jax.vjp(lambda t: self.function(t, arrays, x), theta)

            def column(index: Any) -> Any:
                seed = jnp.zeros(count, self.dtype).at[index].set(1).reshape(axes.shape)
                tangent = weighted(pull(seed)[0], arrays.weights)
                out = push(tuple(tangent))
                where = jnp.unravel_index(index, axes.shape)
                for k in reversed(axes.tied):
                    out = jnp.take(out, where[k], axis=1 + k)
                return out

            return jax.lax.map(column, jnp.arange(count), batch_size=min(columns, count))

        n2 = jax.tree.leaves(right)[0].shape[0]
        many = max(1, min(columns // max(count, 1), n2))
        found = jax.lax.map(example, right, batch_size=many)
        return self._arranged(found)

    def _arranged(self, found: Any) -> Any:
        """From (n2, outputs of x2, n1, *free outputs of x1)."""
        axes = self.axes
        n2, _, n1, *free = found.shape
        found = found.reshape(n2, *axes.shape, n1, *free)
        if axes.trace:
            found = found.mean(tuple(1 + k for k in axes.trace))
        left = [k for k in range(len(axes.shape)) if k not in axes.trace]
        place = {k: 1 + i for i, k in enumerate(left)}
        at = 1 + len(left)
        order = [at, 0, *(place[k] for k in axes.diagonal)]
        order += [at + 1 + i for i in range(len(free))]
        order += [place[k] for k in axes.free]
        return jnp.transpose(found, order)


def forward(f: Callable[[Any], Any], theta: Any) -> Callable[[Any], Any]:
    """The derivative of ``f`` as a function of tangents.

    A function with a derivative of its own for the backward pass only has its backward pass
    transposed instead.
    """
    try:
        push = jax.linearize(f, theta)[1]
        # The refusal may come with the first batch of tangents only.
        several = jax.tree.map(lambda t: jax.ShapeDtypeStruct((2, *t.shape), t.dtype), theta)
        jax.eval_shape(jax.vmap(push), several)
        return push
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
    value, pull = jax.vjp(f, theta)
    push = jax.linear_transpose(lambda seed: pull(seed)[0], value)
    return lambda tangent: push(tangent)[0]
