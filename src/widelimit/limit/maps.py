"""Linear maps over positions, carried out on the moments of their operands."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.graph import nodes as n
from widelimit.limit.evaluate import ZERO, Evaluation, Pairing, Rule
from widelimit.limit.place import diagonal, stretch

Targets = tuple[int, ...]


def mapped(
    kind: Rule, ev: Evaluation, a: n.Field, ta: Targets, b: n.Field, tb: Targets, rank: int,
    p: Pairing,
) -> Any:
    """A moment or tangent where one side is a map, or both are."""
    in_place = _along(kind, ev, a, ta, b, tb, rank, p)
    if in_place is not NotImplemented:
        return in_place
    if isinstance(a, n.Map) and isinstance(b, n.Map) and _same_selection(a, ta, b, tb):
        n_in = len(a.acted)
        fresh = tuple(range(rank, rank + n_in))
        inner = ev.at(
            kind, a.operand, _operand_targets(a, ta, fresh),
            b.operand, _operand_targets(b, tb, fresh), rank + n_in, p,
        )
        return _apply(ev, a, inner, fresh, ta[len(a.untouched) :], 0, p)
    if isinstance(a, n.Map):
        node, t, operand = a, ta, 0
    else:
        assert isinstance(b, n.Map)
        node, t, operand = b, tb, 1
    other = tb if operand == 0 else ta
    out = t[len(node.untouched) :]
    fresh = tuple(range(rank, rank + len(node.acted)))
    inner_targets = _operand_targets(node, t, fresh)
    if operand == 0:
        # Axes of b tied to an output of the map stay free until the map has acted.
        tied = [k for k, x in enumerate(other) if x in out]
        loose = {k: rank + len(fresh) + i for i, k in enumerate(tied)}
        free_tb = tuple(loose.get(k, x) for k, x in enumerate(other))
        total = rank + len(fresh) + len(tied)
        inner = ev.at(kind, node.operand, inner_targets, b, free_tb, total, p)
        pairs = [(loose[k], other[k]) for k in tied]
    else:
        tied = [k for k, x in enumerate(other) if x in out]
        loose = {k: rank + len(fresh) + i for i, k in enumerate(tied)}
        free_ta = tuple(loose.get(k, x) for k, x in enumerate(other))
        total = rank + len(fresh) + len(tied)
        inner = ev.at(kind, a, free_ta, node.operand, inner_targets, total, p)
        pairs = [(loose[k], other[k]) for k in tied]
    if inner is ZERO:
        return ZERO
    batch = ev.batch(p)
    mapped = _apply(ev, node, inner, fresh, out, operand, p)
    for extra, target in sorted(pairs, reverse=True):
        i, j = batch + target, batch + extra - len(fresh)
        mapped = diagonal(mapped, i, j)
    return mapped


def _along(
    kind: Rule, ev: Evaluation, a: n.Field, ta: Targets, b: n.Field, tb: Targets, rank: int,
    p: Pairing,
) -> Any:
    """A map of one axis to one axis, carried out on that axis of the operand's moment."""
    together = isinstance(a, n.Map) and isinstance(b, n.Map) and _same_selection(a, ta, b, tb)
    left, right = (a, ta), (b, tb)
    if isinstance(a, n.Map) and _has_own_label(a, ta, () if together else tb):
        node, label, left = a, ta[-1], (a.operand, _in_place(a, ta))
        if together:
            assert isinstance(b, n.Map)
            right = (b.operand, _in_place(b, tb))
    elif isinstance(b, n.Map) and not together and _has_own_label(b, tb, ta):
        node, label, right = b, tb[-1], (b.operand, _in_place(b, tb))
    else:
        return NotImplemented
    inner = ev.at(kind, *left, *right, rank, p)
    if inner is ZERO:
        return ZERO
    axis = ev.batch(p) + label
    assert node.along is not None
    return node.along(stretch(inner, axis, node.operand.shape[node.acted[0]]), axis)


def _has_own_label(node: n.Map, t: Targets, other: Targets) -> bool:
    one = node.along is not None and node.n_out == 1 and not node.values
    return one and t.count(t[-1]) == 1 and t[-1] not in other


def _in_place(node: n.Map, t: Targets) -> Targets:
    """The operand's labels, its moved axis under the label of the axis that it becomes."""
    return _operand_targets(node, t, t[-1:])


def _operand_targets(node: n.Map, t: Targets, fresh: Targets) -> Targets:
    inner = [0] * len(node.operand.shape)
    for i, k in enumerate(node.untouched):
        inner[k] = t[i]
    for i, k in enumerate(node.acted):
        inner[k] = fresh[i]
    return tuple(inner)


def _same_selection(a: n.Map, ta: Targets, b: n.Map, tb: Targets) -> bool:
    same = a.function is b.function and a.acted == b.acted and a.values == b.values
    return a.selects and same and ta[len(a.untouched) :] == tb[len(b.untouched) :]


def _apply(
    ev: Evaluation, node: n.Map, inner: Any, fresh: Targets, out: Targets, operand: int,
    p: Pairing,
) -> Any:
    """Apply a map to the ``fresh`` axes of a moment and put its results at ``out``."""
    if inner is ZERO:
        return ZERO
    batch = ev.batch(p)
    for i, k in zip(fresh, node.acted):
        inner = stretch(inner, batch + i, node.operand.shape[k])
    # Output labels are new in `inner`, hence of size one there: drop them.
    inner = jnp.squeeze(inner, tuple(batch + x for x in out)) if out else inner
    left = [x for x in range(inner.ndim + len(out)) if x - batch not in out]
    acted = [left.index(batch + x) for x in fresh]
    rest = [k for k in range(inner.ndim) if k not in acted and k >= batch]
    kept = [left[k] - batch for k in rest]
    if node.matrix is not None:
        result, labels = _multiplied(ev, node, inner, acted, rest, (kept, list(out)), operand, p)
        if result is not None:
            return _in_order(result, batch, labels)
    moved = jnp.transpose(inner, (*range(batch), *rest, *acted))
    values = [ev.into(ev.value(v, ev.side_of(operand, p)), operand, p) for v in node.values]
    call: Any = node.function
    for _ in rest:
        call = jax.vmap(call, in_axes=(0, *(None for _ in values)))
    shape = [
        max([moved.shape[k], *(v.shape[k] for v in values)]) for k in range(batch)
    ]
    for level in reversed(range(batch)):
        axes = [None if v.shape[level] == 1 and shape[level] != 1 else 0 for v in values]
        call = jax.vmap(call, in_axes=(0, *axes))
    moved = jnp.broadcast_to(moved, (*shape, *moved.shape[batch:]))
    values = _squeeze_unused(values, shape, batch)
    return _in_order(call(moved, *values), batch, [*kept, *out])


def _in_order(array: Any, batch: int, labels: list[int]) -> Any:
    """The axes after the batch axes, sorted by their labels."""
    order = sorted(range(len(labels)), key=lambda k: labels[k])
    return jnp.transpose(array, (*range(batch), *(batch + k for k in order)))


def _multiplied(
    ev: Evaluation, node: n.Map, inner: Any, acted: list[int], rest: list[int],
    labels: tuple[list[int], list[int]], operand: int, p: Pairing,
) -> tuple[Any, list[int]]:
    """A product with one side's matrices, a product for each pair: nothing is transposed.

    The labels of the result's axes come with it. None where matrices for each pair would be
    larger than the moment, or are the same for all examples.
    """
    batch, (kept, out) = ev.batch(p), labels
    assert node.matrix is not None
    matrices = jax.vmap(node.matrix)(ev.value(node.values[0], ev.side_of(operand, p)))
    if matrices.shape[0] == 1 or matrices.shape[1] != 1:
        return None, []
    matrices = ev.into(matrices[:, 0], operand, p)
    rows, columns = matrices.shape[-2:]
    size = lambda axes: [inner.shape[k] for k in axes]
    others = math.prod(size(rest))
    if not rest or others < min(rows, columns):
        return None, []
    lead = np.broadcast_shapes(inner.shape[:batch], matrices.shape[:batch])
    matrices = jnp.broadcast_to(matrices, (*lead, rows, columns))
    front = max(acted) < min(rest)
    order = (*acted, *rest) if front else (*rest, *acted)
    moved = jnp.transpose(inner, (*range(batch), *order))
    two = (columns, others) if front else (others, columns)
    moved = jnp.broadcast_to(moved, (*lead, *moved.shape[batch:])).reshape(*lead, *two)
    sizes = node.shape[len(node.shape) - node.n_out :]
    if front:
        result = jnp.matmul(matrices, moved)
        return result.reshape(*lead, *sizes, *size(rest)), [*out, *kept]
    result = jnp.matmul(moved, jnp.swapaxes(matrices, -1, -2))
    return result.reshape(*lead, *size(rest), *sizes), [*kept, *out]


def _squeeze_unused(values: list[Any], shape: list[int], batch: int) -> list[Any]:
    out = []
    for v in values:
        drop = tuple(k for k in range(batch) if v.shape[k] == 1 and shape[k] != 1)
        out.append(jnp.squeeze(v, drop))
    return out
