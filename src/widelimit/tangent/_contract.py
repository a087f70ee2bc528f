"""The inner product of two cotangents that are kept as products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.tangent._axes import Axes
from widelimit.tangent._order import Plan, Trees, multiplied, plan, remembered
from widelimit.tangent._terms import (
    Label,
    MisalignedError,
    OneHot,
    Seeds,
    Term,
    dense,
    explicit,
    fresh,
    refined,
    relabelled,
)


@dataclass(frozen=True)
class Network:
    """One inner product as a tensor network, ready to be ordered.

    Attributes
    ----------
    arrays, labels
        The factors.
    result
        The label of each axis of the result; two axes may have the same one.
    sizes
        Of all labels.
    scale
        A number that the product is to be multiplied by.
    """

    arrays: list[Any]
    labels: list[tuple[Label, ...]]
    result: tuple[Label, ...]
    sizes: dict[Label, int]
    scale: float

    def order(self, limit: float, known: Trees = ()) -> Plan:
        """The cheapest order of its products, where some are ``known``."""
        names = tuple(frozenset(n) for n in self.labels)
        used = frozenset().union(*names) if names else frozenset()
        # Equal problems are recognised by their sizes, whatever their labels.
        table = {a: k for k, a in enumerate(dict.fromkeys(a for n in self.labels for a in n))}
        rename = lambda s: frozenset(table[a] for a in s)
        sizes = tuple(sorted((table[a], self.sizes[a]) for a in used))
        result = rename(used & set(self.result))
        return plan(tuple(map(rename, names)), result, sizes, limit, known)

    def value(self, limit: float, known: dict[Any, Any]) -> Any:
        """The inner product; ``known`` holds products that were computed before."""
        have = {a for names in self.labels for a in names}
        distinct = list(dict.fromkeys(self.result))
        present = [a for a in distinct if a in have]
        if self.arrays:
            trees = remembered(self.arrays, self.labels, present, known)
            order = self.order(limit, trees)
            array = multiplied(self.arrays, self.labels, present, order, known)
        else:
            array = jnp.ones(())
        array = jnp.expand_dims(array, [k for k, a in enumerate(distinct) if a not in have])
        if self.scale != 1:
            array = array * self.scale
        return _spread(array, self.result, self.sizes)


@dataclass(frozen=True)
class Side:
    """A batch of examples, and the labels of its examples and of its outputs."""

    seeds: Seeds
    label: Label
    count: int

    def twin(self) -> Side:
        """Another batch of examples of the same network."""
        seeds = replace(self.seeds, labels=tuple(fresh() for _ in self.seeds.labels))
        return Side(seeds, fresh(), self.count)


def inner_product(a: Term, b: Term, left: Side, right: Side, axes: Axes) -> Network:
    """Of two terms of one parameter, for all pairs of examples and of outputs.

    Both terms come with the labels of ``left``.
    """
    a, b = _common(a, b, left)
    table = {x: fresh() for x in b.sizes}
    table |= dict(zip(left.seeds.labels, right.seeds.labels)) | {left.label: right.label}
    b = relabelled(b, table)
    same = _Classes()
    for x, y in zip(a.out, b.out):
        same.join(x, y)
    for k in axes.tied:
        same.join(left.seeds.labels[k], right.seeds.labels[k])
    sizes = {same.of(x): s for t in (a, b) for x, s in t.sizes.items()}
    sizes |= {left.label: left.count, right.label: right.count}
    for x, s in zip((*left.seeds.labels, *right.seeds.labels), 2 * axes.shape):
        sizes[same.of(x)] = s
    labels = [tuple(same.of(x) for x in names) for t in (a, b) for names in t.labels]
    full = axes.arranged(left.seeds.labels, right.seeds.labels)
    result = (left.label, right.label, *(same.of(x) for x in full))
    scale = axes.scale
    have = {x for names in labels for x in names}
    # A sum over an index on which nothing depends.
    for x in {same.of(x) for x in (*a.out, *b.out, *axes.traced(left.seeds.labels))}:
        if x not in have and x not in result:
            scale *= sizes[x]
    network = Network([*a.factors, *b.factors], labels, result, sizes, scale)
    return _selections(network, left.seeds.dtype)


def widened(
    kernel: Any, inner: tuple[Side, Side], sides: tuple[Side, Side],
    outer: tuple[Sequence[Term], Sequence[Term]], axes: Axes,
) -> Network:
    """The kernel of the outputs from that of a narrow value, and the value's cotangents.

    Both cotangents come with the labels of the left side.
    """
    first, second = sides
    names = [(first.label, second.label, *(a for s in inner for a in s.seeds.labels))]
    arrays, sizes = [kernel], dict(zip(names[0], kernel.shape))
    table = {second.seeds.labels[k]: first.seeds.labels[k] for k in axes.tied}
    for side, narrow, terms in zip(sides, inner, outer):
        late = any(first.label in own for t in terms for own in t.labels)
        front = (first.label,) if late else ()
        array = sum(dense(t, narrow.seeds.count, first.seeds, front) for t in terms)
        shape = (*((side.count,) if late else ()), *side.seeds.sizes, *narrow.seeds.sizes)
        own = ((side.label,) if late else ()) + side.seeds.labels + narrow.seeds.labels
        arrays.append(array.reshape(shape))
        names.append(tuple(table.get(a, a) for a in own))
        sizes |= dict(zip(names[-1], shape))
    full = axes.arranged(first.seeds.labels, second.seeds.labels)
    result = (first.label, second.label, *(table.get(a, a) for a in full))
    return Network(arrays, names, result, sizes, axes.scale)


def _common(a: Term, b: Term, side: Side) -> tuple[Term, Term]:
    """Two terms whose variables' indices are split in the same way."""
    borders = []
    for term in (a, b):
        at, own = 1, []
        for label in term.out:
            at *= term.sizes[label]
            own.append(at)
        borders.append(own)
    union = sorted({1, *borders[0], *borders[1]})
    sizes = [high // low for low, high in zip(union, union[1:])]
    try:
        if any(high % low for low, high in zip(union, union[1:])):
            raise MisalignedError
        return tuple(refined(_whole_seeds(t, side.seeds, sizes), sizes)[0] for t in (a, b))
    except MisalignedError:
        return _as_array(a, side), _as_array(b, side)


def _whole_seeds(term: Term, seeds: Seeds, sizes: list[int]) -> Term:
    """Seeds that would be split, as identity matrices."""
    if len(sizes) == len(term.out):
        return term
    for label in set(term.out) & set(seeds.labels):
        term = explicit(term, label, seeds.dtype)
    return term


def _as_array(term: Term, side: Side) -> Term:
    """A term as one array."""
    size = math.prod(term.sizes[a] for a in term.out)
    late = any(side.label in names for names in term.labels)
    front = (side.label,) if late else ()
    array = dense(term, size, side.seeds, front)
    count = term.sizes[side.label] if late else 1
    shape = (count,) if late else ()
    inner, seeds = fresh(), side.seeds
    sizes = {**dict(zip(seeds.labels, seeds.sizes)), side.label: count, inner: size}
    empty = Term((), (), (inner,), sizes, ())
    array = array.reshape(*shape, *seeds.sizes, size)
    return empty.with_factor(array, (*front, *seeds.labels, inner), late)


def _selections(network: Network, dtype: Any) -> Network:
    """Two one-hot factors that share their index are a comparison; others become arrays."""
    arrays, labels = list(network.arrays), list(network.labels)
    pending = [k for k, f in enumerate(arrays) if isinstance(f, OneHot)]
    while pending:
        k = pending.pop(0)
        index = labels[k][-1]
        holders = [j for j, names in enumerate(labels) if index in names and j != k]
        mate = holders[0] if len(holders) == 1 else None
        alone = index not in network.result
        if mate is not None and alone and isinstance(arrays[mate], OneHot) and (
            labels[mate][-1] == index
        ):
            pending.remove(mate)
            x, y = labels[k][:-1], labels[mate][:-1]
            left, right = arrays[k].indices, arrays[mate].indices
            names = tuple(dict.fromkeys([*x, *y]))
            i, j = _laid_out(left, x, names), _laid_out(right, y, names)
            found = (i == j) & (i >= 0) & (i < network.sizes[index])
            arrays[k], labels[k] = found.astype(dtype), names
            del arrays[mate], labels[mate]
            pending = [p - (p > mate) for p in pending]
        else:
            size = network.sizes[index]
            arrays[k] = jax.nn.one_hot(arrays[k].indices, size, dtype=dtype)
    return replace(network, arrays=arrays, labels=labels)


def _laid_out(array: Any, labels: Sequence[Label], target: Sequence[Label]) -> Any:
    order = [labels.index(a) for a in target if a in labels]
    array = jnp.transpose(array, order)
    return jnp.expand_dims(array, [k for k, a in enumerate(target) if a not in labels])


def _spread(array: Any, result: Sequence[Label], sizes: dict[Label, int]) -> Any:
    """One axis for each label to one axis for each entry of ``result``: a diagonal."""
    shape = [sizes[a] for a in result]
    seen: dict[Label, int] = {}
    places, masks = [], []
    for k, a in enumerate(result):
        if a in seen:
            places.append(k)
            masks.append((seen[a], k))
        else:
            seen[a] = k
    array = jnp.expand_dims(array, places)
    for first, second in masks:
        eye = jnp.eye(sizes[result[first]], dtype=array.dtype)
        wide = [1] * len(result)
        wide[first] = wide[second] = sizes[result[first]]
        array = array * eye.reshape(wide)
    return jnp.broadcast_to(array, shape)


class _Classes:
    """Labels that are one index."""

    def __init__(self) -> None:
        self.parent: dict[Label, Label] = {}

    def of(self, a: Label) -> Label:
        while a in self.parent:
            a = self.parent[a]
        return a

    def join(self, a: Label, b: Label) -> None:
        a, b = self.of(a), self.of(b)
        if a != b:
            self.parent[a] = b

