"""The cheapest order in which to multiply the arrays of a tensor network, two at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

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


@lru_cache(maxsize=4096)
def plan(
    factors: tuple[Labels, ...], result: Labels, sizes: tuple[tuple[int, int], ...], limit: float
) -> Plan:
    """The cheapest order, by dynamic programming over subsets of the factors.

    Intermediate results beyond ``limit`` entries are avoided where that is possible.
    """
    size = dict(sizes)
    everything = (1 << len(factors)) - 1
    best: dict[int, Plan] = {1 << k: Plan(k, 0.0, 0.0, 0.0) for k in range(len(factors))}
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
    place = {n: k for k, n in enumerate(result)}

    def leaf(k: int) -> tuple[Any, list[int], int]:
        return arrays[k], list(labels[k]), 1 << k

    def run(tree: Any) -> tuple[Any, list[int], int]:
        if isinstance(tree, int):
            return leaf(tree)
        (x, a, p), (y, b, q) = run(tree[0]), run(tree[1])
        part = p | q
        keep = _kept(part, factors, frozenset(result))
        out = [n for n in dict.fromkeys([*a, *b]) if n in keep]
        if len(out) == len({*a, *b}):
            # Nothing is summed: what both have is innermost, and examples and outputs outermost.
            both = [n for n in out if n in a and n in b]
            rest = sorted((n for n in out if n not in both), key=lambda n: place.get(n, len(place)))
            out = [*rest, *both]
        return _product(x, y, a, b, out, known), out, part

    array, names, _ = run(order.tree)
    return array if names == list(result) else _einsum([array], [names], list(result))


def _product(
    x: Any, y: Any, a: list[int], b: list[int], out: list[int], known: dict[Any, Any]
) -> Any:
    table = {n: k for k, n in enumerate(dict.fromkeys([*a, *b]))}
    pattern = tuple(tuple(table[n] for n in names) for names in (a, b, out))
    key = (id(x), id(y), pattern)
    if key not in known:
        # The arrays are kept with their product, so that their ids stay theirs.
        known[key] = _einsum([x, y], [a, b], out), x, y
    return known[key][0]


def _einsum(arrays: list[Any], labels: list[list[int]], out: list[int]) -> Any:
    table = {a: k for k, a in enumerate(dict.fromkeys(a for names in labels for a in names))}
    operands: list[Any] = []
    for array, names in zip(arrays, labels):
        operands += [array, [table[a] for a in names]]
    return jnp.einsum(*operands, [table[a] for a in out], precision="highest")
