"""Walk a jaxpr with abstract values and return the graph of the network it computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from widelimit.errors import UnsupportedPrimitiveError, Where
from widelimit.graph import nodes as n
from widelimit.graph.build import Builder
from widelimit.graph.show import table
from widelimit.graph.sizes import Sizes
from widelimit.trace.arrays import (
    Array,
    Operand,
    Parameter,
    Repeat,
    concrete,
    is_constant,
    known_array,
    known_shaped,
    materialise,
)
from widelimit.trace.averages import follow, refuse
from widelimit.trace.leaves import Leaf, Leaves, as_array
from widelimit.trace.regroup import squeezed
from widelimit.trace.where import where_of

Rule = Callable[["Reader", JaxprEqn, list[Operand]], list[Operand]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the reading of one or several primitives."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


class Suspect(NamedTuple):
    """A field, and where it was made."""

    node: n.Field
    where: Where | None


@dataclass(frozen=True)
class Graph:
    """A network as data: its outputs, in the program's arrangement, and all nodes made.

    ``suspects`` are fields whose terms may cancel, or whose means may be zero, and leave only what
    was dropped; they are right if moments say that they are not. ``sizes`` are the estimates.
    """

    outputs: tuple[Array, ...]
    nodes: tuple[n.Node, ...]
    leaves: tuple[Leaf, ...]
    structure: Any
    suspects: tuple[Suspect, ...] = ()
    sizes: Sizes = field(default_factory=Sizes, compare=False)

    def __repr__(self) -> str:
        return f"Graph({len(self.nodes)} nodes, {len(self.leaves)} parameters)"

    def __str__(self) -> str:
        return table(self.outputs, tuple(leaf.name for leaf in self.leaves))


class Reader:
    """The state of one walk: the builder, the parameters, and the line being read."""

    def __init__(self, leaves: tuple[Leaf, ...]) -> None:
        self.b = Builder(tuple(leaf.std for leaf in leaves))
        self.leaves = Leaves(leaves)
        self.derivatives: dict[tuple, tuple[bool, float]] = {}
        """What was found of functions with derivatives of their own, by the programs of both."""

    def array(self, operand: Operand) -> Array:
        """The operand as a value or a field."""
        return as_array(self.b, self.leaves, operand)

    def run(self, jaxpr: Jaxpr, consts: list[Operand], inputs: list[Operand]) -> list[Operand]:
        """Read a jaxpr; equations whose results are not needed are skipped."""
        env: dict[Any, Operand] = {}
        env.update(zip(jaxpr.constvars, consts))
        env.update(zip(jaxpr.invars, inputs))

        def look_up(v: Any) -> Operand:
            if isinstance(v, Literal):
                return known_array(self.b, v.val)
            return env[v]

        for eqn in needed(jaxpr):
            outer = self.b.where
            self.b.where = where_of(eqn) or outer
            results = self.equation(eqn, [look_up(v) for v in eqn.invars])
            for v, result in zip(eqn.outvars, results):
                if result.shape != tuple(v.aval.shape):
                    msg = f"{eqn.primitive.name}: read {result.shape}, program {v.aval.shape}"
                    raise AssertionError(msg)
                if isinstance(result, Array):
                    follow(self.b, result.node, result.average)
                env[v] = result
            self.b.where = outer
        return [look_up(v) for v in jaxpr.outvars]

    def equation(self, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
        """Read one equation, whose operands may be sums over width that stay random."""
        name = eqn.primitive.name
        if name in CALLS or not any(overlap_of(o) for o in operands):
            return self.rule(eqn, operands)
        as_fields = [overlap_of(o) or o for o in operands]
        others = [o for o in operands if not overlap_of(o)]
        carried = name in CARRIED and all(is_constant(o) for o in others)
        if not carried and any(overlap_of(o) and o.average.random for o in operands):  # type: ignore[union-attr]
            return self.rule(eqn, as_fields)
        plain = [_without_overlap(o) for o in operands]
        results = [_without_overlap(o) for o in self.rule(eqn, plain)]
        if not carried:
            return results
        fields = self.rule(eqn, as_fields)
        return [
            replace(r, average=replace(r.average, overlap=f))
            if isinstance(r, Array) and r.average is not None and not r.average.settled else r
            for r, f in zip(results, fields)
        ]

    def rule(self, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
        """Read one equation by the rule of its primitive."""
        name = eqn.primitive.name
        known = [o for o in operands if isinstance(o, Array) and o.known]
        keys = name not in CALLS and any(_is_key(v.aval) for v in (*eqn.invars, *eqn.outvars))
        if len(known) == len(operands) and name not in ALWAYS and not keys:
            followed = any(o.average for o in known) or any(_repeats(o) for o in known)
            if not followed or name not in RECORDED:
                return self.known(eqn, known)
        found = RULES["random_bits"] if keys else RULES.get(name)
        if found is None:
            raise self.unsupported(name)
        try:
            results = found(self, eqn, operands)
            return [squeezed(self.b, x) if isinstance(x, Array) else x for x in results]
        except NotImplementedError as missing:
            raise self.unsupported(name, str(missing)) from missing

    def unsupported(self, name: str, why: str = "") -> UnsupportedPrimitiveError:
        """The error for a primitive without a rule."""
        return UnsupportedPrimitiveError(
            f"`{name}` has no rule on random values",
            why=why or "the reader does not know the infinite-width limit of this operation.",
            remedy="compute it from the input alone, write it with other operations, or sample "
            "finite networks instead.",
            where=self.b.where,
        )

    def known(self, eqn: JaxprEqn, operands: list[Array]) -> list[Operand]:
        """Any equation on known values: kept as it is, evaluated one example at a time."""
        run = equation_function(eqn)
        records = [o.average for o in operands if o.average is not None]
        worst = max(records, key=lambda r: r.exponent, default=None)
        if worst is not None and not all(r.steady for r in records):
            raise refuse(eqn.primitive.name, worst, self.b.where)
        record = None
        if worst is not None:
            nothing = [o.average is not None and o.average.vanishing for o in operands]
            if any(nothing) and eqn.primitive.name in DECIDES:
                gone_one = operands[nothing.index(True)].average
                assert gone_one is not None
                raise refuse(eqn.primitive.name, gone_one, self.b.where)
            gone = _keeps_zero(eqn, run, operands, nothing)
            size = worst.size + _gain(eqn, operands)
            cancels = any(r.vanishing or r.cancels for r in records)
            record = replace(worst, relative=False, vanishing=gone, cancels=cancels, size=size)
        variables = [o for o, v in zip(operands, eqn.invars) if not isinstance(v, Literal)]
        if all(is_constant(o) for o in variables):
            with jax.ensure_compile_time_eval():
                results = run(*(concrete(o) for o in variables))
            return [known_array(self.b, np.asarray(r)) for r in results]
        inputs = [v for v in eqn.invars if not isinstance(v, Literal)]
        out: list[Operand] = []
        for k, v in enumerate(eqn.outvars):
            shape = tuple(v.aval.shape)
            small = tuple(s for s in shape if s != 1)

            def call(*blocks: Any, k: int = k, small: tuple[int, ...] = small) -> Any:
                full = [
                    materialise(o, x, jax.numpy).astype(e.aval.dtype)
                    for o, x, e in zip(variables, blocks, inputs)
                ]
                return run(*full)[k].reshape(small)

            arguments = tuple(o.value for o in variables)
            node = self.b.compute(eqn.primitive.name, call, arguments, small, v.aval.dtype)
            out.append(replace(known_shaped(node, shape), average=record))
        return out


CALLS = {
    "jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "scan", "while",
    "cond", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin",
}
"""Primitives that read what is inside them."""

CARRIED = {
    "mul", "div", "neg", "copy", "copy_p", "convert_element_type", "reduce_precision", "reshape",
    "squeeze", "expand_dims", "transpose", "broadcast_in_dim", "slice",
}
"""Primitives through which a sum over width may still become what it is in the end."""


def _is_key(aval: Any) -> bool:
    return jax.numpy.issubdtype(aval.dtype, jax.dtypes.prng_key)


def _repeats(a: Array) -> bool:
    """Whether a known array is held smaller than it is, as a mask for all channels alike."""
    return any(isinstance(atom, Repeat) for axis in a.axes for atom in axis)


def overlap_of(operand: Operand) -> Any:
    """The random field that a sum over width may turn out to be."""
    average = operand.average if isinstance(operand, Array) else None
    return None if average is None else average.overlap


def _without_overlap(operand: Operand) -> Operand:
    if overlap_of(operand) is None:
        return operand
    assert isinstance(operand, Array)
    assert operand.average is not None
    return replace(operand, average=replace(operand.average, overlap=None))


ALWAYS: set[str] = set()
"""Primitives whose rule also handles known values, because it sees more structure there."""

DECIDES = {"argmax", "argmin", "top_k", "sort"}
"""Operations whose result depends on the smallest differences of their operands."""


def _gain(eqn: JaxprEqn, operands: list[Array]) -> float:
    """The logarithm of how much larger a result can be than the operands with a record."""
    name = eqn.primitive.name
    if name in ("cumsum", "fft", "conv_general_dilated"):
        return math.log(max(math.prod(eqn.invars[-1].aval.shape), 1))
    if name != "dot_general":
        return 0.0
    left, right = operands
    (contracted, _), _ = eqn.params["dimension_numbers"]
    terms = math.prod(left.shape[k] for k in contracted)
    largest = [float(np.max(np.abs(concrete(o)))) for o in (left, right) if is_constant(o)]
    return math.log(max(terms * math.prod(largest), 1e-20))


def _keeps_zero(
    eqn: JaxprEqn, run: Callable[..., list[Any]], operands: list[Array], nothing: list[bool]
) -> bool:
    """Whether the result vanishes with those operands that vanish in the limit."""
    if eqn.primitive.name == "dot_general":
        return any(nothing)
    if not all(gone or is_constant(o) for gone, o in zip(nothing, operands)):
        return False
    at_zero = []
    for o, v in zip(operands, eqn.invars):
        if not isinstance(v, Literal):
            zeros = np.zeros(v.aval.shape, v.aval.dtype)
            at_zero.append(concrete(o).astype(v.aval.dtype) if is_constant(o) else zeros)
    with jax.ensure_compile_time_eval():
        return not any(np.any(np.asarray(x)) for x in run(*at_zero))

RECORDED: set[str] = set()
"""Primitives whose rule follows the record of a sum over width."""


def needed(jaxpr: Jaxpr) -> list[JaxprEqn]:
    """The equations that the outputs depend on."""
    wanted = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    kept: list[JaxprEqn] = []
    for eqn in reversed(jaxpr.eqns):
        if any(v in wanted for v in eqn.outvars):
            kept.append(eqn)
            wanted.update(v for v in eqn.invars if not isinstance(v, Literal))
    return kept[::-1]


def equation_function(eqn: JaxprEqn) -> Callable[..., list[Any]]:
    """One equation as a function of its non-literal inputs."""
    inputs = [v for v in eqn.invars if not isinstance(v, Literal)]
    distinct = list(dict.fromkeys(inputs))
    empty = jax.make_jaxpr(lambda: ())().jaxpr
    one = empty.replace(invars=distinct, outvars=list(eqn.outvars), eqns=[eqn])
    run = jaxpr_as_fun(ClosedJaxpr(one, []))
    places = [inputs.index(v) for v in distinct]
    return lambda *arguments: run(*(arguments[i] for i in places))


# --------------------------------------------------------------------------- the entry


def read(
    apply: Callable[[list[Any], Any], Any],
    arrays: tuple[jax.ShapeDtypeStruct, ...],
    leaves: tuple[Leaf, ...],
    example: Any,
) -> Graph:
    """Read ``apply(arrays, x)`` for one example ``x``.

    Parameters
    ----------
    apply
        A function of the list of parameter arrays and of one example.
    arrays
        Shapes of the parameters.
    leaves
        What is known of each parameter.
    example
        A pytree of ``jax.ShapeDtypeStruct``: the shape of one example.

    Raises
    ------
    WideLimitError
        If an operation has no limit, or an assumption of the limit fails.
    """
    import widelimit.trace.rules  # noqa: F401  (registers the rules)

    dtype = _float_dtype(example)
    retyped = [
        jax.ShapeDtypeStruct(a.shape, dtype) if np.issubdtype(a.dtype, np.floating) else a
        for a in arrays
    ]
    shape: list[Any] = []

    def flat(parameters: list[Any], x: Any) -> list[Any]:
        out = apply(parameters, x)
        values, structure = jax.tree.flatten(out)
        shape.append(structure)
        return values

    closed = jax.make_jaxpr(flat)(retyped, example)
    reader = Reader(leaves)
    _index((max((math.prod(a.shape) for a in arrays), default=1),))  # one range for all
    parameters: list[Operand] = [
        Parameter(i, _index(a.shape)) for i, a in enumerate(arrays)
    ]
    inputs: list[Operand] = []
    for k, s in enumerate(jax.tree.leaves(example)):
        small = tuple(d for d in s.shape if d != 1)
        node = n.Input(small, s.dtype, k)
        reader.b.nodes.append(node)
        inputs.append(known_shaped(node, tuple(s.shape)))
    consts: list[Operand] = [known_array(reader.b, c) for c in closed.consts]
    with jax.ensure_compile_time_eval():
        outputs = reader.run(closed.jaxpr, consts, [*parameters, *inputs])
        outputs = [
            overlap_of(o) if overlap_of(o) and o.average.random else o for o in outputs  # type: ignore[union-attr]
        ]
        arrays_out = tuple(reader.array(o) for o in outputs)
    for a in arrays_out:
        if a.average is not None and not a.average.settled:
            raise refuse("the output", a.average, None)
    suspects = tuple(Suspect(x, where) for x, where in reader.b.suspects)
    return Graph(
        arrays_out, tuple(reader.b.nodes), leaves, shape[-1], suspects, reader.b.sizes
    )


def _index(shape: tuple[int, ...]) -> np.ndarray:
    from widelimit.graph.index import full_index

    return full_index(shape)


def _float_dtype(example: Any) -> Any:
    floats = [s.dtype for s in jax.tree.leaves(example) if np.issubdtype(s.dtype, np.floating)]
    return np.result_type(*floats) if floats else jax.numpy.zeros(()).dtype
