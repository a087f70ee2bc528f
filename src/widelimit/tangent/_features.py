"""Derivatives of a batch of examples as products, and the kernel of two batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, jaxpr_as_fun

from widelimit.tangent._axes import Axes
from widelimit.tangent._contract import Side, inner_product, widened
from widelimit.tangent._problem import Arrays
from widelimit.tangent._rules import backwards
from widelimit.tangent._terms import OneHot, Seeds, Term, collected, fresh, scaled
from widelimit.tangent._vectors import Function
from widelimit.tangent._walk import Value


@dataclass
class Products:
    """The derivative of every parameter for every output, as sums of products.

    ``of`` gives the arrays of a batch, ``kernel`` what two batches make of them. The structure of
    the products does not depend on the number of examples.

    Attributes
    ----------
    function, axes
        The network's output, and the treatment of its axes.
    dense
        Whether each derivative is one array: the Jacobian.
    structure
        The terms without their arrays: of each parameter with the outputs as seeds, of each
        parameter with the entries of a narrow value as seeds, and of that value.
    inner
        The entries of the narrow value.
    """

    function: Function
    axes: Axes
    dtype: Any
    dense: bool = False
    structure: list[list[Term]] = field(default_factory=list)
    side: Side | None = None
    inner: Seeds | None = None

    def of(self, arrays: Arrays, x: Any) -> list[list[list[Any]]]:
        """The factors of a batch, by parameter and product."""
        one = self._jacobian if self.dense else self._walked
        found: list[list[Term]] = []

        def flat(x: Any) -> list[Any]:
            found[:] = one(arrays, x)
            return jax.tree.leaves([[list(t.factors) for t in terms] for terms in found])

        leaves, tree = jax.tree.flatten(x)
        example = [jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in leaves]
        closed = jax.make_jaxpr(lambda *a: flat(jax.tree.unflatten(tree, a)))(*example)
        late = _dependence(closed.jaxpr)
        flags, values = iter(late), iter(_batched(closed, late, leaves))
        side = self.side or Side(self._seeds, fresh(), 1)
        structure, out = [], []
        for terms in found:
            named, arrays_of = [], []
            for t in terms:
                own = tuple(next(flags) for _ in t.factors)
                labels = tuple((side.label, *n) if f else n for f, n in zip(own, t.labels))
                named.append(replace(t, factors=(), labels=labels, late=own))
                arrays_of.append([
                    OneHot(next(values)) if isinstance(f, OneHot) else next(values)
                    for f in t.factors
                ])
            structure.append(named)
            out.append(arrays_of)
        self.structure, self.side = structure, side
        return out

    def both(self, arrays: Arrays, x1: Any, x2: Any) -> tuple[Any, Any]:
        """The factors of two batches, in one pass, so that weights are read once."""
        n1 = jax.tree.leaves(x1)[0].shape[0]
        joined = self.of(arrays, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), x1, x2))

        def part(rows: slice) -> list[list[list[Any]]]:
            cuts: dict[int, Any] = {}

            def cut(f: Any, late: bool) -> Any:
                # What was one array stays one, so that its products are recognised.
                if late and id(f) not in cuts:
                    cuts[id(f)] = jax.tree.map(lambda a: a[rows], f)
                return cuts[id(f)] if late else f

            return [
                [[cut(f, late) for f, late in zip(factors, t.late)] for t, factors in zip(ts, fs)]
                for ts, fs in zip(self.structure, joined)
            ]

        return part(slice(None, n1)), part(slice(n1, None))

    def kernel(
        self, weights: Sequence[Any], left: Any, right: Any, counts: tuple[int, int],
        limit: float, *, apart: bool,
    ) -> list[Any]:
        """The kernel, shape (n1, n2, *axes.result), or the parts of the parameters."""
        assert self.side is not None
        a, b = replace(self.side, count=counts[0]), replace(self.side.twin(), count=counts[1])
        many = len(weights)
        known: dict[Any, Any] = {}
        pair = lambda k, a, b, axes: self._pair(weights, left, right, k, (a, b), axes, limit, known)
        # Biases first: a weight's kernel is that of its bias, times the products of what it sees.
        order = sorted(range(many), key=lambda k: sum(len(t.labels) for t in self.structure[k]))
        found = {k: pair(k, a, b, self.axes) for k in order}
        parts = [found[k] for k in range(many)]
        if any(self.structure[many:]):
            assert self.inner is not None
            x = replace(a, seeds=self.inner)
            y = replace(x.twin(), label=b.label, count=b.count)
            narrow = Axes.of(self.inner.sizes, (), ())
            inner = [pair(many + k, x, y, narrow) for k in range(many)]
            outer = self._terms(2 * many, left, a.count), self._terms(2 * many, right, b.count)
            wide = lambda k: widened(k, (x, y), (a, b), outer, self.axes).value(limit, {})
            if apart:
                parts = [p if i is None else wide(i) for p, i in zip(parts, inner)]
            else:
                parts.append(wide(_sum(inner)))
        zero = jnp.zeros((*counts, *self.axes.result), self.dtype)
        if not apart:
            parts = [_sum(parts)]
        return [zero if p is None else p.astype(self.dtype) for p in parts]

    def _pair(
        self, weights: Sequence[Any], left: Any, right: Any, k: int, sides: tuple[Side, Side],
        axes: Axes, limit: float, known: dict[Any, Any],
    ) -> Any:
        """What one parameter adds; None if nothing."""
        a, b = sides
        weight = weights[k % len(weights)]
        total: Any = None
        for s in self._terms(k, left, a.count):
            for t in self._terms(k, right, b.count):
                network = inner_product(_weighted(s, weight), t, a, b, axes)
                value = network.value(limit, known)
                total = value if total is None else total + value
        return total

    def _terms(self, k: int, factors: Any, count: int) -> list[Term]:
        label = self.side.label if self.side else 0
        return [
            replace(t, factors=tuple(f), sizes={**t.sizes, label: count})
            for t, f in zip(self.structure[k], factors[k])
        ]

    # ----------------------------------------------------------------- one example

    @property
    def _seeds(self) -> Seeds:
        if self.side is not None:
            return self.side.seeds
        self.side = Side(Seeds.of(self.axes.shape, self.dtype), fresh(), 1)
        return self.side.seeds

    def _walked(self, arrays: Arrays, x: Any) -> list[list[Term]]:
        seeds, rest = self._seeds, replace(arrays, theta=())
        flat, tree = jax.tree.flatten((rest, x))
        early = len(jax.tree.leaves(rest))

        def function(theta: Any, *flat: Any) -> Any:
            rest, x = jax.tree.unflatten(tree, flat)
            return self.function(theta, rest, x)

        closed = jax.make_jaxpr(function)(arrays.theta, *flat)
        inputs = [Value(t, True, False) for t in arrays.theta]
        inputs += [Value(a, False, k >= early) for k, a in enumerate(flat)]
        found = backwards(closed.jaxpr, closed.consts, inputs, seeds)
        self.inner = found.inner
        count = len(arrays.theta)
        direct, through = [], []
        for k in range(count):
            alone = self._apart(found.inner) and not found.direct[k]
            direct.append(collected([] if alone else found.multiplied(k, seeds), seeds))
            through.append(collected(found.through[k] if alone else [], found.inner or seeds))
        outer = [t for t in found.outer if any(through)]
        return [*direct, *through, outer]

    def _apart(self, inner: Seeds | None) -> bool:
        """Whether kernels of a narrow value are smaller than those of the outputs."""
        return inner is not None and inner.count**2 < math.prod(self.axes.result)

    def _jacobian(self, arrays: Arrays, x: Any) -> list[list[Term]]:
        seeds = self._seeds
        f = lambda theta: self.function(theta, arrays, x)
        out = []
        for j, t in zip(jacobian(f, arrays.theta, seeds.sizes), arrays.theta):
            shape = tuple(t.shape)
            out.append([seeds.spread(j.reshape(*seeds.sizes, *shape), shape, True)] if t.size
                       else [])
        return [*out, *([] for _ in out), []]


def _sum(parts: Sequence[Any]) -> Any:
    """The sum of what is there; None of nothing."""
    found = [p for p in parts if p is not None]
    return sum(found[1:], found[0]) if found else None


def _weighted(term: Term, weight: Any) -> Term:
    """A cotangent times what its parameter counts: one, a number, or one for each entry."""
    if weight is None:
        return term
    if weight.ndim == 0:
        return scaled(term, weight, late=False) if term.factors else term.with_factor(
            weight, (), False
        )
    shape = [term.sizes[a] for a in term.out]
    return term.with_factor(weight.reshape(shape), term.out, False)


def jacobian(f: Callable[[Any], Any], theta: Sequence[Any], shape: Sequence[int]) -> list[Any]:
    """All derivatives of an output of this shape: for each parameter (outputs, *its shape).

    Backwards; forwards where JAX can only go forwards, as through while loops.
    """
    theta = tuple(theta)
    count = math.prod(shape)
    try:
        out, pull = jax.vjp(f, theta)
        basis = jnp.eye(count, dtype=out.dtype).reshape(count, *shape)
        return list(jax.vmap(pull)(basis)[0])
    except ValueError as error:
        if "everse-mode" not in str(error):
            raise
    _, push = jax.linearize(f, theta)
    found = []
    for k, t in enumerate(theta):
        zeros = [jnp.zeros_like(s) for s in theta]

        def along(entry: Any, k: int = k, t: Any = t, zeros: list[Any] = zeros) -> Any:
            tangent = list(zeros)
            tangent[k] = entry.reshape(t.shape)
            return push(tuple(tangent))

        columns = jax.vmap(along)(jnp.eye(t.size, dtype=t.dtype))
        found.append(jnp.moveaxis(columns, 0, -1).reshape(count, *t.shape))
    return found


def _batched(closed: Any, late: list[bool], leaves: Sequence[Any]) -> list[Any]:
    """The outputs of a program for a batch; equal outputs are one array."""
    variables = closed.jaxpr.outvars
    place = {v: k for k, v in reversed(list(enumerate(variables))) if not isinstance(v, Literal)}
    kept = [k for k, v in enumerate(variables) if isinstance(v, Literal) or place[v] == k]
    if not kept:
        return []

    def run(*arrays: Any) -> list[Any]:
        out = jaxpr_as_fun(closed)(*arrays)
        return [out[k] for k in kept]

    found = jax.vmap(run, out_axes=[0 if late[k] else None for k in kept])(*leaves)
    of = dict(zip(kept, found))
    return [of[k if isinstance(v, Literal) else place[v]] for k, v in enumerate(variables)]


def _dependence(jaxpr: Any) -> list[bool]:
    """Which outputs of a program depend on its inputs."""
    late = set(jaxpr.invars)
    for eqn in jaxpr.eqns:
        if any(not isinstance(v, Literal) and v in late for v in eqn.invars):
            late.update(eqn.outvars)
    return [not isinstance(v, Literal) and v in late for v in jaxpr.outvars]
