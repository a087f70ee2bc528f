"""One parameter contracted twice: the step of the recursion that every layer takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from widelimit.errors import UnsupportedPrimitiveError
from widelimit.graph import nodes as n
from widelimit.graph.windows import Window, window_sum
from widelimit.limit.evaluate import ZERO, Evaluation, Pairing, Rule, add, barrier, times
from widelimit.limit.place import eye, place, stretch

Targets = tuple[int, ...]

FEW = 16
"""Features of an input that are summed one after the other."""


def source_pair(
    ev: Evaluation, a: n.Source, ta: Targets, b: n.Source, tb: Targets, rank: int, p: Pairing,
    *, gathered: Rule, tangent: Rule | None,
) -> Any:
    """The second moment or the tangent kernel of two uses of one parameter.

    NNGP: var(W) · n · Σ M(u, v), over positions that are summed and over the taps of a
    convolution. NTK: n · Σ M(u, v) if W is trained, plus var(W) · n · Σ T(u, v). Both want the
    same Σ M(u, v), which is ``gathered``.
    """
    _check_alike(a, b)
    scale = a.scale * b.scale * a.count
    variance = ev.variance(a.draw.leaf)
    moments = lambda: ev.at(gathered, a, ta, b, tb, rank, p)
    if tangent is None:
        result = times(moments(), variance * scale)
    else:
        sums = gather(tangent, ev, a, ta, b, tb, rank, p, known=False)
        result = times(sums, variance * scale)
        if ev.trainable[a.draw.leaf]:
            result = add(result, times(moments(), scale))
    if result is ZERO:
        return ZERO
    if tangent is not None and not rank:
        # Or the sum over all layers is one loop at the end, which reads what each layer kept.
        result = barrier(result)
    for x, y in zip(a.separate, b.separate):
        first, second = ta[a.kept.index(x)], tb[b.kept.index(y)]
        if first != second:
            size = a.shape[a.kept.index(x)]
            result = times(result, eye(size, first, second, rank, ev.batch(p), ev.dtype))
    return result


def gather(
    kind: Rule, ev: Evaluation, a: n.Source, ta: Targets, b: n.Source, tb: Targets, rank: int,
    p: Pairing, *, known: bool,
) -> Any:
    """Σ of the operands' moments or tangents over positions and taps; ``known`` inputs count."""
    labels = _Labels(a, ta, b, tb, rank)
    total = _summed(ev, kind, a, b, labels, p, known=known)
    return total if total is ZERO else _over_taps(total, labels, ev.batch(p))


def overlap_pair(
    kind: Rule, ev: Evaluation, a: n.Overlap, ta: Targets, b: n.Overlap, tb: Targets, rank: int,
    p: Pairing,
) -> Any:
    """Σ_d E[a_d b_d], or the sum of tangents: all channels alike, different ones uncorrelated."""
    inner = ev.at(kind, a.operand, ta, b.operand, tb, rank, p)
    if inner is not ZERO and a.count != b.count:
        raise UnsupportedPrimitiveError(
            "sums over different channels of one field meet",
            why="their covariance depends on which channels they have in common.",
            remedy="sum over the same channels in both places.",
            where=a.where,
        )
    return times(inner, float(a.count))


def _check_alike(a: n.Source, b: n.Source) -> None:
    summed_a = [a.operand.shape[k] for k in a.summed]
    summed_b = [b.operand.shape[k] for k in b.summed]
    taps_a, taps_b = ([w.size for _, w in x.windows] for x in (a, b))
    alike = a.count == b.count and summed_a == summed_b and taps_a == taps_b
    if not alike or len(a.separate) != len(b.separate) or type(a) is not type(b):
        raise UnsupportedPrimitiveError(
            "one parameter acts on a wide axis here and on a list of features there",
            why="the covariance of the two uses mixes a mean over width with a finite sum.",
            remedy="give each use its own parameter.",
            where=a.where,
        )


@dataclass(frozen=True)
class _Walk:
    """One window on both sides: the labels that it walks over, and those it ends at."""

    windows: tuple[Window, ...]
    sizes: tuple[int, ...]
    inside: tuple[int, ...]
    outside: tuple[int, ...]


class _Labels:
    """The labels of the operands' axes, numbered after the ``rank`` labels of the result.

    Axes under a window come first, those of the left side before those of the right, so that a
    layer seldom has to transpose; the summed axes come last.
    """

    def __init__(self, a: n.Source, ta: Targets, b: n.Source, tb: Targets, rank: int) -> None:
        self.rank = rank
        left, right = self._walked(a, ta), self._walked(b, tb)
        tied = [x == y for x, y in zip(left, right, strict=True)]
        first = range(rank, rank + len(left))
        free = iter(range(rank + len(left), rank + 2 * len(left)))
        second = [f if t else next(free) for f, t in zip(first, tied)]
        self.walks = [
            _Walk((w1,), (s1,), (i,), (o1,)) if t
            else _Walk((w1, w2), (s1, s2), (i, j), (o1, o2))
            for (w1, s1, o1), (w2, s2, o2), i, j, t in zip(left, right, first, second, tied)
        ]
        self.walked = len({*first, *second})
        start = rank + self.walked
        self.summed = tuple(range(start, start + len(a.summed)))
        self.a = self._inner(a, ta, list(first))
        self.b = self._inner(b, tb, second)

    @property
    def total(self) -> int:
        """All labels."""
        return self.rank + self.walked + len(self.summed)

    @staticmethod
    def _walked(node: n.Source, t: Targets) -> list[tuple[Window, int, int]]:
        return [(w, node.operand.shape[k], t[node.kept.index(k)]) for k, w in node.windows]

    def _inner(self, node: n.Source, t: Targets, walked: list[int]) -> Targets:
        out = [0] * len(node.operand.shape)
        for i, k in enumerate(node.kept):
            out[k] = t[i]
        for label, k in zip(self.summed, node.summed):
            out[k] = label
        for label, (k, _) in zip(walked, node.windows):
            out[k] = label
        return tuple(out)


def _summed(
    ev: Evaluation, kind: Rule, a: n.Source, b: n.Source, labels: _Labels, p: Pairing, *,
    known: bool,
) -> Any:
    """The operands' moment or tangent, summed over positions but not over taps."""
    if isinstance(a.operand, n.Value) and isinstance(b.operand, n.Value):
        return _gram(ev, a, b, labels, p) if known else ZERO
    out = ev.at(kind, a.operand, labels.a, b.operand, labels.b, labels.total, p)
    if out is ZERO or not labels.summed:
        return out
    batch = ev.batch(p)
    for label, k in zip(labels.summed, a.summed):
        out = stretch(out, batch + label, a.operand.shape[k])
    return jnp.sum(barrier(out), axis=tuple(batch + x for x in labels.summed))


def _gram(ev: Evaluation, a: n.Source, b: n.Source, labels: _Labels, p: Pairing) -> Any:
    """Σ over the summed axes of known inputs: one contraction, no product of all axes."""
    assert isinstance(a.operand, n.Value)
    assert isinstance(b.operand, n.Value)
    rank = labels.rank + labels.walked
    if isinstance(a.operand, n.OneHot) and isinstance(b.operand, n.OneHot):
        last = labels.summed == labels.a[-1:] == labels.b[-1:]
        if last and a.operand.shape[-1] == b.operand.shape[-1]:
            return _same_row(ev, a.operand, labels.a[:-1], b.operand, labels.b[:-1], rank, p)
    left = ev.value(a.operand, ev.side_of(0, p))
    right = ev.value(b.operand, ev.side_of(1, p))
    if rank == 0 and p == "cross" and not ev.careful:
        flat_left, flat_right = (v.reshape(v.shape[0], -1) for v in (left, right))
        ev.close.append((flat_left, flat_right))
    kept = sorted(x for x in {*labels.a, *labels.b} if x < rank)
    terms = math.prod(a.operand.shape[labels.a.index(x)] for x in labels.summed)
    if set(kept) <= set(labels.a) & set(labels.b) and kept and terms <= FEW:
        return _term_by_term(ev, left, labels.a, right, labels.b, kept, rank, p)
    # Letters of the contraction: 0 and 1 are examples, the labels follow.
    examples = (0, 1) if p == "cross" else (0, 0)
    # The right operand first: einsum takes the last one as the rows of its matrix product.
    result = jnp.einsum(
        right, [examples[1], *(x + 2 for x in labels.b)],
        left, [examples[0], *(x + 2 for x in labels.a)],
        [*dict.fromkeys(examples), *(x + 2 for x in kept)],
    )
    # Kept apart, or its transposition is carried out anew for every use.
    return place(barrier(result) if rank else result, ev.batch(p), kept, rank)


def _term_by_term(
    ev: Evaluation, left: Any, a: Targets, right: Any, b: Targets, kept: list[int], rank: int,
    p: Pairing,
) -> Any:
    """Σ over a few features of inputs at the same positions.

    As a matrix product for each position it would come out with the positions in front.
    """

    def features(array: Any, labels: Targets) -> Any:
        summed = [k for k, x in enumerate(labels) if x not in kept]
        order = [*(labels.index(x) for x in kept), *sorted(summed, key=lambda k: labels[k])]
        array = jnp.transpose(array, (0, *(1 + k for k in order)))
        return array.reshape(*array.shape[: 1 + len(kept)], -1)

    left, right = features(left, a), features(right, b)
    if p == "cross":
        left, right = left[:, None], right[None]
    total = sum(left[..., k] * right[..., k] for k in range(left.shape[-1]))
    return place(barrier(total), ev.batch(p), kept, rank)


def _same_row(
    ev: Evaluation, a: n.OneHot, ta: Targets, b: n.OneHot, tb: Targets, rank: int, p: Pairing
) -> Any:
    """Σ over the rows of a table, of which each side looks up one: whether it is the same."""
    i = ev.value_at(a.index, ta, rank, 0, p)
    j = ev.value_at(b.index, tb, rank, 1, p)
    inside = (i >= 0) & (i < a.shape[-1]) & (j >= 0) & (j < b.shape[-1])
    return jnp.where(inside, (i == j).astype(ev.dtype), jnp.nan)


def _over_taps(array: Any, labels: _Labels, batch: int) -> Any:
    """Sum over the taps, one spatial axis after the other, and name the results' axes."""
    if not labels.walks:
        return array
    for walk in labels.walks:
        axes = tuple(batch + x for x in walk.inside)
        for axis, size in zip(axes, walk.sizes):
            array = stretch(array, axis, size)
        # Fused with each other, the sums over one axis would be computed for each of the next.
        array = barrier(window_sum(array, axes, walk.windows))
    new = {i: o for walk in labels.walks for i, o in zip(walk.inside, walk.outside)}
    return place(array, batch, [new.get(k, k) for k in range(array.ndim - batch)], labels.rank)
