"""What operations that only move entries do to a cotangent that is kept as a product."""

from __future__ import annotations

import math
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


def operand_shape(e: Equation, k: int) -> tuple[int, ...]:
    """The shape of an operand."""
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
    for axis, size in zip(e.params["broadcast_dimensions"], operand_shape(e, k)):
        if size == e.shape[axis]:
            kept += groups[axis]
    return summed_out(term, [a for g in groups for a in g if a not in kept], kept, e)


def summed_out(term: Term, gone: list[Label], kept: list[Label], e: Equation) -> Term:
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
    for axis, size in enumerate(operand_shape(e, k)):
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
    shape = operand_shape(e, k)
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
    shape = operand_shape(e, k)
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
    shape, sizes = operand_shape(e, k), e.params["slice_sizes"]
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
    shape = operand_shape(e, k)
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
