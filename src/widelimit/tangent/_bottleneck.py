"""A narrow place before the outputs: derivatives go back from there, not from every output.

Of a network with a thousand outputs and a readout of 64 features, everything before the features
needs 64 cotangents. They are multiplied with the readout's derivative w afterwards:

    df_o/dtheta = sum over features d of  w(o, d) dh_d/dtheta
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal

from widelimit.tangent._terms import Seeds, Term, dense
from widelimit.tangent._walk import Terms, Value, is_floating, one_equation, walk

CALLS = {"jit", "pjit", "closed_call", "core_call"}


@dataclass(frozen=True)
class Cut:
    """The equations before and after a narrow value, and what the later ones need beside it."""

    before: Jaxpr
    after: Jaxpr
    value: Any
    others: tuple[Any, ...]


@dataclass(frozen=True)
class Derivatives:
    """Cotangents of a program's inputs.

    Attributes
    ----------
    direct
        Those with the outputs as seeds.
    through
        Those with the entries of a narrow value as seeds.
    inner, outer
        These entries, and the narrow value's own cotangent.
    """

    direct: list[Terms]
    through: list[Terms]
    inner: Seeds | None = None
    outer: tuple[Term, ...] = ()

    def multiplied(self, k: int, seeds: Seeds) -> Terms:
        """The cotangent of one input, with the outputs as seeds."""
        assert self.inner is not None or not self.through[k]
        return self.direct[k] + [
            _times(t, n, seeds, self.inner) for t in self.through[k] for n in self.outer
        ]


def backwards(
    jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Value], seeds: Seeds
) -> Derivatives:
    """The cotangents of a program's inputs, from its only output."""
    cut = narrowest(jaxpr, inputs, seeds.count)
    calls = any(_holds_weights(e, jaxpr, inputs) for e in jaxpr.eqns)
    if cut is None and seeds.count > 1 and calls:
        closed = jax.make_jaxpr(lambda *a: _opened(jaxpr, consts, a))(*(v.array for v in inputs))
        found = narrowest(closed.jaxpr, inputs, seeds.count)
        if found is not None:
            cut, jaxpr, consts = found, closed.jaxpr, closed.consts
    nothing: list[Terms] = [[] for _ in inputs]
    if cut is None:
        (out,), backward = walk(jaxpr, consts, inputs, seeds)
        return Derivatives(backward([[seeds.identity()]]) if out.active else nothing, nothing)
    inner = Seeds.of(tuple(cut.value.aval.shape), cut.value.aval.dtype)
    values, first = walk(cut.before, consts, inputs, inner)
    known = dict(zip((*jaxpr.invars, *cut.before.outvars), (*inputs, *values)))
    _, last = walk(cut.after, consts, [known[v] for v in (cut.value, *cut.others)], seeds)
    outer, *rest = last([[seeds.identity()]])
    found = dict(zip(cut.others, rest))
    direct = [found.get(v, []) for v in jaxpr.invars]
    through = first([[inner.identity()], *([] for _ in cut.before.outvars[1:])])
    return Derivatives(direct, through, inner, tuple(outer))


def _times(term: Term, outer: Term, seeds: Seeds, inner: Seeds) -> Term:
    """A cotangent of the narrow value's entries, times what these have in the outputs."""
    shape = (*seeds.sizes, *inner.sizes)
    array = dense(outer, math.prod(inner.sizes), seeds).reshape(shape)
    sizes = {**term.sizes, **dict(zip(seeds.labels, seeds.sizes))}
    wide = Term(term.factors, term.labels, term.out, sizes, term.late)
    return wide.with_factor(array, (*seeds.labels, *inner.labels), any(outer.late))


def narrowest(jaxpr: Jaxpr, inputs: Sequence[Value], count: int) -> Cut | None:
    """The last of the smallest values through which all derivatives go, if below ``count``."""
    flags = {v: (i.active, i.late) for v, i in zip(jaxpr.invars, inputs)}
    last: dict[Any, int] = {v: len(jaxpr.eqns) for v in jaxpr.outvars if not isinstance(v, Literal)}
    for k, eqn in reversed(list(enumerate(jaxpr.eqns))):
        for v in eqn.invars:
            if not isinstance(v, Literal):
                last.setdefault(v, k)
    live: set[Any] = set()
    best, size = None, count
    for k, eqn in enumerate(jaxpr.eqns):
        look = [flags.get(v, (False, False)) for v in eqn.invars if not isinstance(v, Literal)]
        active, late = (any(f) for f in zip((False, False), *look))
        for v in eqn.outvars:
            flags[v] = (active and is_floating(v.aval.dtype), late)
            if flags[v][0] and v in last:
                live.add(v)
        live = {v for v in live if last[v] > k}
        if len(live) != 1:
            continue
        (v,) = live
        here = math.prod(v.aval.shape)
        if flags[v] == (True, True) and 0 < here <= size and here < count:
            best, size = (k, v), here
    if best is None or _written(jaxpr):
        return None
    k, value = best
    return _split(jaxpr, k + 1, value)


def _written(jaxpr: Any) -> bool:
    """Whether somebody wrote a backward pass, which need not be linear."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name.startswith("custom_vjp"):
            return True
        values = tuple(eqn.params.values())
        for value in jax.tree.leaves(values, is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns") and _written(inner):
                return True
    return False


def _split(jaxpr: Jaxpr, at: int, value: Any) -> Cut | None:
    first, second = jaxpr.eqns[:at], jaxpr.eqns[at:]
    made = {v for e in first for v in e.outvars}
    used = dict.fromkeys(v for e in second for v in e.invars if not isinstance(v, Literal))
    own = set(jaxpr.constvars)
    inner = {v for e in second for v in e.outvars}
    others = tuple(v for v in used if v is not value and v not in inner and v not in own)
    crossing = [v for v in others if v in made]
    if jaxpr.outvars[0] is value:
        return None
    before = jaxpr.replace(eqns=first, outvars=[value, *crossing])
    after = jaxpr.replace(eqns=second, invars=[value, *others])
    return Cut(before, after, value, others)


def _holds_weights(eqn: Any, jaxpr: Jaxpr, inputs: Sequence[Value]) -> bool:
    """Whether an equation is a call that parameters go into."""
    weights = {v for v, i in zip(jaxpr.invars, inputs) if i.weight}
    return eqn.primitive.name in CALLS and any(
        not isinstance(v, Literal) and v in weights for v in eqn.invars
    )


def _opened(jaxpr: Jaxpr, consts: Sequence[Any], arrays: Sequence[Any]) -> list[Any]:
    """The outputs of a program, with the bodies of its calls in place of them."""
    env = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arrays)))
    read = lambda v: v.val if isinstance(v, Literal) else env[v]
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in CALLS:
            program = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
            body = getattr(program, "jaxpr", program)
            out = _opened(body, getattr(program, "consts", ()), [read(v) for v in eqn.invars])
        else:
            out = one_equation(eqn)(*map(read, eqn.invars))
        env.update(zip(eqn.outvars, out))
    return [read(v) for v in jaxpr.outvars]
