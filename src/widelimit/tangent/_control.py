"""Programs inside programs: calls, loops and branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from widelimit.tangent._separable import diagonal
from widelimit.tangent._terms import OneHot, Seeds, Term, collected, fresh, summed
from widelimit.tangent._walk import (
    Back,
    Equation,
    Terms,
    Value,
    control,
    differentiated,
    evaluate,
    is_floating,
    one_equation,
    walk,
)


def opened(program: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """A jaxpr and its constants."""
    return getattr(program, "jaxpr", program), getattr(program, "consts", ())


@control("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint")
def call(e: Equation) -> tuple[list[Any], Back]:
    """A function that is called: as if its body stood here."""
    program = e.params["jaxpr"] if "jaxpr" in e.params else e.params["call_jaxpr"]
    jaxpr, consts = opened(program)
    outputs, backward = walk(jaxpr, consts, e.inputs, e.seeds)
    moving = [k for k, v in enumerate(e.inputs) if v.active]

    def back(terms: list[Terms]) -> list[Terms]:
        if len(terms) != 1 or len(moving) != 1 or e.inputs[moving[0]].weight:
            return backward(terms)
        (k,) = moving
        found = [diagonal(e, k, t, one_equation(e.eqn)) for t in terms[0]]
        if any(t is None for t in found):
            return backward(terms)
        return [found if j == k else [] for j in range(len(e.inputs))]

    return outputs, back


# --------------------------------------------------------------------------- branches


@control("cond")
def cond(e: Equation) -> tuple[list[Any], Back]:
    """A branch: the cotangents of each, where it was taken.

    All branches are evaluated on the way back, as they are whenever the choice depends on the
    example.
    """
    which, *operands = e.inputs
    outputs = evaluate(e)

    def back(terms: list[Terms]) -> list[Terms]:
        out: list[Terms] = [[] for _ in operands]
        branches = e.params["branches"]
        index = jnp.clip(which.array.astype(jnp.int32), 0, len(branches) - 1)
        for k, branch in enumerate(branches):
            jaxpr, consts = opened(branch)
            _, backward = walk(jaxpr, consts, operands, e.seeds)
            for have, new in zip(out, backward(terms)):
                have += [_where(index == k, t, which.late, e.seeds) for t in new]
        return [[], *out]

    return outputs, back


def _where(taken: Any, term: Term, late: bool, seeds: Seeds) -> Term:
    """A term where a branch was taken, zero elsewhere; what it holds otherwise may be anything."""
    masked = tuple(
        OneHot(jnp.where(taken, f.indices, -1)) if isinstance(f, OneHot)
        else jnp.where(taken, f, jnp.zeros_like(f))
        for f in term.factors
    )
    term = replace(term, factors=masked, late=tuple(old or late for old in term.late))
    return term if masked else term.with_factor(taken.astype(seeds.dtype), (), late)


# --------------------------------------------------------------------------- loops


@control("scan")
def scan(e: Equation) -> tuple[list[Any], Back]:
    """A loop: backwards step by step; what a weight receives at each step is stacked."""
    jaxpr, consts = opened(e.params["jaxpr"])
    n, c = _counts(e, jaxpr)
    length, backwards = e.params["length"], e.params["reverse"]
    if length == 0:
        return _by_jax(e)
    fixed, state, rows = e.inputs[:n], e.inputs[n : n + c], e.inputs[n + c :]
    state = _settled_state(jaxpr, fixed, state, rows)
    body = jaxpr_as_fun(ClosedJaxpr(jaxpr, list(consts)))

    def forward(carry: list[Any], row: list[Any]) -> tuple[list[Any], Any]:
        out = body(*(v.array for v in fixed), *carry, *row)
        return list(out[:c]), (list(out[c:]), carry)

    last, (results, before) = jax.lax.scan(
        forward, [v.array for v in state], [v.array for v in rows], length, reverse=backwards
    )
    inner = [*fixed, *state, *rows]
    late = any(v.late for v in inner)
    outputs = [Value(a, v.active, v.late) for a, v in zip(last, state)]
    outputs += [Value(a, is_floating(a.dtype), late) for a in results]

    def back(terms: list[Terms]) -> list[Terms]:
        return _loop_back(e, jaxpr, consts, [fixed, state, rows], before, terms)

    return outputs, back


def _counts(e: Equation, jaxpr: Jaxpr) -> tuple[int, int]:
    """Constants and carried values, told from the stacked ones by the extra axis of those."""
    rank = lambda v: len(v.aval.shape)
    stacked = sum(rank(v) > rank(w) for v, w in zip(e.eqn.invars, jaxpr.invars))
    carried = sum(rank(v) == rank(w) for v, w in zip(e.eqn.outvars, jaxpr.outvars))
    return len(e.inputs) - stacked - carried, carried


def _by_jax(e: Equation) -> tuple[list[Any], Back]:
    places = [k for k, v in enumerate(e.inputs) if v.active]

    def back(terms: list[Terms]) -> list[Terms]:
        found = differentiated(e, places, terms)
        return [found.get(k, []) for k in range(len(e.inputs))]

    return evaluate(e), back


def _settled_state(
    jaxpr: Jaxpr, fixed: Sequence[Value], state: Sequence[Value], rows: Sequence[Value]
) -> list[Value]:
    """What the state depends on after any number of steps."""
    state = list(state)
    while True:
        flags: dict[Any, tuple[bool, bool]] = {}
        for var, v in zip(jaxpr.invars, [*fixed, *state, *rows]):
            flags[var] = (v.active, v.late)
        look = lambda atom, flags=flags: (
            (False, False) if isinstance(atom, Literal) else flags.get(atom, (False, False))
        )
        for eqn in jaxpr.eqns:
            active, late = (any(f) for f in zip((False, False), *map(look, eqn.invars)))
            for var in eqn.outvars:
                flags[var] = (active and is_floating(var.aval.dtype), late)
        new = []
        for v, atom in zip(state, jaxpr.outvars):
            active, late = look(atom)
            new.append(Value(v.array, v.active or active, v.late or late))
        if new == state or all(
            (a.active, a.late) == (b.active, b.late) for a, b in zip(new, state)
        ):
            return state
        state = new


def _loop_back(
    e: Equation,
    jaxpr: Jaxpr,
    consts: Sequence[Any],
    parts: list[Sequence[Value]],
    before: list[Any],
    terms: list[Terms],
) -> list[Terms]:
    fixed, state, rows = parts
    n, c, seeds = len(fixed), len(state), e.seeds
    moving = [k for k, v in enumerate(state) if v.active and 0 not in v.shape]
    shared = [k for k, v in enumerate(fixed) if v.active and not v.weight]
    zeros = lambda v: jnp.zeros((*seeds.sizes, *v.shape), v.array.dtype)
    full = lambda t, v: summed(t, v.shape, seeds).astype(v.array.dtype) if t else zeros(v)
    given = {k: t for k, t in enumerate(terms[c:]) if t}
    outer = e.eqn.outvars[c:]
    # The steps of a result come first, then the seeds.
    stacks = {}
    for k, t in given.items():
        array = summed(t, outer[k].aval.shape, seeds)
        stacks[k] = jnp.moveaxis(array, len(seeds.sizes), 0).astype(outer[k].aval.dtype)
    structure: list[list[Term]] = []

    def step(carry: Any, now: Any) -> Any:
        cotangents, sums = carry
        old, row, received = now
        inputs = [
            *fixed,
            *(Value(a, v.active, v.late) for a, v in zip(old, state)),
            *(Value(a, v.active, v.late) for a, v in zip(row, rows)),
        ]
        outputs, backward = walk(jaxpr, consts, inputs, seeds)
        into: list[Terms] = [[] for _ in outputs]
        for k, a in zip(moving, cotangents):
            into[k] = [seeds.spread(a, state[k].shape, True)]
        for k, a in received.items():
            shape = outputs[c + k].shape
            into[c + k] = [seeds.spread(a, shape, True)]
        found = backward(into)
        cotangents = [full(found[n + k], state[k]) for k in moving]
        sums = [s + full(found[k], fixed[k]) for s, k in zip(sums, shared)]
        lazy = [
            *(collected(t, seeds) if fixed[k].weight else [] for k, t in enumerate(found[:n])),
            *(collected(t, seeds) for t in found[n + c :]),
        ]
        structure[:] = lazy
        return (cotangents, sums), [[list(t.factors) for t in part] for part in lazy]

    start = [full(terms[k], state[k]) for k in moving], [zeros(fixed[k]) for k in shared]
    now = (before, [v.array for v in rows], stacks)
    (first, sums), stacked = jax.lax.scan(
        step, start, now, e.params["length"], reverse=not e.params["reverse"]
    )
    out: list[Terms] = [[] for _ in e.inputs]
    for k, s in zip(shared, sums):
        out[k] = [seeds.spread(s, fixed[k].shape, True)]
    for k, a in zip(moving, first):
        out[n + k] = [seeds.spread(a, state[k].shape, True)]
    for k, (part, factors) in enumerate(zip(structure, stacked)):
        place = k if k < n else k + c
        out[place] += [
            _unrolled(t, f, e.params["length"], kept=k >= n, seeds=seeds)
            for t, f in zip(part, factors)
        ]
    return out


def _unrolled(term: Term, factors: list[Any], length: int, *, kept: bool, seeds: Seeds) -> Term:
    """A term of one step with the index of the steps: summed, or the first of a row's indices."""
    when = fresh()
    sizes = {**term.sizes, when: length}
    if length == 1:
        squeezed = [jax.tree.map(lambda a: a[0], f) for f in factors]
        return replace(term, factors=tuple(squeezed))
    labels = tuple((when, *names) for names in term.labels)
    out = (when, *term.out) if kept else term.out
    new = replace(term, factors=tuple(factors), labels=labels, out=out, sizes=sizes)
    if factors or kept:
        return new
    return new.with_factor(jnp.ones(length, seeds.dtype), (when,), False)
