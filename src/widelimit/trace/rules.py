"""One rule per JAX primitive: how it acts on parameters, fields and known values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

import widelimit.trace.along
import widelimit.trace.control
import widelimit.trace.convolve
import widelimit.trace.custom
import widelimit.trace.indexing
import widelimit.trace.scatter  # noqa: F401  (registers their rules)
from widelimit.errors import BatchStatisticsError, OrderStatisticError, RandomnessError
from widelimit.graph import nodes as n
from widelimit.trace import joining
from widelimit.trace import structure as st
from widelimit.trace.along import as_position
from widelimit.trace.arrays import (
    Array,
    Concatenation,
    Operand,
    Parameter,
    Position,
    Repeat,
    concrete,
    is_constant,
)
from widelimit.trace.contract import Dims, contract
from widelimit.trace.pointwise import elementwise, power
from widelimit.trace.reader import ALWAYS, RECORDED, Reader, rule
from widelimit.trace.reduce import reduce_sum

# --------------------------------------------------------------------------- pointwise

POINTWISE = [
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "bessel_i0e", "bessel_i1e", "cbrt", "ceil", "clamp", "copy", "copy_p", "cos", "cosh",
    "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge",
    "gt", "imag", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "ne", "neg", "nextafter", "not", "or", "pow", "real", "reduce_precision", "rem",
    "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient",
    "sub", "tan", "tanh", "xor",
]


LOGICAL = {"select_n", "and", "or", "xor", "not"}
"""Primitives of truth values, which may arrive as the numbers 0 and 1."""


def floating(eqn: JaxprEqn) -> Any:
    """The primitive as a function of arrays of any floating type and broadcastable shapes."""

    def function(*arguments: Any) -> Any:
        arrays = list(jnp.broadcast_arrays(*(jnp.asarray(a) for a in arguments)))
        floats = [a.dtype for a in arrays if jnp.issubdtype(a.dtype, jnp.floating)]
        if floats:
            common = jnp.result_type(*floats)
            arrays = [
                a.astype(common) if jnp.issubdtype(a.dtype, jnp.floating) else a for a in arrays
            ]
        if eqn.primitive.name in LOGICAL:
            count = 1 if eqn.primitive.name == "select_n" else len(arrays)
            truth = [eqn.invars[k].aval.dtype == bool for k in range(count)]
            arrays[:count] = [a != 0 if t else a for a, t in zip(arrays[:count], truth)]
        return eqn.primitive.bind(*arrays, **eqn.params)

    return function


@rule(*POINTWISE)
def pointwise(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Elementwise primitives; a parameter times a constant stays a parameter."""
    name = eqn.primitive.name
    kept = _scaled_parameter(name, operands)
    if kept is not None:
        return [kept]
    shape = np.broadcast_shapes(*(o.shape for o in operands))
    operands = [_stretched(r, o, shape) for o in operands]
    if any(isinstance(o, Concatenation) for o in operands):
        return [_over_pieces(r, eqn, operands)]
    arrays = [r.array(o) for o in operands]
    dtype = eqn.outvars[0].aval.dtype
    if name == "square":
        return [power(r.b, arrays[0], 2, dtype)]
    return [elementwise(r.b, name, floating(eqn), arrays, dtype)]


@rule("polynomial")
def polynomial(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """A polynomial with known coefficients."""
    argument, *coefficients = operands
    if not all(is_constant(c) for c in coefficients):
        raise r.unsupported(eqn.primitive.name, "its coefficients are not constant.")
    numbers = [concrete(c) for c in coefficients]  # type: ignore[arg-type]

    def function(x: Any) -> Any:
        x = jnp.asarray(x)
        return eqn.primitive.bind(x, *(jnp.asarray(c, x.dtype) for c in numbers))

    dtype = eqn.outvars[0].aval.dtype
    return [elementwise(r.b, "polynomial", function, [r.array(argument)], dtype)]


def _stretched(r: Reader, o: Operand, shape: tuple[int, ...]) -> Operand:
    """Axes of size one stretch, as they do in the program."""
    if len(o.shape) != len(shape) or o.shape == shape:
        return o
    return st.broadcast(r.b, o, shape, tuple(range(len(shape))))


def _scaled_parameter(name: str, operands: list[Operand]) -> Parameter | None:
    if name in ("copy", "copy_p", "reduce_precision") and isinstance(operands[0], Parameter):
        return operands[0]
    if name == "neg" and isinstance(operands[0], Parameter):
        return Parameter(operands[0].leaf, operands[0].index, -operands[0].scale)
    if name not in ("mul", "div"):
        return None
    left, right = operands
    if isinstance(right, Parameter) and name == "mul":
        left, right = right, left
    if not isinstance(left, Parameter) or not is_constant(right):
        return None
    assert isinstance(right, Array)
    number = np.asarray(right.node.array)  # type: ignore[attr-defined]
    if number.shape != ():
        return None
    factor = float(number) if name == "mul" else 1.0 / float(number)
    return Parameter(left.leaf, left.index, left.scale * factor)


def _over_pieces(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> Operand:
    """Act on every piece of a joined array, cutting the other operands alike."""
    joined = [o for o in operands if isinstance(o, Concatenation)]
    axis, cuts = joined[0].axis, np.cumsum([0, *joined[0].sizes])
    if any(o.axis != axis or np.any(np.cumsum([0, *o.sizes]) != cuts) for o in joined):
        operands = [r.array(o) for o in operands]  # raises the error that explains
    results = []
    for i, (start, stop) in enumerate(zip(cuts, cuts[1:])):
        inside = [
            o.pieces[i]
            if isinstance(o, Concatenation)
            else (st.take(r.b, o, axis, np.arange(start, stop)) if o.shape else o)
            for o in operands
        ]
        results.append(r.equation(eqn, inside)[0])
    return joining.concatenate(r.b, results, axis)


RECORDED.update(POINTWISE)
RECORDED.update(
    ("convert_element_type", "integer_pow", "reshape", "squeeze", "expand_dims", "transpose",
     "broadcast_in_dim", "slice", "reduce_sum", "custom_jvp_call", "custom_vjp_call",
     "custom_vjp_call_jaxpr")
)


@rule("convert_element_type")
def convert(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Between floating types nothing changes; anything else is a pointwise function."""
    (a,) = operands
    old, new = eqn.invars[0].aval.dtype, eqn.params["new_dtype"]
    if jnp.issubdtype(old, jnp.floating) and jnp.issubdtype(new, jnp.floating):
        return [a]
    if jnp.issubdtype(new, jnp.floating):
        function = lambda t: jnp.asarray(t).astype(jnp.result_type(float))
    else:
        function = lambda t: jnp.asarray(t).astype(new)
    return [elementwise(r.b, "convert_element_type", function, [r.array(a)], new)]


@rule("integer_pow")
def integer_power(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Whole powers, also of products and sums."""
    array = r.array(operands[0])
    return [power(r.b, array, eqn.params["y"], eqn.outvars[0].aval.dtype)]


# --------------------------------------------------------------------------- structure


@rule("reshape", "squeeze", "expand_dims")
def reshape(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Regroup axes, in another order if one is given."""
    (a,) = operands
    order = eqn.params.get("dimensions")
    if eqn.primitive.name == "reshape" and order is not None:
        a = st.transpose(r.b, a, tuple(order))
    return [st.reshape(r.b, a, tuple(eqn.outvars[0].aval.shape))]


@rule("transpose")
def transpose(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Reorder axes."""
    return [st.transpose(r.b, operands[0], tuple(eqn.params["permutation"]))]


ALWAYS.add("broadcast_in_dim")


@rule("broadcast_in_dim")
def broadcast(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Repeat along new axes."""
    shape, dims = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    return [st.broadcast(r.b, operands[0], tuple(shape), tuple(dims))]


@rule("slice")
def slice_(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Static slices, axis by axis."""
    (a,) = operands
    strides = eqn.params["strides"] or (1,) * len(a.shape)
    for axis, (start, stop, step) in enumerate(
        zip(eqn.params["start_indices"], eqn.params["limit_indices"], strides)
    ):
        a = st.take(r.b, a, axis, np.arange(start, stop, step))
    return [a]


@rule("rev")
def reverse(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Flip axes."""
    (a,) = operands
    for axis in eqn.params["dimensions"]:
        a = st.take(r.b, a, axis, np.arange(a.shape[axis])[::-1])
    return [a]


@rule("tile")
def tile(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Repeat whole axes."""
    (a,) = operands
    for axis, times in enumerate(eqn.params["reps"]):
        if times > 1:
            a = st.take(r.b, a, axis, np.tile(np.arange(a.shape[axis]), times))
    return [a]


@rule("split")
def split(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Cut one axis into pieces."""
    (a,) = operands
    cuts = np.cumsum([0, *eqn.params["sizes"]])
    axis = eqn.params["axis"]
    return [st.take(r.b, a, axis, np.arange(i, j)) for i, j in zip(cuts, cuts[1:])]


@rule("unstack")
def unstack(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """The slices along one axis, without it."""
    (a,) = operands
    axis = eqn.params["axis"]
    shape = (*a.shape[:axis], *a.shape[axis + 1 :])
    slices = [st.take(r.b, a, axis, np.array([k])) for k in range(a.shape[axis])]
    return [st.reshape(r.b, piece, shape) for piece in slices]


@rule("concatenate")
def concatenate(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Join along one axis."""
    axis = eqn.params["dimension"]
    kept = [o for o in operands if o.shape[axis] > 0]
    return [kept[0] if len(kept) == 1 else joining.concatenate(r.b, kept, axis)]


@rule("stack")
def stack(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Join along a new axis."""
    axis = eqn.params["axis"]
    rank = len(operands[0].shape)
    dims = tuple(k for k in range(rank + 1) if k != axis)
    wide = [
        st.broadcast(r.b, o, (*o.shape[:axis], 1, *o.shape[axis:]), dims) for o in operands
    ]
    return [wide[0] if len(wide) == 1 else joining.concatenate(r.b, wide, axis)]


# --------------------------------------------------------------------------- contraction, sums


@rule("dot_general")
def dot_general(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Contractions with a parameter, a known matrix, or another field."""
    (lc, rc), (lb, rb) = eqn.params["dimension_numbers"]
    dims = Dims(tuple(lc), tuple(rc), tuple(lb), tuple(rb))
    return [contract(r.b, r.leaves, *operands, dims, eqn.outvars[0].aval.dtype)]


@rule("reduce_sum")
def reduce_sum_(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Sums."""
    (a,) = operands
    axes = tuple(eqn.params["axes"])
    if isinstance(a, Concatenation):
        pieces = [reduce_sum(r.b, r.array(p), axes) for p in a.pieces]
        if a.axis not in axes:
            axis = a.axis - sum(k < a.axis for k in axes)
            return [joining.concatenate(r.b, list(pieces), axis)]
        records = [p.average for p in pieces if p.average is not None]
        plain = [Array(p.node, p.axes) for p in pieces]
        total = elementwise(r.b, "add", lambda *x: sum(x), plain, eqn.outvars[0].aval.dtype)
        biggest = max(records, key=lambda z: z.width) if records else None
        return [Array(total.node, total.axes, biggest)]
    return [reduce_sum(r.b, r.array(a), axes)]


# --------------------------------------------------------------------------- refused by name


@rule(
    "reduce_max", "reduce_min", "argmax", "argmin", "sort", "top_k", "approx_top_k", "cummax",
    "cummin", "reduce_window_max", "reduce_window_min", "select_and_scatter_add",
    "select_and_gather_add",
)
def order_statistic(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:
    """Maxima and sorting over random values have no closed limit."""
    name = eqn.primitive.name
    if name in ("reduce_max", "reduce_min"):
        a = r.array(operands[0])
        axes = eqn.params["axes"]
        if all(isinstance(x, Repeat) for k in axes for x in a.axes[k]):
            left = tuple(ax for k, ax in enumerate(a.axes) if k not in axes)
            return [Array(a.node, left, a.average)]
        if n.of_overlaps(a.node):
            return [_extreme_position(r, a, axes, name)]
    raise OrderStatisticError(
        f"`{name}` over random values",
        why="the maximum (or order) of correlated Gaussian values has no closed-form moments; "
        "a softmax meets this too, through the maximum it subtracts.",
        remedy="use average pooling; for a softmax read-out, return the logits.",
        where=r.b.where,
    )


def _extreme_position(r: Reader, a: Array, axes: tuple[int, ...], name: str) -> Array:
    """The largest or smallest of several positions of a sum over width that stays random."""
    for axis in axes:
        a = as_position(r, a, axis, name)
    gone = tuple(x.axis for k in axes for x in a.axes[k] if isinstance(x, Position))
    function = jnp.max if name == "reduce_max" else jnp.min
    shape = tuple(s for k, s in enumerate(a.node.shape) if k not in gone)
    field = r.b.together(lambda t: function(t, gone), (a.node,), shape, a.field.channels, name)
    left = [k for k in range(len(a.node.shape)) if k not in gone]
    seen = lambda x: replace(x, axis=left.index(x.axis)) if isinstance(x, Position) else x
    return Array(field, tuple(
        tuple(seen(x) for x in ax) for k, ax in enumerate(a.axes) if k not in axes
    ))


@rule(
    "random_bits", "random_wrap", "random_unwrap", "random_seed", "random_split", "random_fold_in",
    "random_gamma", "threefry2x32", "rng_bit_generator", "rng_uniform", "random_clone",
)
def randomness(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:  # noqa: ARG001
    """Random numbers inside the network."""
    raise RandomnessError(
        f"`{eqn.primitive.name}` draws random numbers inside the network",
        why="the limit describes the randomness of the parameters only; noise drawn inside, "
        "such as dropout in training mode, is not part of it.",
        remedy="switch the layer to inference mode, or pass the noise in as part of the input.",
        where=r.b.where,
    )


ALWAYS.update(
    ("random_bits", "random_seed", "random_split", "random_fold_in", "threefry2x32",
     "rng_bit_generator", "rng_uniform", "random_gamma")
)


@rule("psum", "pmean", "all_gather", "axis_index", "psum2", "pbroadcast", "all_reduce_sum")
def collective(r: Reader, eqn: JaxprEqn, operands: list[Operand]) -> list[Operand]:  # noqa: ARG001
    """Sums over a named axis of examples."""
    raise BatchStatisticsError(
        f"`{eqn.primitive.name}` mixes the examples of a batch",
        why="the output for one example then depends on the others, so it is not a function of "
        "one example; BatchNorm in training mode does this.",
        remedy="switch the layer to inference mode, or use LayerNorm.",
        where=r.b.where,
    )
