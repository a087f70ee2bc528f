"""Elementwise operations on anything the reader holds."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from widelimit.errors import NotGaussianError
from widelimit.graph import nodes as n
from widelimit.graph import scalar as s
from widelimit.graph.arrange import in_axes
from widelimit.graph.build import Builder
from widelimit.graph.nodes import Part
from widelimit.graph.terms import multiple
from widelimit.trace.align import Aligned, align
from widelimit.trace.arrays import Array, concrete, is_constant, known_array
from widelimit.trace.averages import Average, Seen, after, follow, refuse
from widelimit.trace.functions import is_nonnegative, read_together

Elementwise = Callable[..., Any]


def elementwise(
    b: Builder, name: str, function: Elementwise, arrays: list[Array], dtype: Any
) -> Array:
    """Any elementwise operation; the linear ones keep Gaussian fields Gaussian."""
    if all(a.known for a in arrays):
        return _known(b, name, function, arrays, dtype)
    special = _SPECIAL.get(name)
    if special is not None:
        result = special(b, arrays, dtype)
        if result is not None:
            return result
    _refuse_unsettled(b, name, arrays)
    return nonlinear(b, name, function, arrays)


# --------------------------------------------------------------------------- known values


def _known(b: Builder, name: str, function: Elementwise, arrays: list[Array], dtype: Any) -> Array:
    if all(is_constant(a) for a in arrays):
        return known_array(b, np.asarray(function(*(concrete(a) for a in arrays))))
    record = _record(b, name, arrays)
    together = align(b, arrays)
    rank = len(together.shape)

    def call(*blocks: Any) -> Any:
        placed = [in_axes(jnp.asarray(x), p.dims, rank) for x, p in zip(blocks, together.parts)]
        return function(*jnp.broadcast_arrays(*placed))

    arguments = tuple(p.node for p in together.parts)
    node = b.compute(name, call, arguments, together.shape, dtype)  # type: ignore[arg-type]
    follow(b, node, record)
    return Array(node, together.axes, record)


def _record(b: Builder, name: str, arrays: list[Array]) -> Average | None:
    """What the result remembers of sums over width."""
    return after(name, [_seen(a) for a in arrays], b.where)


def _seen(a: Array) -> Seen:
    if not is_constant(a):
        return Seen(a.average, None, False)
    numbers = np.asarray(a.node.array)  # type: ignore[attr-defined]
    if not np.issubdtype(numbers.dtype, np.number) or numbers.size == 0:
        return Seen(None, None, False)
    return Seen(None, float(np.max(np.abs(numbers))), bool(np.all(numbers >= 0)))


def _refuse_unsettled(b: Builder, name: str, arrays: list[Array]) -> None:
    """A field meets known values only once those have converged."""
    for a in arrays:
        if a.average is not None and (
            not a.average.settled or (name == "mul" and a.average.vanishing)
        ):
            raise refuse(name, a.average, b.where)


# --------------------------------------------------------------------------- linear


def _linear(b: Builder, arrays: list[Array], signs: tuple[int, ...]) -> Array:
    _refuse_unsettled(b, "add", arrays)
    together = align(b, arrays)
    terms = []
    for part, sign in zip(together.parts, signs):
        terms.append(part if sign > 0 else multiple(b, -1.0, part))
    node = b.add(together.shape, together.channels, terms)
    return Array(node, together.axes)


def _add(b: Builder, arrays: list[Array], dtype: Any) -> Array:  # noqa: ARG001
    return _linear(b, arrays, (1,) * len(arrays))


def _sub(b: Builder, arrays: list[Array], dtype: Any) -> Array:  # noqa: ARG001
    return _linear(b, arrays, (1, -1))


def _neg(b: Builder, arrays: list[Array], dtype: Any) -> Array:  # noqa: ARG001
    return _linear(b, arrays, (-1,))


def _same(b: Builder, arrays: list[Array], dtype: Any) -> Array:  # noqa: ARG001
    return arrays[0]


def _mul(b: Builder, arrays: list[Array], dtype: Any) -> Array:  # noqa: ARG001
    _refuse_unsettled(b, "mul", arrays)
    together = align(b, arrays)
    left, right = together.parts
    if isinstance(left.node, n.Value) or isinstance(right.node, n.Value):
        if isinstance(right.node, n.Value):
            left, right = right, left
        return Array(b.scale(together.shape, together.channels, left, right), together.axes)
    return _product(b, together, left, right)


def _product(b: Builder, together: Aligned, left: Part, right: Part) -> Array:
    joint = _several_positions(b, "mul", lambda x, y: x * y, together)
    if joint is not None:
        return Array(joint, together.axes)
    for one, other in ((left, right), (right, left)):
        if _has_tangent(one.node):
            return Array(_distribute(b, together, one, other), together.axes)
    found = read_together(b, (left, right))
    if found is not None:
        (x, y), common = found
        expression = s.Operation("mul", operator.mul, (x, y))
        if left.node is right.node and left.dims == right.dims:
            expression = s.Operation("square", lambda t: t * t, (x,))
        assert common.root is not None
        node = b.apply(together.shape, together.channels, expression, common.root, common.values)
        return Array(node, together.axes)
    return Array(b.product(together.shape, together.channels, (left, right)), together.axes)


def _has_tangent(node: n.Node) -> bool:
    """A constant parameter, alone or beside its value."""
    if isinstance(node, n.Tangent):
        return isinstance(node.factor.node, n.Constant)
    if isinstance(node, n.Scale):
        return _has_tangent(node.operand.node)
    if isinstance(node, n.Sum):
        fields = [t.node for t in node.terms if isinstance(t.node, n.Field)]
        return all(_has_tangent(f) for f in fields)
    return False


def _distribute(b: Builder, together: Aligned, one: Part, other: Part) -> n.Field:
    """(value + tangent) · other, so that a Gaussian stays Gaussian."""
    shape, channels = together.shape, together.channels
    inside = lambda p: n.within(p, one.dims)
    match one.node:
        case n.Sum(terms=terms):
            products = []
            for t in terms:
                part = inside(t)
                if isinstance(t.node, n.Value):
                    products.append(b.scale(shape, channels, part, other))
                else:
                    products.append(_distribute(b, together, part, other))
            return b.add(shape, channels, [n.whole(p) for p in products])
        case n.Scale(factor=factor, operand=operand):
            inner = _distribute(b, together, inside(operand), other)
            return b.scale(shape, channels, inside(factor), n.whole(inner))
    return b.product(shape, channels, (one, other))


def _div(b: Builder, arrays: list[Array], dtype: Any) -> Array | None:
    top, bottom = arrays
    if not bottom.known:
        return None
    one = known_array(b, np.ones((), dtype))
    return _mul(b, [top, _known(b, "div", operator.truediv, [one, bottom], dtype)], dtype)


# --------------------------------------------------------------------------- nonlinear


def nonlinear(b: Builder, name: str, function: Elementwise, arrays: list[Array]) -> Array:
    """A scalar function of fields that share one Gaussian root."""
    together = align(b, arrays)
    return Array(apply_parts(b, name, function, together), together.axes)


def apply_parts(b: Builder, name: str, function: Elementwise, together: Aligned) -> n.Field:
    """The node of a scalar function, or the error that says why there is none."""
    found = read_together(b, together.parts)
    if found is None:
        joint = _several_positions(b, name, function, together)
        return _mixed(b, name, function, together) if joint is None else joint
    expressions, common = found
    assert common.root is not None
    expression = s.Operation(name, function, tuple(expressions))
    return b.apply(together.shape, together.channels, expression, common.root, common.values)


def _several_positions(
    b: Builder, name: str, function: Elementwise, together: Aligned
) -> n.Field | None:
    """An elementwise function of functions of several positions; None where there are none."""
    fields = [p.node for p in together.parts if isinstance(p.node, n.Field)]
    several = any(x.several for x in fields)
    if not several or not all(n.of_overlaps(x) for x in fields):
        return None
    dims, shape = [p.dims for p in together.parts], together.shape

    def call(*blocks: Any) -> Any:
        placed = [in_axes(jnp.asarray(x), d, len(shape)) for x, d in zip(blocks, dims)]
        return jnp.broadcast_to(function(*jnp.broadcast_arrays(*placed)), shape)

    operands = tuple(p.node for p in together.parts)
    return b.together(call, operands, shape, together.channels, name)


def _mixed(b: Builder, name: str, function: Elementwise, together: Aligned) -> n.Field:
    """A function of several fields that share no Gaussian, or the error that says why not."""
    fields = [p.node for p in together.parts if isinstance(p.node, n.Field)]
    if not all(x.drawable for x in fields):
        raise not_gaussian(b, name)
    return b.mixed(together.shape, together.channels, function, together.parts, name)


def not_gaussian(b: Builder, name: str) -> NotGaussianError:
    """The error for a nonlinearity on something that is not a function of one Gaussian."""
    return NotGaussianError(
        f"`{name}` acts on a value that is no function, place by place, of Gaussian fields",
        why="after a pooling or another map of activations over positions, or after a depthwise "
        "layer, the value has a distribution of its own, which is not integrated.",
        remedy="put a dense layer (a contraction with a parameter) between the two, which makes "
        "the value Gaussian again.",
        where=b.where,
    )


def _compare(name: str, function: Elementwise) -> Callable[..., Array | None]:
    """A comparison of two fields is one of their difference with zero."""

    def rule(b: Builder, arrays: list[Array], dtype: Any) -> Array | None:
        if len(arrays) != 2 or any(a.known for a in arrays):
            return None
        if read_together(b, align(b, arrays).parts) is not None:
            return None
        difference = _sub(b, arrays, dtype)
        if not n.is_gaussian(difference.node):
            return None
        return nonlinear(b, name, function, [difference, known_array(b, np.zeros(()))])

    return rule


def _extreme(sign: int) -> Callable[..., Array | None]:
    """max(a, b) = b + relu(a - b) and min(a, b) = b - relu(b - a), for Gaussian fields."""

    def rule(b: Builder, arrays: list[Array], dtype: Any) -> Array | None:
        if any(a.known for a in arrays):
            return None
        if read_together(b, align(b, arrays).parts) is not None:
            return None
        difference = _sub(b, arrays if sign > 0 else arrays[::-1], dtype)
        if not n.is_gaussian(difference.node):
            return None
        rest = nonlinear(b, "relu", lambda t: jnp.maximum(t, 0), [difference])
        return _linear(b, [arrays[1], rest], (1, sign))

    return rule


def _select(b: Builder, arrays: list[Array], dtype: Any) -> Array | None:
    """where(p, a, b) over several roots, or of a field masked by known values: p·a + (1 - p)·b."""
    which, *cases = arrays
    fields = [c for c in cases if not c.known]
    masked = which.known and len(fields) == 1 and all(_is_zero(c) for c in cases if c.known)
    if not masked and read_together(b, align(b, arrays).parts) is not None:
        return None
    infinite = any(is_constant(c) and not np.all(np.isfinite(concrete(c))) for c in cases)
    drawn = [a.node for a in arrays if not a.known]
    mixed = any(isinstance(x, n.Mixed) for x in drawn)
    if (mixed or infinite) and all(x.drawable for x in drawn):  # type: ignore[union-attr]
        # As a sum of products, what is not chosen would have to be finite.
        return nonlinear(b, "select_n", _chosen, arrays)
    total: Array | None = None
    for k, case in enumerate(cases):
        if masked and case.known:
            continue
        is_k = lambda p, k=k: jnp.where(jnp.asarray(p).astype(int) == k, 1.0, 0.0)
        if which.known and case.known:
            only = lambda p, c, k=k: jnp.where(jnp.asarray(p).astype(int) == k, c, 0.0)
            term = _known(b, "select_n", only, [which, case], dtype)
        elif which.known:
            chosen = _known(
                b, "select_n", lambda p, k=k: jnp.asarray(p).astype(int) == k, [which], bool
            )
            term = _mul(b, [chosen, case], dtype)
        else:
            term = _mul(b, [nonlinear(b, "select_n", is_k, [which]), case], dtype)
        total = term if total is None else _add(b, [total, term], dtype)
    return total


def _chosen(which: Any, *cases: Any) -> Any:
    out = cases[0]
    for k, case in enumerate(cases):
        out = jnp.where(jnp.asarray(which).astype(int) == k, case, out)
    return out


def _is_zero(a: Array) -> bool:
    return is_constant(a) and not np.any(concrete(a))


def power(b: Builder, array: Array, exponent: int, dtype: Any) -> Array:
    """A whole power; of a field with several roots, the product of its copies."""
    function = lambda t: t**exponent
    if array.known:
        constant = known_array(b, np.asarray(float(exponent)))
        return _known(b, "integer_pow", lambda t, _: t**exponent, [array, constant], dtype)
    name = "even_power" if exponent % 2 == 0 and exponent > 0 else "integer_pow"
    together = align(b, [array])
    if read_together(b, together.parts) is not None:
        return nonlinear(b, name, function, [array])
    if exponent < 0:
        raise not_gaussian(b, "integer_pow")
    node = b.product(together.shape, together.channels, together.parts * exponent)
    return Array(node, together.axes)


def nonnegative(node: n.Node) -> bool:
    """Whether a field is nowhere negative by construction."""
    match node:
        case n.Apply(expression=expression, values=values):
            return is_nonnegative(expression, len(values))
        case n.Product(factors=factors):
            a, *rest = factors
            pairs = len(factors) == 2 and rest[0].node is a.node and rest[0].dims == a.dims
            return pairs or all(nonnegative(f.node) for f in factors)
        case n.Scale(factor=factor, operand=operand):
            constant = isinstance(factor.node, n.Constant) and bool(np.all(factor.node.array >= 0))
            return constant and nonnegative(operand.node)
        case n.Sum(terms=terms):
            return all(
                nonnegative(t.node)
                or (isinstance(t.node, n.Constant) and bool(np.all(t.node.array >= 0)))
                for t in terms
            )
    return False


_SPECIAL: dict[str, Callable[..., Array | None]] = {
    "add": _add,
    "add_any": _add,
    "sub": _sub,
    "neg": _neg,
    "mul": _mul,
    "div": _div,
    "copy": _same,
    "copy_p": _same,
    "reduce_precision": _same,
    "max": _extreme(1),
    "min": _extreme(-1),
    "select_n": _select,
    **{
        name: _compare(name, function)
        for name, function in {
            "gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le,
        }.items()
    },
}
