"""How much a network's output changes with its input."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from widelimit.batches import check_inputs
from widelimit.models import parts


class JacobianNorm(NamedTuple):
    """Norms of the input-output Jacobian, one for each example."""

    value: Any
    standard_error: Any


def jacobian_norm(
    f: Any,
    params: Any,
    x: PyTree,
    *,
    probes: int | None = None,
    key: Array | None = None,
    batch_size: int = 64,
) -> JacobianNorm:
    r"""The Frobenius norm of the derivative of a network's output with respect to its input.

    .. math:: \|J(x)\|_F, \quad J(x) = \partial f(\theta, x)/\partial x, \qquad
        \|J\|_F^2 = E_v \|J^T v\|^2 \text{ for entries of } v = \pm 1

    Parameters
    ----------
    f, params, x
        As for :func:`widelimit.empirical_ntk`. Integer inputs are not differentiated.
    probes
        The number of random vectors v (Hutchinson's estimate, one backward pass each); exact
        unless given, with one backward pass for each output.
    key
        A random key, for the estimate.
    batch_size
        Examples that are differentiated at the same time.

    Returns
    -------
    JacobianNorm
        Arrays (n,): the norm, and its standard error, zero where it is exact.

    Raises
    ------
    ValueError
        If no input is real, there are fewer than two probes, or they come without a key.

    Notes
    -----
    Novak et al., Sensitivity and generalization in neural networks, 2018, equation 1.
    """
    x, _, _ = check_inputs(x, None, may_be_empty=True)
    leaves, tree = jax.tree.flatten(x)
    moving = [k for k, a in enumerate(leaves) if jnp.issubdtype(a.dtype, jnp.floating)]
    if not moving:
        msg = "the input is not real, so that the output has no derivative with respect to it"
        raise ValueError(msg)
    if probes is not None and (probes < 2 or key is None):
        msg = "an estimate takes probes=2 or more, and a random key"
        raise ValueError(msg)
    read = parts(f, params)

    def one(row: Any, number: Any) -> Any:
        def network(inputs: Any) -> Any:
            full = list(row)
            for k, a in zip(moving, inputs):
                full[k] = a
            out = read.apply(read.values, read.constants, jax.tree.unflatten(tree, full))
            return jnp.concatenate([jnp.ravel(o) for o in jax.tree.leaves(out)])

        out, pull = jax.vjp(network, [row[k] for k in moving])
        length = lambda v: sum(jnp.sum(g * g) for g in pull(v)[0])
        if probes is None or key is None:
            basis = jnp.eye(out.size, dtype=out.dtype)
            return jnp.sqrt(jnp.sum(jax.vmap(length)(basis))), jnp.zeros((), out.dtype)
        own = jax.random.fold_in(key, number)
        squares = jax.vmap(length)(jax.random.rademacher(own, (probes, out.size), out.dtype))
        norm = jnp.sqrt(jnp.mean(squares))
        error = jnp.std(squares, ddof=1) / math.sqrt(probes)
        return norm, error / jnp.maximum(2 * norm, jnp.finfo(out.dtype).tiny)

    numbers = jnp.arange(leaves[0].shape[0])
    size = min(batch_size, max(len(numbers), 1))
    found = jax.lax.map(lambda a: one(*a), (leaves, numbers), batch_size=size)
    return JacobianNorm(*found)


def closed_path(points: Float[Array, "k ..."], count: int) -> Float[Array, "count ..."]:
    r"""Inputs along a smooth closed curve through given ones.

    .. math:: x(t) = \sum_j x_j D(t - 2\pi j/k), \qquad
        D(s) = \frac{\sin(k s / 2)}{k \sin(s / 2)}

    the trigonometric interpolant; through three points it is an ellipse. For drawing
    :func:`widelimit.jacobian_norm` between training examples and on them.

    Parameters
    ----------
    points
        An odd number of inputs.
    count
        How many points of the curve to return, at equal steps of t from 0.

    Raises
    ------
    ValueError
        If the number of points is even.

    Notes
    -----
    Novak et al., 2018, section 3.
    """
    k = points.shape[0]
    if k % 2 == 0:
        msg = f"the path goes through an odd number of points, got {k}"
        raise ValueError(msg)
    s = 2 * np.pi * (np.arange(count)[:, None] / count - np.arange(k) / k)
    half = np.arange(1, k // 2 + 1)
    weights = (1 + 2 * np.cos(s[..., None] * half).sum(-1)) / k
    return jnp.tensordot(jnp.asarray(weights, points.dtype), points, 1)
