"""Cotangents of activations as products: one part says which output, another which example.

The cotangent of a hidden unit right before a linear readout is W(output, unit) f(example, unit),
with f the slope of the nonlinearity; averaged over positions, f has those and W has not. Kept like
this it has fewer entries, and less to multiply, than one array over outputs, examples and units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from widelimit.tangent._terms import OneHot, Seeds, Term, aligned, axes, changed, scaled

ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "cbrt", "ceil", "clamp", "convert_element_type", "copy", "cos", "cosh", "digamma", "div", "eq",
    "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow",
    "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg",
    "nextafter", "not", "or", "pow", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh",
    "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
}
"""Primitives whose every entry depends on that entry of their operands alone."""

CALLS = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "jit", "pjit"}
"""Calls that are looked into."""


def separable(term: Term, seeds: Seeds) -> bool:
    """Whether a cotangent is a product of what knows no example and of one array without seeds."""
    if seeds.count == 1 or set(term.out) & set(seeds.labels):
        return False
    kept = {*term.out, *seeds.labels}
    late = 0
    for factor, names, depends in zip(term.factors, term.labels, term.late):
        if isinstance(factor, OneHot) or not set(names) <= kept:
            return False
        if depends:
            late += 1
            if set(names) & set(seeds.labels):
                return False
    return late <= 1


def merged(terms: Sequence[Term], seeds: Seeds) -> Term | None:
    """The sum of separable cotangents that differ in what depends on the example only."""
    if not all(separable(t, seeds) for t in terms):
        return None
    parts = [_apart(t) for t in terms]
    if any((t.out, known) != (terms[0].out, parts[0][0]) for t, (known, _) in zip(terms, parts)):
        return None
    names, sizes = terms[0].out, terms[0].sizes
    total: Any = None
    for t, (_, place) in zip(terms, parts):
        if place is None:
            array = jnp.ones([sizes[a] for a in names], seeds.dtype)
        else:
            array = aligned(t.factors[place], t.labels[place], names)
        total = array if total is None else total + array
    place = next((p for _, p in parts if p is not None), None)
    if place is None:
        return scaled(terms[0], float(len(terms)), late=False)
    full = jnp.broadcast_to(total, [sizes[a] for a in names])
    chosen = next(t for t, (_, p) in zip(terms, parts) if p is not None)
    return changed(chosen, place, full, names)


def _apart(term: Term) -> tuple[Any, int | None]:
    """What tells the parts that know no example, and the place of the one that does."""
    places = [j for j, late in enumerate(term.late) if late]
    parts = zip(term.factors, term.labels, term.late)
    known = tuple((id(f), names) for f, names, late in parts if not late)
    return known, places[0] if places else None


def contracted(term: Term, seeds: Seeds) -> Term:
    """The same entries as at most one array; labels that no factor has stay out of it."""
    if len(term.factors) < 2 and term.plain:
        return term
    have = dict.fromkeys(a for names in term.labels for a in names)
    left = [a for a in have if a in term.out or a in seeds.labels]
    table = {a: k for k, a in enumerate(have)}
    operands: list[Any] = []
    for factor, names in zip(term.factors, term.labels):
        operands += [factor, [table[a] for a in names]]
    array = jnp.einsum(
        *operands, [table[a] for a in left], optimize="optimal", precision="highest"
    )
    return replace(term, factors=(array,), labels=(tuple(left),), late=(any(term.late),))


def diagonal(e: Any, k: int, term: Term, run: Callable[..., Any]) -> Term | None:
    """The cotangent of an operand that is changed entry by entry; None if it is not.

    ``run`` is the equation as a function of its operands. Its derivative is applied to the part
    that depends on the example, or to ones.
    """
    value = e.inputs[k]
    if not separable(term, e.seeds) or len(e.eqn.outvars) != 1 or value.shape != e.shape:
        return None
    if sum(v is e.eqn.invars[k] for v in e.eqn.invars) != 1:
        return None
    pull = _pull(e, k, run)
    if pull is None:
        return None
    term, groups = axes(term, e.shape, e.seeds)
    names = [a for g in groups for a in g]
    place = next((j for j, late in enumerate(term.late) if late), None)
    dtype = e.eqn.outvars[0].aval.dtype
    if place is None:
        part = jnp.ones(e.shape, dtype)
    else:
        part = aligned(term.factors[place], term.labels[place], names)
        part = jnp.broadcast_to(part, [term.sizes[a] for a in names])
        part = part.reshape(e.shape).astype(dtype)
    array = pull(part).reshape([term.sizes[a] for a in names])
    if place is None:
        return term.with_factor(array, names, True)
    return changed(term, place, array, tuple(names))


def _pull(e: Any, k: int, run: Callable[..., Any]) -> Any:
    """The derivative's transpose, if it acts entry by entry."""
    name = e.eqn.primitive.name
    if name not in ELEMENTWISE and name not in CALLS:
        return None

    def function(array: Any) -> Any:
        return run(*(array if j == k else v.array for j, v in enumerate(e.inputs)))[0]

    out, pull = jax.vjp(function, e.inputs[k].array)
    if name in CALLS:
        like = jax.ShapeDtypeStruct(out.shape, out.dtype)
        if not _entrywise(jax.make_jaxpr(lambda c: pull(c)[0])(like).jaxpr):
            return None
    return lambda c: pull(c)[0]


def _entrywise(jaxpr: Any) -> bool:
    """Whether a program multiplies every entry of its input by a number.

    A derivative that somebody wrote may do anything, such as to clip what comes in.
    """
    shape = jaxpr.invars[0].aval.shape
    moved, zeros = {jaxpr.invars[0]}, set()
    for eqn in jaxpr.eqns:
        comes = [not isinstance(v, Literal) and v in moved for v in eqn.invars]
        if not any(comes):
            if eqn.primitive.name == "broadcast_in_dim" and _is_zero(eqn.invars[0], zeros):
                zeros.update(eqn.outvars)
            continue
        if any(v.aval.shape != shape for v in eqn.outvars):
            return False
        if not _linear(eqn, comes, zeros) and not _called(eqn, moved):
            return False
        moved.update(eqn.outvars)
    return all(not isinstance(v, Literal) and v in moved | zeros for v in jaxpr.outvars)


def _linear(eqn: Any, comes: list[bool], zeros: set) -> bool:
    """Whether an equation is linear, entry by entry, in the operands that are marked."""
    match eqn.primitive.name:
        case "mul":
            return sum(comes) == 1
        case "div":
            return comes == [True, False]
        case "add" | "add_any" | "sub":
            return all(comes)
        case "neg" | "copy" | "convert_element_type":
            return True
        case "select_n":
            rest = [v for v, c in zip(eqn.invars[1:], comes[1:]) if not c]
            return not comes[0] and all(_is_zero(v, zeros) for v in rest)
    return False


def _is_zero(v: Any, zeros: set) -> bool:
    return not v.val if isinstance(v, Literal) else v in zeros


def _called(eqn: Any, moved: set) -> bool:
    """Whether a call acts entry by entry on its only operand that matters."""
    if eqn.primitive.name not in CALLS:
        return False
    program = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    program = getattr(program, "jaxpr", program)
    if program is None:
        return False
    places = [j for j, v in enumerate(eqn.invars) if not isinstance(v, Literal) and v in moved]
    if len(places) != 1:
        return False
    first = program.invars[places[0]]
    others = [v for v in program.invars if v is not first]
    return _entrywise(program.replace(invars=[first], constvars=[*program.constvars, *others]))
