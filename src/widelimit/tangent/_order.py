"""The cheapest order in which to multiply the arrays of a tensor network, two at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax.numpy as jnp

Labels = frozenset[int]

MATMUL = 32.0
"""Multiplications of a matrix product that take as long as one entry read or written."""

BATCH = 3000.0
"""What starting one small matrix product of a batch costs, in the same unit."""


@dataclass(frozen=True)
class Plan:
    """An order of pairwise products.

    Attributes
    ----------
    tree
        A factor's number, or a pair of trees.
    cost
        In units of one entry of an array read or written.
    flops
        Multiplications and additions.
    largest
        Entries of the largest intermediate result.
    """

    tree: Any
    cost: float
    flops: float
    largest: float


Trees = tuple[tuple[int, Any], ...]
"""Parts of the factors, as bits, and trees of their products."""


@lru_cache(maxsize=4096)
def plan(
    factors: tuple[Labels, ...], result: Labels, sizes: tuple[tuple[int, int], ...], limit: float,
    known: Trees = (),
) -> Plan:
    """The cheapest order, by dynamic programming over subsets of the factors.

    Intermediate results beyond ``limit`` entries are avoided where that is possible. What is
    ``known`` costs nothing.
    """
    size = dict(sizes)
    everything = (1 << len(factors)) - 1
    best: dict[int, Plan] = {1 << k: Plan(k, 0.0, 0.0, 0.0) for k in range(len(factors))}
    best.update((part, Plan(tree, 0.0, 0.0, 0.0)) for part, tree in known)
    kept = {part: _kept(part, factors, result) for part in range(1, everything + 1)}
    order = sorted(kept, key=int.bit_count)
    for part in order:
        if part in best:
            continue
        low = part & -part
        found: Plan | None = None
        left = part
        while left := (left - 1) & part:
            if not left & low:
                continue
            right = part ^ left
            step = _step(kept[left], kept[right], kept[part], size)
            a, b = best[left], best[right]
            entries = volume(kept[part], size)
            largest = max(a.largest, b.largest, 0.0 if part == everything else entries)
            cost = a.cost + b.cost + step[0]
            if largest > limit:
                cost *= 1e6
            if found is None or cost < found.cost:
                found = Plan((a.tree, b.tree), cost, a.flops + b.flops + step[1], largest)
        assert found is not None
        best[part] = found
    return best[everything]


def _kept(part: int, factors: Sequence[Labels], result: Labels) -> Labels:
    """The labels of a partial product that are still needed."""
    inside, outside = set(), set(result)
    for k, labels in enumerate(factors):
        (inside if part >> k & 1 else outside).update(labels)
    return frozenset(inside & outside)


def volume(labels: Labels, size: Mapping[int, int]) -> float:
    """The number of entries of an array with these labels."""
    return float(math.prod(size[a] for a in labels))


def _step(a: Labels, b: Labels, out: Labels, size: Mapping[int, int]) -> tuple[float, float]:
    """Cost and operations of one product."""
    work = volume(a | b, size)
    traffic = volume(a, size) + volume(b, size) + volume(out, size)
    summed = (a | b) - out
    if not summed & a & b:
        return work + traffic, work
    batch = volume(a & b & out, size)
    rows, columns, depth = (volume(s, size) for s in (a - b, b - a, summed & a & b))
    # A product with a thin side is bound by reading its operands.
    thin = min(rows, columns)
    rate = MATMUL * min(1.0, thin / 8) * min(1.0, depth / 8)
    cost = work / max(rate, 1.0) + traffic
    if batch > 1:
        cost += min(batch * BATCH, work)
    return cost, 2 * work


def multiplied(
    arrays: Sequence[Any],
    labels: Sequence[Sequence[int]],
    result: Sequence[int],
    order: Plan,
    known: dict[Any, Any] | None = None,
) -> Any:
    """The product in a given order; ``result`` lists labels that factors have.

    Products of the same two arrays in ``known`` are not computed again, and new ones are added.
    """
    known = {} if known is None else known
    factors = tuple(frozenset(names) for names in labels)

    def run(tree: Any) -> Partial:
        if isinstance(tree, int):
            return Partial(arrays[tree], list(labels[tree]), 1 << tree)
        first, second = run(tree[0]), run(tree[1])
        out = _names(first, second, factors, result)
        key = _key(first, second, out)
        if key not in known:
            array = _einsum([first.array, second.array], [first.labels, second.labels], out)
            # The arrays are kept with their product, so that their ids stay theirs.
            known[key] = array, first.array, second.array
        return Partial(known[key][0], out, first.part | second.part)

    found = run(order.tree)
    if found.labels == list(result):
        return found.array
    return _einsum([found.array], [found.labels], list(result))


def remembered(
    arrays: Sequence[Any],
    labels: Sequence[Sequence[int]],
    result: Sequence[int],
    known: dict[Any, Any],
) -> Trees:
    """The parts of the factors whose products were computed before."""
    factors = tuple(frozenset(names) for names in labels)
    found = {1 << k: (k, Partial(x, list(a), 1 << k)) for k, (x, a) in
             enumerate(zip(arrays, labels))}
    pending = list(found)
    while pending:
        part = pending.pop()
        for other in list(found):
            if part & other or part | other in found:
                continue
            for p, q in ((part, other), (other, part)):
                (tree, first), (more, second) = found[p], found[q]
                out = _names(first, second, factors, result)
                entry = known.get(_key(first, second, out))
                if entry is not None:
                    found[p | q] = (tree, more), Partial(entry[0], out, p | q)
                    pending.append(p | q)
                    break
    return tuple(sorted((part, tree) for part, (tree, _) in found.items() if part & (part - 1)))


class Partial(NamedTuple):
    """A product of some factors, its labels, and which factors, as bits."""

    array: Any
    labels: list[int]
    part: int


def _names(
    first: Partial, second: Partial, factors: Sequence[Labels], result: Sequence[int]
) -> list[int]:
    """The labels of the product of two partial products, in order."""
    a, b = first.labels, second.labels
    keep = _kept(first.part | second.part, factors, frozenset(result))
    out = [n for n in dict.fromkeys([*a, *b]) if n in keep]
    if len(out) < len({*a, *b}):
        return out
    # Nothing is summed: what both have is innermost, and examples and outputs outermost.
    place = {n: k for k, n in enumerate(result)}
    both = [n for n in out if n in a and n in b]
    rest = sorted((n for n in out if n not in both), key=lambda n: place.get(n, len(place)))
    return [*rest, *both]


def _key(first: Partial, second: Partial, out: list[int]) -> tuple:
    """What identifies a product of two arrays."""
    table = {n: k for k, n in enumerate(dict.fromkeys([*first.labels, *second.labels]))}
    pattern = tuple(
        tuple(table[n] for n in names) for names in (first.labels, second.labels, out)
    )
    return id(first.array), id(second.array), pattern


def _einsum(arrays: list[Any], labels: list[list[int]], out: list[int]) -> Any:
    table = {a: k for k, a in enumerate(dict.fromkeys(a for names in labels for a in names))}
    operands: list[Any] = []
    for array, names in zip(arrays, labels):
        operands += [array, [table[a] for a in names]]
    return jnp.einsum(*operands, [table[a] for a in out], precision="highest")
