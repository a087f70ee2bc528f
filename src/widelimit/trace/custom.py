"""Functions with derivatives of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from widelimit.programs import fingerprint
from widelimit.trace import joining
from widelimit.trace.arrays import Concatenation, Operand
from widelimit.trace.control import closed_parts
from widelimit.trace.pointwise import elementwise
from widelimit.trace.reader import Reader, equation_function, rule


@rule("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
def custom_derivative(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """A function with its own derivative.

    Where that derivative is the function's true one, the function is read as if written in
    place; where it differs at zero alone, as that of ``jax.nn.relu``, this is added. A scalar
    function with another derivative (a straight-through estimator) is kept whole, so that the
    tangent kernel sees the derivative that training sees.
    """
    inner = eqn.params.get("call_jaxpr", eqn.params.get("fun_jaxpr"))
    jaxpr, consts = closed_parts(r, inner)
    changes, at_zero = False, 0.0
    if len(eqn.outvars) == 1:
        changes, at_zero = _changes_derivative(r, eqn, jaxpr, inner)
    if changes:
        run = equation_function(eqn)
        arrays = [r.array(o) for o in operands]
        dtype, shape = eqn.outvars[0].aval.dtype, eqn.outvars[0].aval.shape
        types = [v.aval.dtype for v in eqn.invars]
        fixed = [v.val if isinstance(v, Literal) else None for v in eqn.invars]
        free = [i for i, f in enumerate(fixed) if f is None]

        def whole(*arguments: Any) -> Any:
            full = jnp.broadcast_arrays(*(jnp.asarray(a) for a in arguments))
            typed = [full[i].astype(types[i]) for i in free]
            if shape and all(eqn.invars[i].aval.shape == shape for i in free):
                return _in_blocks(lambda *x: run(*x)[0], shape, typed)
            return run(*typed)[0]

        return [elementwise(r.b, "custom function", whole, arrays, dtype)]
    results = r.run(jaxpr, consts, operands)
    if not at_zero:
        return results
    return [_with_slope(r, results[0], operands[0], at_zero, eqn.outvars[0].aval.dtype)]


def _with_slope(r: Reader, found: Operand, argument: Operand, slope: float, dtype: Any) -> Operand:
    """A function of ``argument`` with another slope where that is exactly zero."""
    if isinstance(found, Concatenation) and isinstance(argument, Concatenation):
        pieces = [
            _with_slope(r, f, a, slope, dtype) for f, a in zip(found.pieces, argument.pieces)
        ]
        return joining.concatenate(r.b, pieces, found.axis)
    arrays = [r.array(found), r.array(argument)]
    if arrays[0].known:
        return found
    return elementwise(r.b, "at zero", lambda f, u: f + _slope_at_zero(u, slope), arrays, dtype)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _slope_at_zero(u: Any, slope: float) -> Any:
    """Zero, with a derivative at zero alone."""
    del slope
    return jnp.zeros_like(u)


@_slope_at_zero.defjvp
def _(slope: float, primals: tuple, tangents: tuple) -> tuple:
    (u,), (du,) = primals, tangents
    return jnp.zeros_like(u), jnp.where(u == 0, slope, 0.0).astype(u.dtype) * du


def _in_blocks(function: Callable[..., Any], shape: tuple[int, ...], arrays: list[Any]) -> Any:
    """An elementwise function that works at one shape only, on arrays of any shape.

    The backward rule of a ``custom_vjp`` function is tied to the shapes it was traced with.
    """
    size, total = math.prod(shape), arrays[0].size
    count = -(-total // size)
    blocks = [
        jnp.pad(jnp.ravel(a), (0, count * size - total)).reshape(count, *shape) for a in arrays
    ]
    return jax.vmap(function)(*blocks).reshape(-1)[:total].reshape(arrays[0].shape)


def _elementwise_only(jaxpr: Jaxpr) -> bool:
    from widelimit.trace.rules import POINTWISE

    simple = {*POINTWISE, "convert_element_type", "integer_pow"}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in simple:
            continue
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if inner is None:
            if eqn.primitive.name == "broadcast_in_dim" and eqn.invars[0].aval.shape == ():
                continue
            return False
        if not _elementwise_only(getattr(inner, "jaxpr", inner)):
            return False
    return True


def _changes_derivative(r: Reader, eqn: JaxprEqn, jaxpr: Jaxpr, inner: Any) -> tuple[bool, float]:
    """Whether the custom derivative differs from the true one, and by how much at zero alone."""
    if not _elementwise_only(jaxpr):
        return False, 0.0
    avals = [v.aval for v in eqn.invars if not isinstance(v, Literal)]
    if not avals or not all(jnp.issubdtype(a.dtype, jnp.floating) for a in avals):
        return False, 0.0
    derivatives = _both_derivatives(eqn, jaxpr, inner, avals)
    if not _elementwise_only(derivatives.jaxpr):
        return _compared(derivatives, avals)
    # Arithmetic alone is said in full by its text and constants. Most networks repeat one function
    # many times.
    key = fingerprint(derivatives)
    if key not in r.derivatives:
        r.derivatives[key] = _compared(derivatives, avals)
    return r.derivatives[key]


def _both_derivatives(eqn: JaxprEqn, jaxpr: Jaxpr, inner: Any, avals: list[Any]) -> ClosedJaxpr:
    """The true derivatives in all arguments, and those that the function has been given."""
    closed = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(jaxpr, [])

    def plain(*arguments: Any) -> Any:
        rest = iter(arguments)
        full = [v.val if isinstance(v, Literal) else next(rest) for v in eqn.invars]
        return jaxpr_as_fun(closed)(*full)[0]

    custom = lambda *arguments: equation_function(eqn)(*arguments)[0]

    def slopes(*arguments: Any) -> list[Any]:
        backwards = (jax.vjp(f, *arguments)[1] for f in (plain, custom))
        ones = jnp.ones(eqn.outvars[0].aval.shape, eqn.outvars[0].aval.dtype)
        return [back(ones) for back in backwards]

    return jax.make_jaxpr(slopes)(*(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals))


def _compared(derivatives: ClosedJaxpr, avals: list[Any]) -> tuple[bool, float]:
    rng = np.random.default_rng(0)
    anywhere = [(rng.normal(size=a.shape) * 2).astype(a.dtype) for a in avals]
    run = jax.jit(jaxpr_as_fun(derivatives))
    count = len(avals)
    found = [np.asarray(x) for x in run(*anywhere)]
    pairs = list(zip(found[:count], found[count:]))
    if any(not np.allclose(ours, theirs, rtol=1e-3, atol=1e-4) for ours, theirs in pairs):
        return True, 0.0
    if count > 1 or not anywhere[0].size:
        return False, 0.0
    ours, theirs = (np.ravel(x)[0] for x in run(np.zeros_like(anywhere[0])))
    difference = float(theirs - ours)
    return False, difference if math.isfinite(difference) else 0.0
