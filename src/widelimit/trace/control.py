"""Calls, derivatives rules and control flow: read what is inside."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from widelimit.errors import ControlFlowError
from widelimit.trace import joining
from widelimit.trace import structure as st
from widelimit.trace.arrays import Array, Operand, concrete, is_constant, known_array
from widelimit.trace.pointwise import elementwise
from widelimit.trace.reader import ALWAYS, Reader, equation_function, rule

MAX_STEPS = 10_000


def _closed(r: Reader, inner: Any) -> tuple[Jaxpr, list[Operand]]:
    if isinstance(inner, ClosedJaxpr):
        return inner.jaxpr, [known_array(r.b, c) for c in inner.consts]
    return inner, []


@rule("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "xla_call",
      "custom_lin")
def call(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Calls are read as if written in place."""
    inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    jaxpr, consts = _closed(r, inner)
    return r.run(jaxpr, consts, operands)


ALWAYS.update(("jit", "pjit", "closed_call", "checkpoint", "remat", "remat2"))


@rule("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
def custom_derivative(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """A function with its own derivative.

    Where that derivative is the function's true one, the function is read as if written in
    place. A scalar function with another derivative (a straight-through estimator) is kept
    whole, so that the tangent kernel sees the derivative that training sees.
    """
    inner = eqn.params.get("call_jaxpr", eqn.params.get("fun_jaxpr"))
    jaxpr, consts = _closed(r, inner)
    if len(eqn.outvars) == 1 and _changes_derivative(eqn, jaxpr, inner):
        run = equation_function(eqn)
        arrays = [r.array(o) for o in operands]
        dtype, shape = eqn.outvars[0].aval.dtype, eqn.outvars[0].aval.shape
        types = [v.aval.dtype for v in eqn.invars]
        from jax.extend.core import Literal

        fixed = [v.val if isinstance(v, Literal) else None for v in eqn.invars]
        free = [i for i, f in enumerate(fixed) if f is None]

        def whole(*arguments: Any) -> Any:
            full = jnp.broadcast_arrays(*(jnp.asarray(a) for a in arguments))
            typed = [full[i].astype(types[i]) for i in free]
            if "vjp" in eqn.primitive.name and all(eqn.invars[i].aval.shape == shape for i in free):
                return _in_blocks(lambda *x: run(*x)[0], shape, typed)
            return run(*typed)[0]

        return [elementwise(r.b, "custom function", whole, arrays, dtype)]
    return r.run(jaxpr, consts, operands)


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


def _changes_derivative(eqn: JaxprEqn, jaxpr: Jaxpr, inner: Any) -> bool:
    """Compare the custom derivative with the true one on a grid of numbers."""
    if not _elementwise_only(jaxpr):
        return False
    from jax.extend.core import Literal, jaxpr_as_fun

    closed = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(jaxpr, [])
    variables = [v for v in eqn.invars if not isinstance(v, Literal)]
    rng = np.random.default_rng(0)
    points = [
        jnp.asarray(rng.normal(size=v.aval.shape) * 2).astype(v.aval.dtype) for v in variables
    ]
    if not all(jnp.issubdtype(p.dtype, jnp.floating) for p in points):
        return False

    def plain(*arguments: Any) -> Any:
        rest = iter(arguments)
        full = [v.val if isinstance(v, Literal) else next(rest) for v in eqn.invars]
        return jnp.sum(jaxpr_as_fun(closed)(*full)[0])

    custom = lambda *arguments: jnp.sum(equation_function(eqn)(*arguments)[0])
    everything = tuple(range(len(points)))
    ours = jax.grad(plain, everything)(*points)
    theirs = jax.grad(custom, everything)(*points)
    close = [np.allclose(a, c, rtol=1e-3, atol=1e-4) for a, c in zip(ours, theirs)]
    return not all(close)


# --------------------------------------------------------------------------- control flow


@rule("cond")
def cond(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """A branch chosen while reading; a choice that depends on data is refused."""
    which, *rest = operands
    branches = eqn.params["branches"]
    if is_constant(which):
        chosen = int(np.clip(int(concrete(which)), 0, len(branches) - 1))  # type: ignore[arg-type]
        jaxpr, consts = _closed(r, branches[chosen])
        return r.run(jaxpr, consts, rest)
    known = isinstance(which, Array) and which.known
    raise ControlFlowError(
        "`cond` branches on " + ("the input" if known else "random values"),
        why="the network is then another network for each example"
        + (", which one graph does not describe." if known else " and each draw."),
        remedy="compute both branches and select with jnp.where, or branch on static values.",
        where=r.b.where,
    )


@rule("while")
def while_loop(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """A loop whose condition is known while reading is unrolled."""
    n_cond, n_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    cond_consts, body_consts = operands[:n_cond], operands[n_cond : n_cond + n_body]
    carry = operands[n_cond + n_body :]
    test, test_consts = _closed(r, eqn.params["cond_jaxpr"])
    body, extra = _closed(r, eqn.params["body_jaxpr"])
    for _ in range(MAX_STEPS):
        (go_on,) = r.run(test, test_consts, [*cond_consts, *carry])
        if not is_constant(go_on):
            raise ControlFlowError(
                "`while` runs until a condition on data holds",
                why="the number of steps, and with it the network, changes from example to "
                "example or from draw to draw.",
                remedy="use a fixed number of steps (lax.scan or lax.fori_loop).",
                where=r.b.where,
            )
        if not bool(concrete(go_on)):  # type: ignore[arg-type]
            return carry
        carry = r.run(body, extra, [*body_consts, *carry])
    raise ControlFlowError(
        f"`while` takes more than {MAX_STEPS} steps",
        why="loops are unrolled while the network is read.",
        remedy="shorten the loop.",
        where=r.b.where,
    )


def _scan_counts(eqn: JaxprEqn, jaxpr: Jaxpr) -> tuple[int, int]:
    """Constants and carried values, told from the stacked ones by the extra axis of those."""
    rank = lambda v: len(v.aval.shape)
    stacked = sum(rank(v) > rank(w) for v, w in zip(eqn.invars, jaxpr.invars))
    carried = sum(rank(v) == rank(w) for v, w in zip(eqn.outvars, jaxpr.outvars))
    return len(eqn.invars) - stacked - carried, carried


@rule("scan")
def scan(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Loops of fixed length are unrolled: stacked layers and recurrence alike."""
    p = eqn.params
    length = p["length"]
    jaxpr, outer = _closed(r, p["jaxpr"])
    n_const, n_carry = _scan_counts(eqn, jaxpr)
    consts, carry = operands[:n_const], operands[n_const : n_const + n_carry]
    stacked = operands[n_const + n_carry :]
    steps = range(length)[::-1] if p["reverse"] else range(length)
    outputs: list[list[Operand]] = []
    for t in steps:
        slices = [
            st.reshape(r.b, st.take(r.b, s, 0, np.array([t])), s.shape[1:]) for s in stacked
        ]
        results = r.run(jaxpr, outer, [*consts, *carry, *slices])
        carry = results[:n_carry]
        outputs.append(results[n_carry:])
    if p["reverse"]:
        outputs = outputs[::-1]
    collected: list[Operand] = []
    for k, v in enumerate(eqn.outvars[n_carry:]):
        if type(v).__name__ == "DropVar":
            collected.append(known_array(r.b, np.zeros(v.aval.shape, v.aval.dtype)))
            continue
        pieces = [
            st.broadcast(r.b, out[k], (1, *out[k].shape), tuple(range(1, len(out[k].shape) + 1)))
            for out in outputs
        ]
        collected.append(pieces[0] if length == 1 else joining.concatenate(r.b, pieces, 0))
    return [*carry, *collected]
