"""Cotangents of parameters as tensor networks: products of small arrays over named indices.

The cotangent that ``y = x W`` sends to W is the outer product of x and of the cotangent c of y.
It is kept as the pair (x, c): a :class:`Term`, whose entry at the indices ``out`` is

    sum over all other indices of  prod_k factor_k[indices_k]

Every index has a label. *Seeds* are the labels that say which output is differentiated. Reshapes
cost nothing, since ``out`` is the row-major order of the variable's entries and an index can be
split; the sum of several uses of a weight is a list of terms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Label = int
_labels = itertools.count(1)


def fresh() -> Label:
    """A label that is used nowhere else."""
    return next(_labels)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OneHot:
    """A factor that is 1 where its last index equals ``indices``; the rest of it is never stored.

    An index outside of [0, size) selects nothing.
    """

    indices: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape without the last axis."""
        return self.indices.shape


@dataclass(frozen=True)
class Term:
    """A product of factors with labelled axes.

    Attributes
    ----------
    factors
        Arrays, or :class:`OneHot`.
    labels
        The labels of each factor's axes; those of a ``OneHot`` include the selected one, last.
    out
        Labels whose row-major order is that of the variable's entries; indices of size one have
        none. A seed in ``out`` means: one where the entry's index equals the seed's, else zero.
        A label that no factor has means that all entries along it are equal.
    sizes
        The size of each label.
    late
        Whether each factor depends on the example.
    """

    factors: tuple[Any, ...]
    labels: tuple[tuple[Label, ...], ...]
    out: tuple[Label, ...]
    sizes: dict[Label, int]
    late: tuple[bool, ...]

    def with_factor(self, array: Any, labels: Sequence[Label], late: bool) -> Term:
        """The product with one more factor; axes of size one are dropped."""
        if not isinstance(array, OneHot):
            keep = [k for k, s in enumerate(array.shape) if s != 1]
            sizes = {labels[k]: array.shape[k] for k in keep}
            array = array.reshape([array.shape[k] for k in keep])
            labels = [labels[k] for k in keep]
        else:
            sizes = dict(zip(labels, array.shape))
        return replace(
            self,
            factors=(*self.factors, array),
            labels=(*self.labels, tuple(labels)),
            sizes={**self.sizes, **sizes},
            late=(*self.late, late),
        )

    def map_factors(self, change: Callable[[Any], Any]) -> Term:
        """The same structure with every array changed."""
        return replace(self, factors=tuple(jax.tree.map(change, f) for f in self.factors))

    def holders(self, label: Label) -> list[int]:
        """The factors that have a label."""
        return [k for k, names in enumerate(self.labels) if label in names]

    @property
    def plain(self) -> bool:
        """Whether it is at most one array."""
        return len(self.factors) <= 1 and not any(isinstance(f, OneHot) for f in self.factors)


@dataclass(frozen=True)
class Seeds:
    """The output that is differentiated: a label and a size for each of its axes."""

    labels: tuple[Label, ...]
    sizes: tuple[int, ...]
    dtype: Any

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: Any) -> Seeds:
        """Seeds for an output of this shape."""
        return cls(tuple(fresh() for _ in shape), tuple(shape), dtype)

    @property
    def count(self) -> int:
        """The number of outputs."""
        return math.prod(self.sizes)

    def identity(self) -> Term:
        """The cotangent of the output itself."""
        sizes = dict(zip(self.labels, self.sizes))
        out = tuple(a for a in self.labels if sizes[a] != 1)
        return Term((), (), out, sizes, ())

    def spread(self, array: Any, shape: tuple[int, ...], late: bool) -> Term:
        """An array of shape (*seeds, *shape) as a term."""
        inner = tuple(fresh() for _ in shape)
        sizes = {**dict(zip(self.labels, self.sizes)), **dict(zip(inner, shape))}
        empty = Term((), (), tuple(a for a in inner if sizes[a] != 1), sizes, ())
        return empty.with_factor(array, (*self.labels, *inner), late)


def scaled(term: Term, factor: Any, *, late: bool) -> Term:
    """A term times a scalar, which goes into its smallest array, of those of the example if any."""
    arrays = [k for k, f in enumerate(term.factors) if not isinstance(f, OneHot)]
    good = [k for k in arrays if term.late[k]] or ([] if late else arrays)
    if not good:
        return term.with_factor(jnp.asarray(factor), (), late)
    k = min(good, key=lambda k: term.factors[k].size)
    return changed(term, k, term.factors[k] * factor)


def changed(term: Term, k: int, array: Any, labels: tuple[Label, ...] | None = None) -> Term:
    """A term with another array in place of a factor."""
    factors, names = list(term.factors), list(term.labels)
    factors[k] = array
    names[k] = names[k] if labels is None else labels
    return replace(term, factors=tuple(factors), labels=tuple(names))


def materialised(term: Term, k: int, dtype: Any) -> Term:
    """A one-hot factor as an array."""
    size = term.sizes[term.labels[k][-1]]
    return changed(term, k, jax.nn.one_hot(term.factors[k].indices, size, dtype=dtype))


def explicit(term: Term, seed: Label, dtype: Any) -> Term:
    """A seed among the indices of the variable, as an identity matrix between the two."""
    inner = fresh()
    out = tuple(inner if a == seed else a for a in term.out)
    eye = jnp.eye(term.sizes[seed], dtype=dtype)
    return replace(term, out=out).with_factor(eye, (seed, inner), False)


def simplified(term: Term) -> Term:
    """Factors whose indices another one has as well are multiplied into it."""
    k = 0
    while k < len(term.factors):
        into = next((j for j in range(len(term.factors)) if j != k and _fits(term, k, j)), None)
        if into is None:
            k += 1
            continue
        target = term.labels[into]
        array = term.factors[into] * aligned(term.factors[k], term.labels[k], target)
        rest = [j for j in range(len(term.factors)) if j != k]
        term = replace(
            changed(term, into, array),
            labels=tuple(term.labels[j] for j in rest),
            late=tuple(term.late[j] for j in rest),
            factors=tuple(array if j == into else term.factors[j] for j in rest),
        )
        k = 0
    return term


def _fits(term: Term, k: int, j: int) -> bool:
    if isinstance(term.factors[k], OneHot) or isinstance(term.factors[j], OneHot):
        return False
    return set(term.labels[k]) <= set(term.labels[j]) and (term.late[j] or not term.late[k])


def aligned(array: Any, labels: Sequence[Label], target: Sequence[Label]) -> Any:
    """An array with its axes in the order of ``target``, and axes of size one for the rest."""
    order = [labels.index(a) for a in target if a in labels]
    array = jnp.transpose(array, order)
    return jnp.expand_dims(array, [k for k, a in enumerate(target) if a not in labels])


# --------------------------------------------------------------------------- indices


class MisalignedError(Exception):
    """The indices of a term cannot be split as asked for."""


def refined(term: Term, shape: Sequence[int]) -> tuple[Term, list[tuple[Label, ...]]]:
    """A term, and for each axis of ``shape`` the labels that it consists of.

    Labels that reach over the border between two axes are split.
    """
    labels, groups = list(term.out), []
    for size in shape:
        group: list[Label] = []
        have = 1
        while have < size:
            if not labels:
                raise MisalignedError
            here = term.sizes[labels[0]]
            need = size // have
            if size % have or (here > need and here % need) or (here < need and need % here):
                raise MisalignedError
            if here > need:
                term, pieces = _split(term, labels[0], (need, here // need))
                labels[:1] = pieces
                here = need
            group.append(labels.pop(0))
            have *= here
        groups.append(tuple(group))
    if labels:
        raise MisalignedError
    return term, groups


def _split(term: Term, label: Label, sizes: tuple[int, int]) -> tuple[Term, list[Label]]:
    """One index of a variable as two."""
    pieces = [fresh(), fresh()]
    factors, names = list(term.factors), list(term.labels)
    for k in term.holders(label):
        if isinstance(factors[k], OneHot):
            raise MisalignedError
        at = names[k].index(label)
        old = factors[k].shape
        factors[k] = factors[k].reshape(*old[:at], *sizes, *old[at + 1 :])
        names[k] = (*names[k][:at], *pieces, *names[k][at + 1 :])
    at = term.out.index(label)
    out = (*term.out[:at], *pieces, *term.out[at + 1 :])
    known = {**term.sizes, **dict(zip(pieces, sizes))}
    return replace(term, factors=tuple(factors), labels=tuple(names), out=out, sizes=known), pieces


def axes(term: Term, shape: Sequence[int], seeds: Seeds) -> tuple[Term, list[tuple[Label, ...]]]:
    """As :func:`refined`; a term whose indices do not allow it is made dense first."""
    try:
        return refined(*_without_split_seeds(term, shape, seeds))
    except MisalignedError:
        array = dense(term, math.prod(shape), seeds)
        array = array.reshape(*seeds.sizes, *shape)
        return refined(seeds.spread(array, tuple(shape), any(term.late)), shape)


def _without_split_seeds(term: Term, shape: Sequence[int], seeds: Seeds) -> tuple[Term, Any]:
    """Seeds stay whole: one that would be split becomes an identity matrix."""
    borders = set(np.cumprod([s for s in shape if s != 1]).tolist())
    at = 1
    for label in term.out:
        begin, at = at, at * term.sizes[label]
        if label in seeds.labels and any(begin < b < at for b in borders):
            term = explicit(term, label, seeds.dtype)
    return term, shape


# --------------------------------------------------------------------------- arrays


def dense(term: Term, size: int, seeds: Seeds, front: tuple[Label, ...] = ()) -> Any:
    """All entries of a term, shape (*front, *seeds, size); ``front`` are labels to be kept."""
    for seed in set(term.out) & set(seeds.labels):
        term = explicit(term, seed, seeds.dtype)
    for k, f in enumerate(term.factors):
        if isinstance(f, OneHot):
            term = materialised(term, k, seeds.dtype)
    target = (*front, *seeds.labels, *term.out)
    have = {a for names in term.labels for a in names}
    present = [a for a in target if a in have]
    if term.factors:
        operands: list[Any] = []
        letters = {a: k for k, a in enumerate(sorted(have))}
        for f, names in zip(term.factors, term.labels):
            operands += [f, [letters[a] for a in names]]
        array = jnp.einsum(
            *operands, [letters[a] for a in present], optimize="optimal", precision="highest"
        )
    else:
        array = jnp.ones((), seeds.dtype)
    array = jnp.expand_dims(array, [k for k, a in enumerate(target) if a not in have])
    array = jnp.broadcast_to(array, [term.sizes[a] for a in target])
    return array.reshape(*(term.sizes[a] for a in front), *seeds.sizes, size)


def summed(terms: Sequence[Term], shape: tuple[int, ...], seeds: Seeds) -> Any:
    """The sum of terms as an array of shape (*seeds, *shape)."""
    size = math.prod(shape)
    total = dense(terms[0], size, seeds)
    for term in terms[1:]:
        total = total + dense(term, size, seeds)
    return total.reshape(*seeds.sizes, *shape)


# --------------------------------------------------------------------------- like terms


def collected(terms: Sequence[Term], seeds: Seeds) -> list[Term]:
    """Terms of one structure as one term.

    Where only one factor differs, those are added; otherwise they are stacked along a new index
    that is summed over, as the uses of a weight at several positions are.
    """
    groups: dict[Any, list[Term]] = {}
    for term in terms:
        named = _canonical(term, seeds)
        groups.setdefault(_signature(named), []).append(named)
    return [_joined(group) for group in groups.values()]


def _canonical(term: Term, seeds: Seeds) -> Term:
    """Labels by order of appearance, negative, so that they match between like terms."""
    order = list(dict.fromkeys([*term.out, *(a for names in term.labels for a in names)]))
    table = {a: a if a in seeds.labels else -1 - k for k, a in enumerate(order)}
    return relabelled(term, table)


def relabelled(term: Term, table: dict[Label, Label]) -> Term:
    """A term with other labels."""
    rename = lambda names: tuple(table.get(a, a) for a in names)
    sizes = {table.get(a, a): s for a, s in term.sizes.items()}
    return replace(
        term, labels=tuple(map(rename, term.labels)), out=rename(term.out), sizes=sizes
    )


def _signature(term: Term) -> Any:
    used = {a for names in term.labels for a in names} | set(term.out)
    kinds = tuple((isinstance(f, OneHot), late) for f, late in zip(term.factors, term.late))
    return term.labels, term.out, kinds, tuple(sorted((a, term.sizes[a]) for a in used))


def _joined(group: list[Term]) -> Term:
    first = group[0]
    if len(group) == 1:
        return _unique(first)
    count = len(first.factors)
    same = lambda k: all(_content(t.factors[k]) is _content(first.factors[k]) for t in group)
    differ = [k for k in range(count) if not same(k)]
    if not differ:
        return _unique(scaled(first, float(len(group)), late=False))
    if len(differ) == 1 and not isinstance(first.factors[differ[0]], OneHot):
        k = differ[0]
        return _unique(changed(first, k, sum(t.factors[k] for t in group[1:]) + first.factors[k]))
    use = fresh()
    term = replace(first, sizes={**first.sizes, use: len(group)})
    for k in differ:
        stacked = jax.tree.map(lambda *f: jnp.stack(f), *(t.factors[k] for t in group))
        term = changed(term, k, stacked, (use, *first.labels[k]))
    return _unique(term)


def _content(factor: Any) -> Any:
    return factor.indices if isinstance(factor, OneHot) else factor


def _unique(term: Term) -> Term:
    return relabelled(term, {a: fresh() for a in term.sizes if a < 0})
