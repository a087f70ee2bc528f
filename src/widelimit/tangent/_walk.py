"""Reverse mode over a jaxpr that keeps the cotangents of weights as products.

A *weight* is a value that depends on parameters and not on the example. Operations that are linear
in a weight send it a :class:`Term`; everything else is differentiated by JAX, one equation at a
time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from widelimit.errors import UnsupportedPrimitiveError
from widelimit.tangent._separable import contracted, diagonal, merged, separable
from widelimit.tangent._terms import OneHot, Seeds, Term, simplified, summed

LOG = logging.getLogger("widelimit.tangent")

Terms = list[Term]
Back = Callable[[list[Terms]], list[Terms]]
"""From the cotangents of the outputs to those of the inputs."""


@dataclass(frozen=True)
class Value:
    """An array with what it depends on."""

    array: Any
    active: bool
    """Whether it depends on parameters, differentiably."""
    late: bool
    """Whether it depends on the example."""

    @property
    def weight(self) -> bool:
        """Whether it is a function of parameters alone."""
        return self.active and not self.late

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return self.array.shape


@dataclass(frozen=True)
class Equation:
    """An equation with the values of its operands, and the output that is differentiated."""

    eqn: JaxprEqn
    inputs: tuple[Value, ...]
    seeds: Seeds

    @property
    def params(self) -> dict[str, Any]:
        """The primitive's parameters."""
        return self.eqn.params

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first output."""
        return self.eqn.outvars[0].aval.shape


Rule = Callable[[Equation, int, Term], Term | None]
"""(equation, operand, cotangent of its output) -> cotangent of the operand; None: no rule."""

Control = Callable[[Equation], tuple[list[Any], Back]]
"""A primitive that holds programs -> its outputs, and the way back."""

RULES: dict[str, Rule] = {}
CONTROL: dict[str, Control] = {}
ZERO = {"stop_gradient"}
"""Primitives whose derivative is zero."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for primitives."""

    def add(f: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, f))
        return f

    return add


def control(*names: str) -> Callable[[Control], Control]:
    """Register a rule for primitives that hold programs."""

    def add(f: Control) -> Control:
        CONTROL.update(dict.fromkeys(names, f))
        return f

    return add


def walk(
    jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Value], seeds: Seeds
) -> tuple[list[Value], Back]:
    """Evaluate a program, and return the way back through it."""
    env: dict[Any, Value] = {}
    for var, const in zip(jaxpr.constvars, consts):
        env[var] = Value(const, False, False)
    env.update(zip(jaxpr.invars, inputs))

    def read(atom: Any) -> Value:
        if isinstance(atom, Literal):
            return Value(jnp.asarray(atom.val, atom.aval.dtype), False, False)
        return env[atom]

    tape: list[tuple[JaxprEqn, Back]] = []
    for eqn in jaxpr.eqns:
        equation = Equation(eqn, tuple(map(read, eqn.invars)), seeds)
        late = any(v.late for v in equation.inputs)
        outputs, back = _step(equation)
        active = back is not None
        for var, out in zip(eqn.outvars, outputs):
            if not isinstance(out, Value):
                out = Value(out, active and is_floating(var.aval.dtype), late)
            env[var] = out
        if back is not None:
            tape.append((eqn, back))

    def add(found: dict[Any, Terms], atom: Any, terms: Terms) -> None:
        if isinstance(atom, Literal) or not env[atom].active or 0 in env[atom].shape:
            return
        found[atom] = found.get(atom, []) + terms

    def backward(terms: list[Terms]) -> list[Terms]:
        found: dict[Any, Terms] = {}
        for atom, t in zip(jaxpr.outvars, terms):
            add(found, atom, t)
        for eqn, back in reversed(tape):
            given = [settled(found.pop(v, []), env[v], seeds) for v in eqn.outvars]
            if not any(given):
                continue
            for atom, t in zip(eqn.invars, back(given)):
                add(found, atom, t)
        return [settled(found.get(v, []), env[v], seeds) for v in jaxpr.invars]

    return [read(atom) for atom in jaxpr.outvars], backward


def settled(terms: Terms, value: Value, seeds: Seeds) -> Terms:
    """Cotangents of activations are one array; those of weights stay as they are."""
    if not value.late or (len(terms) < 2 and all(_kept(t, seeds) for t in terms)):
        return terms
    together = merged(terms, seeds)
    if together is not None:
        return [together]
    late = any(any(t.late) for t in terms)
    return [seeds.spread(summed(terms, value.shape, seeds), value.shape, late)]


def _kept(term: Term, seeds: Seeds) -> bool:
    """Whether the cotangent of an activation stays as it is."""
    return term.plain or separable(term, seeds)


def is_floating(dtype: Any) -> bool:
    """Whether values of this type have derivatives."""
    return jnp.issubdtype(dtype, jnp.inexact)


def _step(e: Equation) -> tuple[list[Any], Back | None]:
    name = e.eqn.primitive.name
    if not any(v.active for v in e.inputs) or name in ZERO:
        return evaluate(e), None
    if name in CONTROL:
        return CONTROL[name](e)
    return evaluate(e), lambda terms: _back(e, terms)


def evaluate(e: Equation) -> list[Any]:
    """The outputs of one equation."""
    return one_equation(e.eqn)(*(v.array for v in e.inputs))


def one_equation(eqn: JaxprEqn) -> Callable[..., list[Any]]:
    """One equation as a function of all its operands."""
    places = [k for k, v in enumerate(eqn.invars) if not isinstance(v, Literal)]
    distinct = list(dict.fromkeys(eqn.invars[k] for k in places))
    first = [next(k for k in places if eqn.invars[k] is v) for v in distinct]
    empty = jax.make_jaxpr(lambda: ())().jaxpr
    one = empty.replace(invars=distinct, outvars=list(eqn.outvars), eqns=[eqn])
    run = jaxpr_as_fun(ClosedJaxpr(one, []))
    return lambda *arguments: run(*(arguments[k] for k in first))


def _back(e: Equation, terms: list[Terms]) -> list[Terms]:
    apply = RULES.get(e.eqn.primitive.name)
    out: list[Terms] = [[] for _ in e.inputs]
    left = set()
    for k, value in enumerate(e.inputs):
        if not value.active:
            continue
        found = [_applied(apply, e, k, t) for t in terms[0]] if len(terms) == 1 else [None]
        if any(t is None for t in found):
            left.add(e.eqn.invars[k])
        else:
            out[k] = found
    if left:
        places = [k for k, v in enumerate(e.eqn.invars) if any(v is u for u in left)]
        for k in places:
            out[k] = []
        for k, t in differentiated(e, places, terms).items():
            out[k] = t
    return out


def _applied(apply: Rule | None, e: Equation, k: int, term: Term) -> Term | None:
    """The cotangent of an operand by a rule, where it is worth having in that form."""
    complex_ = any(
        jnp.issubdtype(v.aval.dtype, jnp.complexfloating) for v in (*e.eqn.invars, *e.eqn.outvars)
    )
    if complex_:
        # The parts of a complex product are no products of parts.
        return None
    late = not e.inputs[k].weight
    found = None if apply is None else apply(e, k, term)
    if found is None:
        return diagonal(e, k, term, one_equation(e.eqn)) if late else None
    found = simplified(found)
    if not late or _kept(found, e.seeds):
        return found
    whole = not any(found.late) and not any(isinstance(f, OneHot) for f in found.factors)
    return contracted(found, e.seeds) if whole else None


def differentiated(e: Equation, operands: list[int], terms: list[Terms]) -> dict[int, Terms]:
    """Cotangents of operands by JAX, from dense cotangents of the outputs.

    A variable in two places is differentiated once, in the first of them.
    """
    name = e.eqn.primitive.name
    if name == "while":
        what = "a while loop whose values depend on the parameters"
        raise UnsupportedPrimitiveError(
            what,
            why="The number of its steps is not known beforehand, so that JAX cannot go through "
            "it backwards.",
            remedy='use method="jacobian", which goes forward, or a loop with a fixed number of '
            "steps",
        )
    if any(e.inputs[k].weight for k in operands):
        LOG.debug("no structure rule for %s: vector-Jacobian products of it alone", name)
    wanted = [k for k, t in enumerate(terms) if t]
    variables = e.eqn.invars
    first = {variables[k]: k for k in reversed(operands)}
    run = one_equation(e.eqn)

    def function(arrays: dict[int, Any]) -> list[Any]:
        full = [v.array for v in e.inputs]
        for k in operands:
            full[k] = arrays[first[variables[k]]]
        outputs = run(*full)
        return [outputs[k] for k in wanted]

    outputs, pull = jax.vjp(function, {k: e.inputs[k].array for k in first.values()})
    given = []
    for k, out in zip(wanted, outputs):
        array = summed(terms[k], out.shape, e.seeds).astype(out.dtype)
        given.append(array.reshape(e.seeds.count, *out.shape))
    late = any(v.late for v in e.inputs) or any(any(t.late) for k in wanted for t in terms[k])
    found = {}
    for k, c in jax.vmap(pull)(given)[0].items():
        shape = e.inputs[k].shape
        found[k] = [e.seeds.spread(c.reshape(*e.seeds.sizes, *shape), shape, late)]
    return found
