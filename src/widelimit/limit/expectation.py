"""E[product of functions of jointly Gaussian fields], by independence, duals and Stein's lemma."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from widelimit import duals
from widelimit.errors import NotGaussianError
from widelimit.graph import nodes as n
from widelimit.graph.nodes import Part
from widelimit.limit import zeros
from widelimit.limit.evaluate import ZERO, Evaluation, Pairing, add, barrier, times


@dataclass(frozen=True, eq=False)
class Factor:
    """A scalar function of a zero-mean Gaussian ``root``; no ``apply`` means the root itself.

    ``order`` counts how often the function is differentiated.
    """

    root: Part
    apply: tuple[n.Apply, ...] = ()
    values: tuple[Part, ...] = ()
    activation: Any = None
    order: int = 0


Term = tuple[tuple[Part, ...], tuple[Factor, ...]]
"""Known coefficients and random factors, in the axes of the node they came from."""


def factors_of(node: n.Node) -> list[Term]:
    """Write a node as a sum of products of functions of Gaussian roots."""
    return _terms(n.whole(node))


def _terms(part: Part) -> list[Term]:
    node, dims = part.node, part.dims
    inside = lambda p: n.within(p, dims)
    if isinstance(node, n.Value):
        return [((part,), ())]
    match node:
        case n.Apply(root=root, values=values):
            factor = Factor(inside(root), (node,), tuple(inside(v) for v in values))
            return [((), (factor,))]
        case n.Sum(terms=terms) if not node.gaussian or any(
            isinstance(t.node, n.Value) for t in terms
        ):
            return [x for t in terms for x in _terms(inside(t))]
        case n.Scale(factor=factor, operand=operand) if not node.gaussian:
            return [((inside(factor), *c), f) for c, f in _terms(inside(operand))]
        case n.Product(factors=factors):
            out: list[Term] = [((), ())]
            for f in factors:
                out = [(c1 + c2, f1 + f2) for c1, f1 in out for c2, f2 in _terms(inside(f))]
            return out
        case n.Copied(operand=operand) if not node.gaussian:
            return _terms(Part(operand, dims))
    if n.is_gaussian(node) or isinstance(node, n.Weighted | n.Together):
        return [((), (Factor(part),))]
    raise _refuse(node, "a linear map or join of non-Gaussian values is multiplied")


def _refuse(node: n.Node, what: str) -> NotGaussianError:
    return NotGaussianError(
        what,
        why="the expectation would be an integral over more than two correlated Gaussian "
        "variables, for which there is no formula here.",
        remedy="let the gates and the values come from different parameters, or put a dense "
        "layer between them.",
        where=getattr(node, "where", None),
    )


def activation_of(ev: Evaluation, factor: Factor) -> Any:
    """The activation of a factor; the identity for a root itself."""
    if factor.activation is not None:
        return factor.activation
    if not factor.apply:
        return duals.IDENTITY
    return ev.activations.of(factor.apply[0])


def differentiated(ev: Evaluation, factor: Factor) -> Factor | None:
    """The factor with its function differentiated; None for the constant one."""
    activation = activation_of(ev, factor)
    if activation is duals.IDENTITY:
        return None
    return _slope_of(ev, factor, activation)


def _slope_of(ev: Evaluation, factor: Factor, activation: Any) -> Factor:
    slope = ev.activations.derivative(activation)
    return replace(factor, activation=slope, order=factor.order + 1)


def expect(
    ev: Evaluation, factors: tuple[tuple[Factor, int], ...], rank: int, pairing: Pairing
) -> Any:
    """E[Π factors]; each factor comes with its operand, left (0) or right (1)."""
    groups: list[list[tuple[Factor, int]]] = []
    for item in factors:
        touching = [g for g in groups if any(_related(ev, item[0], f) for f, _ in g)]
        joined = [item, *(x for g in touching for x in g)]
        groups = [g for g in groups if g not in touching]
        groups.append(sorted(joined, key=lambda x: factors.index(x)))
    out: Any = 1.0
    for g in groups:
        out = times(out, _group(ev, g, rank, pairing))
        if out is ZERO:
            return ZERO
    return out


def _related(ev: Evaluation, a: Factor, b: Factor) -> bool:
    return ev.related(a.root.node, b.root.node)


def _merge(
    ev: Evaluation, factors: list[tuple[Factor, int]], pairing: Pairing
) -> list[tuple[Factor, int]]:
    """Functions of the same Gaussian variable become one function of it."""
    out: list[tuple[Factor, int]] = []
    for factor, operand in factors:
        for i, (other, where) in enumerate(out):
            if not n.is_gaussian(factor.root.node):
                continue
            same_side = where == operand or pairing != "cross"
            same_root = other.root.node is factor.root.node
            if same_side and same_root and other.root.dims == factor.root.dims:
                both = ev.activations.product(
                    activation_of(ev, other), activation_of(ev, factor)
                )
                values = other.values + factor.values
                out[i] = (Factor(other.root, (), values, both), where)
                break
        else:
            out.append((factor, operand))
    return out


def variance(ev: Evaluation, f: Factor, operand: int, rank: int, pairing: Pairing) -> Any:
    """The variance of a factor's root."""
    from widelimit.limit.moments import moment

    alone = ev.alone(operand, pairing)
    root = f.root
    out = ev.at(moment, root.node, root.dims, root.node, root.dims, rank, alone)
    if out is ZERO:
        import jax.numpy as jnp

        return jnp.zeros((1,) * (ev.batch(pairing) + rank), ev.dtype)
    return ev.into(out, operand, pairing) if alone != pairing else out


def covariance(
    ev: Evaluation,
    f: tuple[Factor, int],
    g: tuple[Factor, int],
    rank: int,
    pairing: Pairing,
) -> Any:
    """The covariance of two factors' roots."""
    from widelimit.limit.moments import moment

    if f[1] > g[1]:
        f, g = g, f
    a, b = f[0].root, g[0].root
    if pairing == "cross" and f[1] == g[1]:
        alone = ev.alone(f[1], pairing)
        out = ev.at(moment, a.node, a.dims, b.node, b.dims, rank, alone)
        return out if out is ZERO else ev.into(out, f[1], pairing)
    return ev.at(moment, a.node, a.dims, b.node, b.dims, rank, pairing)


def parameters(ev: Evaluation, f: Factor, operand: int, rank: int, pairing: Pairing) -> tuple:
    """The known values a factor's function takes."""
    return tuple(ev.value_at(v.node, v.dims, rank, operand, pairing) for v in f.values)  # type: ignore[arg-type]


def _group(
    ev: Evaluation, group: list[tuple[Factor, int]], rank: int, pairing: Pairing
) -> Any:
    if len(group) > 2:
        group = _merge(ev, group, pairing)
    if len(group) == 1:
        ((f, operand),) = group
        activation = activation_of(ev, f)
        if activation is duals.IDENTITY:
            node, dims = f.root.node, f.root.dims
            return ev.mean_at(node, dims, rank, operand, pairing)
        q = variance(ev, f, operand, rank, pairing)
        return zeros.mean(activation, q, parameters(ev, f, operand, rank, pairing))
    if len(group) == 2:
        return _two(ev, group[0], group[1], rank, pairing)
    return _stein(ev, group, rank, pairing)


def _two(
    ev: Evaluation, f: tuple[Factor, int], g: tuple[Factor, int], rank: int, pairing: Pairing
) -> Any:
    """E[f g] of two correlated roots, from the dual of their nodes where that holds it."""
    from widelimit.limit.dual import dual

    if f[1] > g[1]:
        f, g = g, f
    one, two = f[0], g[0]
    a, b = _node_of(one), _node_of(two)
    known = 2 if ev.with_tangent else 1
    if (
        a is None or b is None or f[1] == g[1] or one.order != two.order or one.order >= known
    ):
        return barrier(pair(ev, f, g, rank, pairing, derivative=False))
    return ev.at(dual, a.node, a.dims, b.node, b.dims, rank, pairing)[one.order]


def _node_of(factor: Factor) -> Part | None:
    """The one node that a factor is, or was before it was differentiated, in its labels."""
    if len(factor.apply) != 1:
        return None
    (node,) = factor.apply
    labels = dict(zip(node.root.dims, factor.root.dims))
    for inner, outer in zip(node.values, factor.values, strict=True):
        labels.update(zip(inner.dims, outer.dims))
    axes = range(len(node.shape))
    return Part(node, tuple(labels[k] for k in axes)) if all(k in labels for k in axes) else None


def pair(
    ev: Evaluation,
    f: tuple[Factor, int],
    g: tuple[Factor, int],
    rank: int,
    pairing: Pairing,
    *,
    derivative: bool,
) -> Any:
    """E[f g] for two correlated roots; with ``derivative``, the pair (E[f g], E[f' g'])."""
    if f[1] > g[1]:
        f, g = g, f
    phi, psi = activation_of(ev, f[0]), activation_of(ev, g[0])
    c = covariance(ev, f, g, rank, pairing)
    if not derivative and phi is duals.IDENTITY and psi is duals.IDENTITY:
        return c
    q1 = variance(ev, f[0], f[1], rank, pairing)
    q2 = variance(ev, g[0], g[1], rank, pairing)
    p1 = parameters(ev, f[0], f[1], rank, pairing)
    p2 = parameters(ev, g[0], g[1], rank, pairing)
    if not derivative and (phi is duals.IDENTITY or psi is duals.IDENTITY) and c is ZERO:
        return ZERO
    one = zeros.Argument(phi, f[0].root.node, q1, p1)
    two = zeros.Argument(psi, g[0].root.node, q2, p2)

    def put_right(out: Any) -> Any:
        out = zeros.pair(ev, one, two, out, derivative=derivative)
        return out if derivative else out.value

    same = f[0].root.node is g[0].root.node and f[0].root.dims == g[0].root.dims
    if same and (pairing != "cross" or f[1] == g[1]):
        out = duals.second(phi, psi, q1, p1, p2, derivative=derivative)
        return put_right(out)
    if c is ZERO:
        c = 0.0 * (q1 + q2)
    d = distance(ev, f, g, rank, pairing)
    out = duals.pair(phi, psi, q1, q2, c, params1=p1, params2=p2, d=d, derivative=derivative)
    return put_right(out)


def distance(
    ev: Evaluation, f: tuple[Factor, int], g: tuple[Factor, int], rank: int, pairing: Pairing
) -> Any:
    """E[(u - v)²] where it can be had without cancellation; None otherwise."""
    from widelimit.limit.differences import difference

    a, b = f[0].root, g[0].root
    if a.node is not b.node or f[1] == g[1] or not ev.careful:
        return None
    if id(a.node) in ev.entangled.above:
        return None  # Draws of pairs and of single examples differ by more than rounding.
    return ev.at(difference, a.node, a.dims, b.node, b.dims, rank, pairing)


def _stein(
    ev: Evaluation, group: list[tuple[Factor, int]], rank: int, pairing: Pairing
) -> Any:
    """E[r F] = Σ cov(r, r_j) E[∂_j F] takes a linear factor out of three or more."""
    for f, _ in group:
        if isinstance(f.root.node, n.Weighted):
            raise _refuse(f.root.node, "channels times weights of their own are multiplied")
        if isinstance(f.root.node, n.Together):
            raise _refuse(f.root.node, "functions of several positions are multiplied")
    linear = [i for i, (f, _) in enumerate(group) if activation_of(ev, f) is duals.IDENTITY]
    if not linear:
        where = next((f.apply[0].where for f, _ in group if f.apply), None)
        error = _refuse(group[0][0].root.node, "three or more correlated fields are multiplied")
        raise NotGaussianError(error.what, why=error.why, remedy=error.remedy, where=where)
    i = linear[0]
    rest = [x for k, x in enumerate(group) if k != i]
    total: Any = ZERO
    for j, (f, operand) in enumerate(rest):
        if not _related(ev, group[i][0], f):
            continue
        c = covariance(ev, group[i], (f, operand), rank, pairing)
        if c is ZERO:
            continue
        slope = weak_derivative(ev, f)
        left = [x for k, x in enumerate(rest) if k != j]
        if slope is not None:
            left = [*left[:j], (slope, operand), *left[j:]]
        total = add(total, times(c, expect(ev, tuple(left), rank, pairing) if left else 1.0))
    return total


def weak_derivative(ev: Evaluation, f: Factor) -> Factor | None:
    """The derivative for Stein's lemma, which a jump would make a delta function."""
    activation = activation_of(ev, f)
    if activation is duals.IDENTITY:
        return None
    if ev.activations.has_jump(activation):
        error = _refuse(f.root.node, "a discontinuous function multiplies correlated fields")
        where = f.apply[0].where if f.apply else error.where
        raise NotGaussianError(error.what, why=error.why, remedy=error.remedy, where=where)
    return _slope_of(ev, f, activation)
