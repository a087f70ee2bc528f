"""What sums, products and contractions do to a cotangent that is kept as a product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.tangent._arrange import operand_shape, summed_out
from widelimit.tangent._terms import OneHot, Term, aligned, axes, changed, fresh, scaled
from widelimit.tangent._walk import Equation, rule

TAPS = 1024
"""Positions of a convolution kernel, at most."""

# --------------------------------------------------------------------------- arithmetic


@rule("add", "add_any")
def add(e: Equation, k: int, term: Term) -> Term | None:
    """A sum of two."""
    return _narrowed(e, k, term)


@rule("sub")
def subtract(e: Equation, k: int, term: Term) -> Term | None:
    """A difference."""
    return _narrowed(e, k, term if k == 0 else scaled(term, -1.0, late=False))


@rule("neg")
def negate(e: Equation, k: int, term: Term) -> Term | None:
    """A sign."""
    del e, k
    return scaled(term, -1.0, late=False)


@rule("mul")
def multiply(e: Equation, k: int, term: Term) -> Term | None:
    """A product with another value."""
    other = e.inputs[1 - k]
    return _narrowed(e, k, _times(e, term, other.array, other.late))


@rule("div")
def divide(e: Equation, k: int, term: Term) -> Term | None:
    """A quotient, for its numerator."""
    if k != 0:
        return None
    other = e.inputs[1]
    return _narrowed(e, k, _times(e, term, 1 / other.array, other.late))


def _times(e: Equation, term: Term, array: Any, late: bool) -> Term:
    """A cotangent times an array that broadcasts to its shape, or a number."""
    if array.size == 1:
        return scaled(term, array.reshape(()), late=late)
    term, groups = axes(term, e.shape, e.seeds)
    labels = [a for size, g in zip(array.shape, groups) if size != 1 for a in g]
    return term.with_factor(array.reshape([term.sizes[a] for a in labels]), labels, late)


def _narrowed(e: Equation, k: int, term: Term) -> Term:
    """The cotangent of an operand that was repeated to the shape of the result."""
    shape = operand_shape(e, k)
    if shape == e.shape:
        return term
    term, groups = axes(term, e.shape, e.seeds)
    size = shape or (1,) * len(e.shape)
    kept = [a for here, full, g in zip(size, e.shape, groups) if here == full for a in g]
    return summed_out(term, [a for g in groups for a in g if a not in kept], kept, e)


@rule("select_n")
def select(e: Equation, k: int, term: Term) -> Term | None:
    """A choice entry by entry: the other choices get nothing."""
    if k == 0:
        return None
    which = e.inputs[0]
    chosen = which.array == (bool(k - 1) if which.array.dtype == bool else k - 1)
    if chosen.ndim and not e.inputs[k].weight:
        term, groups = axes(term, e.shape, e.seeds)
        names = [a for g in groups for a in g]
        for j, (f, own) in enumerate(zip(term.factors, term.labels)):
            if not isinstance(f, OneHot) and set(names) <= set(own) and (
                term.late[j] or not which.late
            ):
                # What is not chosen may be infinite; a product with zero would be NaN.
                mask = aligned(chosen.reshape([term.sizes[a] for a in names]), names, own)
                return _narrowed(e, k, changed(term, j, jnp.where(mask, f, 0)))
    chosen = chosen.astype(e.inputs[k].array.dtype)
    return _narrowed(e, k, _times(e, term, chosen, which.late))


@rule(
    "exp", "exp2", "expm1", "log", "log1p", "tanh", "logistic", "sqrt", "rsqrt", "cbrt", "square",
    "sin", "cos", "tan", "sinh", "cosh", "erf", "integer_pow", "abs",
)
def pointwise(e: Equation, k: int, term: Term) -> Term | None:
    """A nonlinear function of a weight, entry by entry."""
    value = e.inputs[k]
    if not value.weight:
        return None
    function = lambda a: e.eqn.primitive.bind(a, **e.params)
    slope = jax.jvp(function, (value.array,), (jnp.ones_like(value.array),))[1]
    return _times(e, term, slope, False)


# --------------------------------------------------------------------------- contractions


@rule("dot_general")
def dot_general(e: Equation, k: int, term: Term) -> Term | None:
    """A contraction with another value: its product with the cotangent."""
    (lc, rc), (lb, rb) = e.params["dimension_numbers"]
    mine, theirs = ((lc, lb), (rc, rb)) if k == 0 else ((rc, rb), (lc, lb))
    other = e.inputs[1 - k]
    shape = operand_shape(e, k)
    term, groups = axes(term, e.shape, e.seeds)
    free = [i for i in range(len(shape)) if i not in mine[0] and i not in mine[1]]
    rest = [i for i in range(len(other.shape)) if i not in theirs[0] and i not in theirs[1]]
    batch = groups[: len(lb)]
    left, right = (free, rest) if k == 0 else (rest, free)
    own = dict(zip(left, groups[len(lb) : len(lb) + len(left)]))
    foreign = dict(zip(right, groups[len(lb) + len(left) :]))
    if k == 1:
        own, foreign = foreign, own
    own.update(zip(mine[1], batch))
    foreign.update(zip(theirs[1], batch))
    sizes = dict(term.sizes)
    for i, j in zip(mine[0], theirs[0]):
        label = fresh()
        sizes[label] = shape[i]
        own[i] = foreign[j] = (label,) if shape[i] != 1 else ()
    labels = [a for j in range(len(other.shape)) for a in foreign[j]]
    out = tuple(a for i in range(len(shape)) for a in own[i])
    array = other.array.reshape([sizes[a] for a in labels])
    return replace(term, out=out, sizes=sizes).with_factor(array, labels, other.late)


@rule("conv_general_dilated")
def convolution(e: Equation, k: int, term: Term) -> Term | None:
    """A convolution, for its kernel: patches of the input times the cotangent."""
    p = e.params
    taps = [e.inputs[1].shape[i] for i in p["dimension_numbers"].rhs_spec[2:]]
    if k != 1 or p["batch_group_count"] != 1 or math.prod(taps) > TAPS:
        return None
    lhs, rhs = p["dimension_numbers"].lhs_spec, p["dimension_numbers"].rhs_spec
    spec, groups_count = p["dimension_numbers"].out_spec, p["feature_group_count"]
    shape = operand_shape(e, k)
    spatial = [e.shape[i] for i in spec[2:]]
    patches = _patches(jnp.transpose(e.inputs[0].array, (lhs[0], *lhs[2:], lhs[1])), taps, p)
    batch, inner = e.shape[spec[0]], shape[rhs[1]]
    patches = patches.reshape(*taps, batch, *spatial, groups_count, inner)

    # The output's channels consist of groups and of channels inside a group.
    wide, places = [], {}
    for axis, size in enumerate(e.shape):
        places[axis] = len(wide)
        wide += [groups_count, size // groups_count] if axis == spec[1] else [size]
    term, labelled = axes(term, wide, e.seeds)
    channel = places[spec[1]]
    group, outer = labelled[channel], labelled[channel + 1]
    positions = [labelled[places[i]] for i in (spec[0], *spec[2:])]
    sizes = dict(term.sizes)
    new = []
    for size in (*taps, inner):
        label = fresh()
        sizes[label] = size
        new.append((label,) if size != 1 else ())
    labels = [a for g in (*new[:-1], *positions, group, new[-1]) for a in g]
    own = dict(zip(rhs, ((*group, *outer), new[-1], *new[:-1])))
    out = tuple(a for i in range(len(shape)) for a in own[i])
    array = patches.reshape([sizes[a] for a in labels])
    return replace(term, out=out, sizes=sizes).with_factor(array, labels, e.inputs[0].late)


def _patches(x: Any, taps: Sequence[int], p: dict[str, Any]) -> Any:
    """What each tap of the kernel sees: shape (*taps, batch, *positions, channels)."""
    config = [(0, 0, 0)]
    for (low, high), dilation in zip(p["padding"], p["lhs_dilation"]):
        config.append((low, high, dilation - 1))
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [*config, (0, 0, 0)])
    steps, dilations = p["window_strides"], p["rhs_dilation"]
    reach = [(t - 1) * d + 1 for t, d in zip(taps, dilations)]
    count = [(n - r) // s + 1 for n, r, s in zip(x.shape[1:-1], reach, steps)]
    parts = []
    for tap in itertools.product(*map(range, taps)):
        begin = [t * d for t, d in zip(tap, dilations)]
        end = [b + (c - 1) * s + 1 for b, c, s in zip(begin, count, steps)]
        start, stop = [0, *begin, 0], [x.shape[0], *end, x.shape[-1]]
        parts.append(jax.lax.slice(x, start, stop, [1, *steps, 1]))
    return jnp.stack(parts).reshape(*taps, *parts[0].shape)
