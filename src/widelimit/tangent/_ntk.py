"""Kernels of one finite network, at given parameters."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from widelimit.batches import check_inputs, length
from widelimit.errors import UnsupportedPrimitiveError
from widelimit.tangent._axes import Axes
from widelimit.tangent._memory import Memory
from widelimit.tangent._order import multiplied, plan
from widelimit.tangent._problem import Problem, output_axes, problem
from widelimit.tangent._program import KEPT, METHODS, Program

PROGRAMS = Memory(KEPT)
CHOICES = Memory(16 * KEPT)

MEMORY = 1 << 30
"""Bytes of intermediate results, unless the caller says otherwise."""


def empirical_ntk(
    f: Any,
    params: Any,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    method: str = "auto",
    trace_axes: Any = (),
    diagonal_axes: Any = (),
    trainable: Any = None,
    weights: Any = None,
    by_parameter: bool = False,
    memory: int = MEMORY,
    trial: bool = False,
) -> PyTree[Float[Array, "n1 n2 ..."]]:
    r"""The tangent kernel of a finite network at its present parameters.

    .. math::
        T(x, x')_{o o'} = \sum_\theta w_\theta\,
        \frac{\partial f_o(x)}{\partial\theta} \frac{\partial f_{o'}(x')}{\partial\theta}

    Parameters
    ----------
    f, params
        A function ``f(params, x)`` of ONE example, with any pytree of parameters, an Equinox or
        Flax NNX module included; or a module and None. Floating-point arrays are parameters.
    x1, x2
        Batches of inputs, shape (n, *shape), or pytrees of them; ``x2=None`` is ``x1``, and then
        half of the kernel is computed where it takes several tiles.
    method
        ``"structured"`` keeps derivatives as products and multiplies them in the cheapest order,
        forming Jacobians of single layers only where that is cheaper; ``"jacobian"`` contracts the
        Jacobian; ``"vector_products"`` computes columns J (J' e), one backward and one forward
        pass each; ``"auto"`` takes what is estimated to be fastest.
    trace_axes, diagonal_axes
        Output axes that the kernel is averaged over, and of which only equal pairs are kept.
    trainable
        Which parameters count: a bool, a pytree prefix of bools, a mapping from names, or a
        callable of (name, struct).
    weights
        Non-negative numbers or arrays w, such as learning rates, given in the same ways.
    by_parameter
        Whether to return a dictionary from each parameter's name to its part of the sum.
    memory
        A bound in bytes on intermediate results; large kernels are computed in tiles.
    trial
        Whether ``"auto"`` runs the candidates once and measures.

    Returns
    -------
    Array of shape (n1, n2, *diagonal, *out, *out), with the output's axes that are kept as
    diagonals first, in the pytree of the output. Each output leaf is paired with itself.

    Raises
    ------
    ValueError
        If shapes do not agree, inputs are not finite, or an option is not understood.
    UnsupportedPrimitiveError
        If the method has to go backwards through a loop of unknown length.
    MemoryError
        If one pair of examples does not fit in ``memory``.

    Notes
    -----
    Novak, Sohl-Dickstein, Schoenholz, Fast finite width neural tangent kernel, 2022.

    Examples
    --------
    >>> import jax.numpy as jnp, widelimit as wl
    >>> wl.empirical_ntk(lambda w, x: w @ x, jnp.ones((2, 3)), jnp.eye(3)).shape
    (3, 3, 2, 2)
    """
    if method not in (*METHODS, "auto"):
        msg = f"method={method!r}; there are {', '.join(METHODS)} and auto"
        raise ValueError(msg)
    x1, x2, example = check_inputs(x1, x2, may_be_empty=True)
    p = problem(f, params, example, trainable, weights)
    found = []
    for number, axes in enumerate(output_axes(p, trace_axes, diagonal_axes)):
        if 0 in (length(x1), length(x1 if x2 is None else x2), *axes.shape):
            found.append(_empty(p, number, axes, x1, x2, apart=by_parameter))
            continue
        found.append(_kernel(p, number, axes, x1, x2, method, memory, trial, by_parameter))
    if not by_parameter:
        return jax.tree.unflatten(p.structure, found)
    return {
        name: jax.tree.unflatten(p.structure, [out[k] for out in found])
        for k, name in enumerate(p.names)
    }


def _kernel(
    p: Problem,
    number: int,
    axes: Axes,
    x1: Any,
    x2: Any,
    method: str,
    memory: int,
    trial: bool,
    apart: bool,
) -> Any:
    shape = lambda x: None if x is None else tuple(
        (a.shape[1:], a.dtype) for a in jax.tree.leaves(x)
    )
    known = p.key
    key = None if known is None else (known, number, axes, memory, apart, shape(x1))

    def program(name: str) -> Program:
        own = None if key is None else (*key, name)
        make = lambda: Program(_bare(p), number, axes, name, memory, apart=apart)
        return PROGRAMS.get(own, make)

    arrays = p.arrays
    traced = any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves((arrays, x1, x2)))
    if method == "auto":
        counts = (length(x1), None if x2 is None else length(x2), trial and not traced)
        own = None if key is None else (*key, counts)
        choose = lambda: _chosen(program, arrays, x1, x2, trial=trial and not traced)
        method = CHOICES.get(own, choose)
    chosen = program(method)
    return chosen.whole(arrays, x1, x2) if traced else chosen.run(arrays, x1, x2)


def _bare(p: Problem) -> Problem:
    """The problem without its arrays, which a program that is remembered must not hold."""
    structs = tuple(jax.ShapeDtypeStruct(v.shape, v.dtype) for v in p.parts.values)
    return replace(p, parts=replace(p.parts, values=structs, constants=()), weights=())


def _chosen(program: Any, arrays: Any, x1: Any, x2: Any, *, trial: bool) -> str:
    """The method that is estimated, or measured, to be fastest."""
    costs = {}
    size = _comparable(program, arrays, x1)
    cut = lambda x: None if x is None else jax.tree.map(lambda a: a[:size], x)
    a, b = cut(x1), cut(x2)
    for name in METHODS:
        try:
            costs[name] = program(name).estimate(arrays, a, b).time
        except (UnsupportedPrimitiveError, ValueError) as error:
            if isinstance(error, ValueError) and "everse-mode" not in str(error):
                raise
    if not trial:
        return min(costs, key=costs.__getitem__)
    best = min(costs.values())
    times = {}
    for name in [n for n in costs if costs[n] <= 10 * best]:
        try:
            jax.block_until_ready(program(name).run(arrays, a, b))
            begun = time.perf_counter()
            jax.block_until_ready(program(name).run(arrays, a, b))
            times[name] = time.perf_counter() - begun
        except MemoryError:
            continue
    return min(times, key=times.__getitem__) if times else min(costs, key=costs.__getitem__)


def _comparable(program: Any, arrays: Any, x: Any) -> int:
    """Examples on which methods are compared: at most what the method that keeps least tiles by."""
    del program, arrays
    return min(length(x), 64)


def _empty(p: Problem, number: int, axes: Axes, x1: Any, x2: Any, *, apart: bool) -> Any:
    n1, n2 = length(x1), length(x1 if x2 is None else x2)
    zero = jnp.zeros((n1, n2, *axes.result), p.outputs[number].dtype)
    return [zero for _ in p.chosen] if apart else zero


def empirical_nngp(
    f: Any,
    params: Any,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    trace_axes: Any = (),
    diagonal_axes: Any = (),
) -> PyTree[Float[Array, "n1 n2 ..."]]:
    r"""Products of a finite network's outputs.

    .. math:: K(x, x')_{o o'} = f_o(x) f_{o'}(x')

    Arguments, shapes and errors are those of :func:`widelimit.empirical_ntk`. Averaged over
    random parameters it is the NNGP kernel.

    Examples
    --------
    >>> import jax.numpy as jnp, widelimit as wl
    >>> wl.empirical_nngp(lambda w, x: w @ x, jnp.ones((2, 3)), jnp.eye(3), trace_axes=-1).shape
    (3, 3)
    """
    x1, x2, example = check_inputs(x1, x2, may_be_empty=True)
    p = problem(f, params, example)
    found = []
    arrays = p.arrays
    for number, axes in enumerate(output_axes(p, trace_axes, diagonal_axes)):
        f_of = p.function(number)
        batch = lambda x, f_of=f_of: jax.vmap(lambda e: f_of(arrays.theta, arrays, e))(x)
        left = batch(x1)
        right = left if x2 is None else batch(x2)
        found.append(_outer(left, right, axes))
    return jax.tree.unflatten(p.structure, found)


def _outer(left: Any, right: Any, axes: Axes) -> Any:
    rank = len(axes.shape)
    first = [2 + k for k in range(rank)]
    second = [2 + k if k in axes.tied else 2 + rank + k for k in range(rank)]
    result = [0, 1, *axes.arranged(first, second)]
    labels = ([0, *first], [1, *second])
    sizes = dict(zip(labels[0], left.shape)) | dict(zip(labels[1], right.shape))
    if 0 in sizes.values():
        return jnp.zeros([sizes[a] for a in result], left.dtype)
    order = plan(
        tuple(map(frozenset, labels)), frozenset(result), tuple(sorted(sizes.items())), math.inf
    )
    return multiplied([left, right], labels, result, order) * axes.scale
