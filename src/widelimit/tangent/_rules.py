"""What linear operations do to a cotangent that is kept as a product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.tangent._terms import (
    Label,
    OneHot,
    Term,
    axes,
    changed,
    explicit,
    fresh,
    materialised,
    scaled,
)
from widelimit.tangent._walk import Equation, rule

TAPS = 1024
"""Positions of a convolution kernel, at most."""


def _operand(e: Equation, k: int) -> tuple[int, ...]:
    return e.inputs[k].shape


# --------------------------------------------------------------------------- arrangement


@rule("reshape", "squeeze", "expand_dims", "copy", "copy_p", "optimization_barrier")
def same_entries(e: Equation, k: int, term: Term) -> Term | None:
    """The same entries in the same order."""
    regular = k == 0 and e.params.get("dimensions") is None
    return term if regular or e.eqn.primitive.name == "squeeze" else None


@rule("convert_element_type")
def convert(e: Equation, k: int, term: Term) -> Term | None:
    """Another floating type."""
    dtype = e.inputs[k].array.dtype
    cast = lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a
    return term.map_factors(cast)


@rule("transpose")
def transpose(e: Equation, k: int, term: Term) -> Term | None:
    """Axes in another order."""
    del k
    term, groups = axes(term, e.shape, e.seeds)
    back = np.argsort(e.params["permutation"])
    return replace(term, out=tuple(a for i in back for a in groups[i]))


@rule("broadcast_in_dim")
def broadcast(e: Equation, k: int, term: Term) -> Term | None:
    """Repetition: cotangents are summed over the new axes."""
    if k != 0:
        return None
    term, groups = axes(term, e.shape, e.seeds)
    kept: list[Label] = []
    for axis, size in zip(e.params["broadcast_dimensions"], _operand(e, k)):
        if size == e.shape[axis]:
            kept += groups[axis]
    return _summed_out(term, [a for g in groups for a in g if a not in kept], kept, e)


def _summed_out(term: Term, gone: list[Label], kept: list[Label], e: Equation) -> Term:
    """The sum over indices of the variable."""
    term = replace(term, out=tuple(kept))
    count = 1
    for label in gone:
        # The sum over all entries of one where an index equals a seed is 1, for any seed.
        if label not in e.seeds.labels and not term.holders(label):
            count *= term.sizes[label]
    return term if count == 1 else scaled(term, float(count), late=False)


@rule("reduce_sum")
def reduce_sum(e: Equation, k: int, term: Term) -> Term | None:
    """A sum: its cotangent is the same for all summands."""
    term, groups = axes(term, e.shape, e.seeds)
    rest = iter(groups)
    out: list[Label] = []
    sizes = dict(term.sizes)
    for axis, size in enumerate(_operand(e, k)):
        if axis in e.params["axes"]:
            if size != 1:
                label = fresh()
                sizes[label] = size
                out.append(label)
        else:
            out += next(rest)
    return replace(term, out=tuple(out), sizes=sizes)


@rule("rev")
def reverse(e: Equation, k: int, term: Term) -> Term | None:
    """Axes backwards."""
    del k
    term, groups = axes(term, e.shape, e.seeds)
    for axis in e.params["dimensions"]:
        size = e.shape[axis]
        if size != 1:
            term, groups = _selected(term, groups, axis, np.arange(size)[::-1], size, False)
    return replace(term, out=tuple(a for g in groups for a in g))


# --------------------------------------------------------------------------- parts


def _selected(
    term: Term,
    groups: list[tuple[Label, ...]],
    axis: int,
    indices: Any,
    size: int,
    late: bool,
) -> tuple[Term, list[tuple[Label, ...]]]:
    """Entry j of an axis came from entry ``indices[j]`` of the operand's axis of that size."""
    group, new = groups[axis], fresh()
    shape = [term.sizes[a] for a in group]
    indices = jnp.asarray(indices, jnp.int32).reshape(shape)
    term = replace(term, sizes={**term.sizes, new: size})
    term = term.with_factor(OneHot(indices), (*group, new), late)
    groups = [*groups[:axis], (new,), *groups[axis + 1 :]]
    return replace(term, out=tuple(a for g in groups for a in g)), groups


def _placed(
    term: Term,
    groups: list[tuple[Label, ...]],
    axis: int,
    start: int,
    step: int,
    size: int,
    e: Equation,
) -> tuple[Term, list[tuple[Label, ...]]]:
    """The cotangent of an axis of which a slice was taken: zero elsewhere."""
    group = groups[axis]
    label = group[0] if len(group) == 1 else None
    holders = [] if label is None else term.holders(label)
    simple = len(holders) == 1 and not isinstance(term.factors[holders[0]], OneHot)
    if label is None or label in e.seeds.labels or not simple:
        count = math.prod(term.sizes[a] for a in group)
        return _selected(term, groups, axis, start + step * np.arange(count), size, False)
    k, count = holders[0], term.sizes[label]
    array, names = term.factors[k], term.labels[k]
    high = size - start - (count - 1) * step - 1
    config = [(start, high, step - 1) if a == label else (0, 0, 0) for a in names]
    new = fresh()
    array = jax.lax.pad(array, jnp.zeros((), array.dtype), config)
    labels = tuple(new if a == label else a for a in names)
    term = replace(changed(term, k, array, labels), sizes={**term.sizes, new: size})
    groups = [*groups[:axis], (new,), *groups[axis + 1 :]]
    return replace(term, out=tuple(a for g in groups for a in g)), groups


@rule("slice")
def slice_(e: Equation, k: int, term: Term) -> Term | None:
    """A regular part of the operand."""
    term, groups = axes(term, e.shape, e.seeds)
    strides = e.params["strides"] or (1,) * len(e.shape)
    shape = _operand(e, k)
    for axis, (start, step) in enumerate(zip(e.params["start_indices"], strides)):
        if shape[axis] != e.shape[axis]:
            term, groups = _placed(term, groups, axis, start, step, shape[axis], e)
    return term


@rule("dynamic_slice")
def dynamic_slice(e: Equation, k: int, term: Term) -> Term | None:
    """A part that begins at computed indices, which are clamped to the operand."""
    if k != 0:
        return None
    term, groups = axes(term, e.shape, e.seeds)
    shape = _operand(e, k)
    for axis, start in enumerate(e.inputs[1:]):
        if shape[axis] != e.shape[axis]:
            first = jnp.clip(start.array, 0, shape[axis] - e.shape[axis])
            indices = first + jnp.arange(e.shape[axis])
            term, groups = _selected(term, groups, axis, indices, shape[axis], start.late)
    return term


@rule("gather")
def gather(e: Equation, k: int, term: Term) -> Term | None:
    """Whole rows by computed indices along one axis, such as an embedding."""
    d = e.params["dimension_numbers"]
    shape, sizes = _operand(e, k), e.params["slice_sizes"]
    batched = getattr(d, "operand_batching_dims", ())
    if k != 0 or batched or len(d.start_index_map) != 1:
        return None
    (axis,) = d.start_index_map
    if tuple(d.collapsed_slice_dims) != (axis,) or sizes[axis] != 1:
        return None
    if any(s != n for i, (s, n) in enumerate(zip(sizes, shape)) if i != axis):
        return None
    indices, mode = e.inputs[1], str(e.params["mode"])
    array = indices.array.reshape(indices.shape[:-1])
    if "CLIP" in mode or "clip" in mode:
        array = jnp.clip(array, 0, shape[axis] - 1)
    array = jnp.where((array < 0) | (array >= shape[axis]), -1, array)
    term, groups = axes(term, e.shape, e.seeds)
    inner = [groups[i] for i in d.offset_dims]
    outer = tuple(a for i, g in enumerate(groups) if i not in d.offset_dims for a in g)
    term = replace(term, out=(*outer, *(a for g in inner for a in g)))
    term, moved = _selected(term, [outer, *inner], 0, array, shape[axis], indices.late)
    rest = moved[1:]
    rest.insert(axis, moved[0])
    return replace(term, out=tuple(a for g in rest for a in g))


@rule("pad")
def pad(e: Equation, k: int, term: Term) -> Term | None:
    """Zeros between and around: the cotangent is a slice."""
    config = e.params["padding_config"]
    if k != 0 or any(low < 0 or high < 0 for low, high, _ in config):
        return None
    term, groups = axes(term, e.shape, e.seeds)
    shape = _operand(e, k)
    for axis, (low, _, inside) in enumerate(config):
        if shape[axis] != e.shape[axis]:
            found = _cut(term, groups, axis, low, inside + 1, shape[axis], e)
            if found is None:
                return None
            term, groups = found
    return term


@rule("concatenate")
def concatenate(e: Equation, k: int, term: Term) -> Term | None:
    """Pieces side by side."""
    axis = e.params["dimension"]
    sizes = [v.shape[axis] for v in e.inputs]
    term, groups = axes(term, e.shape, e.seeds)
    if sizes[k] == e.shape[axis]:
        return term
    found = _cut(term, groups, axis, sum(sizes[:k]), 1, sizes[k], e)
    return None if found is None else found[0]


def _cut(
    term: Term,
    groups: list[tuple[Label, ...]],
    axis: int,
    start: int,
    step: int,
    size: int,
    e: Equation,
) -> tuple[Term, list[tuple[Label, ...]]] | None:
    """A regular part of one axis of a cotangent."""
    if len(groups[axis]) != 1:
        return None
    label, new = groups[axis][0], fresh()
    if label in e.seeds.labels:
        inner = next(i for i, a in enumerate(term.out) if a == label)
        term = explicit(term, label, e.seeds.dtype)
        label = term.out[inner]
    for k in term.holders(label):
        if isinstance(term.factors[k], OneHot):
            if term.labels[k][-1] != label:
                return None
            term = materialised(term, k, e.seeds.dtype)
        names = term.labels[k]
        take = [
            slice(start, start + step * (size - 1) + 1, step) if a == label else slice(None)
            for a in names
        ]
        array = term.factors[k][tuple(take)]
        if size == 1:
            array = jnp.squeeze(array, names.index(label))
        names = tuple(new if a == label else a for a in names if size != 1 or a != label)
        term = changed(term, k, array, names)
    own = (new,) if size != 1 else ()
    groups = [*groups[:axis], own, *groups[axis + 1 :]]
    out = tuple(a for g in groups for a in g)
    return replace(term, out=out, sizes={**term.sizes, new: size}), groups


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
    shape = _operand(e, k)
    if shape == e.shape:
        return term
    term, groups = axes(term, e.shape, e.seeds)
    size = shape or (1,) * len(e.shape)
    kept = [a for here, full, g in zip(size, e.shape, groups) if here == full for a in g]
    return _summed_out(term, [a for g in groups for a in g if a not in kept], kept, e)


@rule("select_n")
def select(e: Equation, k: int, term: Term) -> Term | None:
    """A choice entry by entry: the other choices get nothing."""
    if k == 0:
        return None
    which = e.inputs[0]
    chosen = which.array == (bool(k - 1) if which.array.dtype == bool else k - 1)
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
    shape = _operand(e, k)
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
    shape = _operand(e, k)
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
