"""Calls and control flow: read what is inside."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from widelimit.errors import ControlFlowError
from widelimit.trace import joining
from widelimit.trace import structure as st
from widelimit.trace.arrays import Array, Operand, concrete, is_constant, known_array
from widelimit.trace.reader import ALWAYS, Reader, rule

MAX_STEPS = 10_000


def closed_parts(r: Reader, inner: Any) -> tuple[Jaxpr, list[Operand]]:
    """A program inside another, and its constants as operands."""
    if isinstance(inner, ClosedJaxpr):
        return inner.jaxpr, [known_array(r.b, c) for c in inner.consts]
    return inner, []


@rule("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "xla_call",
      "custom_lin")
def call(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Calls are read as if written in place."""
    inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    jaxpr, consts = closed_parts(r, inner)
    return r.run(jaxpr, consts, operands)


ALWAYS.update(("jit", "pjit", "closed_call", "checkpoint", "remat", "remat2"))


# --------------------------------------------------------------------------- control flow


@rule("cond")
def cond(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """A branch chosen while reading; a choice that depends on data is refused."""
    which, *rest = operands
    branches = eqn.params["branches"]
    if is_constant(which):
        chosen = int(np.clip(int(concrete(which)), 0, len(branches) - 1))  # type: ignore[arg-type]
        jaxpr, consts = closed_parts(r, branches[chosen])
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
    test, test_consts = closed_parts(r, eqn.params["cond_jaxpr"])
    body, extra = closed_parts(r, eqn.params["body_jaxpr"])
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
    jaxpr, outer = closed_parts(r, p["jaxpr"])
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
