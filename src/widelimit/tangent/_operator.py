"""The tangent kernel as a linear operator: products with vectors, without the matrix."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from widelimit.batches import check_inputs, length
from widelimit.tangent._problem import Arrays, Problem, problem
from widelimit.tangent._vectors import forward, weighted

MEMORY = 1 << 30
"""Bytes of intermediate results, unless the caller says otherwise."""


def ntk_operator(
    f: Any,
    params: Any,
    x: PyTree,
    *,
    trainable: Any = None,
    weights: Any = None,
    damping: Any = 0.0,
    batch_size: int | None = None,
) -> Any:
    r"""The tangent kernel of a batch as a symmetric operator of lineax, never formed.

    .. math::
        (A v)_{a o} = \sum_{b o'} T(x_a, x_b)_{o o'} v_{b o'} + \lambda v_{a o}
        = (J \Lambda J^T v + \lambda v)_{a o}

    One backward and one forward pass through the network for each product. Vectors are pytrees
    shaped like the network's output for the whole batch, (n, *out). All output leaves belong to
    one vector, so that terms between leaves are included.

    Parameters
    ----------
    f, params, x, trainable, weights
        As for :func:`widelimit.empirical_ntk`; Λ is diagonal and holds the weights.
    damping
        λ, a number of at least zero, or a tracer.
    batch_size
        Examples that are differentiated at the same time; all of them unless given.

    Returns
    -------
    lineax.FunctionLinearOperator
        Tagged symmetric and positive semidefinite, for ``operator.mv``, ``lineax.linear_solve``
        with ``lineax.CG``, and sums with other operators.

    Raises
    ------
    ImportError
        If lineax is not installed.
    ValueError
        As for :func:`widelimit.empirical_ntk`.
    """
    try:
        import lineax  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        msg = "ntk_operator returns an operator of lineax: pip install 'widelimit[solvers]'"
        raise ImportError(msg) from error
    x, _, example = check_inputs(x, None, may_be_empty=True)
    n = length(x)
    if n == 0:
        msg = "x holds no examples"
        raise ValueError(msg)
    if batch_size is not None and batch_size < 1:
        msg = f"batch_size is at least 1, got {batch_size}"
        raise ValueError(msg)
    if not isinstance(damping, jax.core.Tracer) and not damping >= 0:
        msg = f"damping is at least 0, got {damping}"
        raise ValueError(msg)
    p = problem(f, params, example, trainable, weights)
    size = n if batch_size is None else min(batch_size, n)
    shapes = [jax.ShapeDtypeStruct((n, *s.shape), s.dtype) for s in p.outputs]
    structure = jax.tree.unflatten(p.structure, shapes)
    tags = (lineax.symmetric_tag, lineax.positive_semidefinite_tag)
    return lineax.FunctionLinearOperator(_product(p, x, n, size, damping), structure, tags)


def _product(p: Problem, x: Any, n: int, size: int, damping: Any) -> Any:
    arrays = p.arrays
    outputs = [p.function(k) for k in range(len(p.outputs))]

    def network(batch: Any) -> Any:
        one = lambda theta, e: [g(theta, arrays, e) for g in outputs]
        return lambda theta: jax.vmap(one, (None, 0))(theta, batch)

    def backwards(batch: Any, seed: Any) -> Any:
        (found,) = jax.vjp(network(batch), arrays.theta)[1](seed)
        return found

    def forwards(batch: Any, direction: Any) -> Any:
        return forward(network(batch), arrays.theta)(direction)

    def product(v: Any) -> Any:
        given = jax.tree.leaves(v)
        if size == n:
            # No loop, in which the compiler has slow convolutions only.
            flat = forwards(x, weighted(backwards(x, given), arrays.weights))
        else:
            flat = _in_batches(backwards, forwards, arrays, x, given, size)
        found = jax.tree.unflatten(p.structure, flat)
        return jax.tree.map(lambda a, b: a + jnp.asarray(damping, a.dtype) * b, found, v)

    return product


def _in_batches(
    backwards: Any, forwards: Any, arrays: Arrays, x: Any, given: list[Any], size: int
) -> list[Any]:
    """J (Λ J' v), some examples at a time."""
    n = length(x)
    steps = -(-n // size)
    # Examples are repeated to fill the last batch; what they are multiplied by is zero.
    fill = lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], steps * size - n, axis=0)])
    zeros = lambda a: jnp.concatenate([a, jnp.zeros((steps * size - n, *a.shape[1:]), a.dtype)])
    split = lambda a: a.reshape(steps, size, *a.shape[1:])
    whole = jax.tree.map(lambda a: split(fill(a)), x)

    def add(total: Any, now: Any) -> Any:
        return jax.tree.map(jnp.add, total, backwards(*now)), None

    start = tuple(jnp.zeros_like(t) for t in arrays.theta)
    gradient, _ = jax.lax.scan(add, start, (whole, [split(zeros(a)) for a in given]))
    direction = weighted(gradient, arrays.weights)
    _, out = jax.lax.scan(lambda _, batch: (None, forwards(batch, direction)), None, whole)
    return [a.reshape(steps * size, *a.shape[2:])[:n] for a in out]
