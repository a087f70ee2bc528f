"""Functions of several positions of a random sum over width: integrated by sampling.

Attention logits scaled by 1/sqrt(d) are Gaussian over the heads, with covariance
Cov(G_ab, G_cd) = K_q(a, c) K_k(b, d), and their softmax has no closed-form moments (Hron et al.
2020, arXiv:2006.10540, theorem 3). The logits are drawn, with the same random numbers for every
pair of examples, and the second moments averaged. The error falls off as draws^(-1/2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.errors import NotGaussianError
from widelimit.graph import nodes as n
from widelimit.graph.arrange import in_axes, over_axes
from widelimit.limit.evaluate import ZERO, Evaluation, Pairing, Rule, times
from widelimit.limit.place import place, stretch
from widelimit.limit.pointwise import computed

Targets = tuple[int, ...]
BATCH = 64
"""Pairs of examples drawn at the same time."""


def sampled_moment(
    moment: Rule, ev: Evaluation, a: n.Field, ta: Targets, b: n.Field, tb: Targets, rank: int,
    p: Pairing,
) -> Any:
    """E[a b] of two functions of random sums."""
    inner = ev.at(moment, _root(a), *_free(a, b), p)
    if inner is ZERO:
        return times(ev.mean_at(a, ta, rank, 0, p), ev.mean_at(b, tb, rank, 1, p))

    def one(draws: Any, left: Any, right: Any) -> Any:
        return jnp.einsum("ri,rj->ij", left(draws[0]), right(draws[1])) / len(draws[0])

    return _integrate(moment, ev, a, ta, b, tb, rank, p, one, ())


def sampled_tangent(
    moment: Rule, tangent: Rule, ev: Evaluation, a: n.Field, ta: Targets, b: n.Field,
    tb: Targets, rank: int, p: Pairing,
) -> Any:
    """Σ E[∂a/∂G_i ∂b/∂G_j] T(G_i, G_j)."""
    inner = ev.at(tangent, _root(a), *_free(a, b), p)
    if inner is ZERO:
        return ZERO
    batch, sizes = ev.batch(p), (*_root(a).shape, *_root(b).shape)
    for k, size in enumerate(sizes):
        inner = stretch(inner, batch + k, size)
    rows = math.prod(_root(a).shape)

    def one(draws: Any, left: Any, right: Any, tangents: Any) -> Any:
        slope = lambda f, x: jax.vmap(jax.jacfwd(lambda t: f(t[None])[0]))(x).reshape(
            len(x), -1, math.prod(x.shape[1:])
        )
        kernel = tangents.reshape(rows, -1)
        parts = jnp.einsum("rip,pq->riq", slope(left, draws[0]), kernel)
        return jnp.einsum("riq,rjq->ij", parts, slope(right, draws[1])) / len(draws[0])

    return _integrate(moment, ev, a, ta, b, tb, rank, p, one, (inner,))


def sampled_mean(ev: Evaluation, node: n.Field, side: int) -> Any:
    """E[a] of each example."""
    from widelimit.limit.moments import moment

    p: Pairing = "left" if side == 0 or ev.symmetric else "right"
    one = lambda draws, left, right: jnp.mean(left(draws[0]), 0)[:, None]  # noqa: ARG005
    rank = len(node.shape)
    full = _integrate(
        moment, ev, node, tuple(range(rank)), node, tuple(range(rank)), rank, p, one, (),
        alone=True,
    )
    return full


# --------------------------------------------------------------------------- drawing


def _root(node: n.Field) -> n.Overlap:
    roots = node.overlaps
    if len(roots) > 1:
        raise NotGaussianError(
            "a function of several positions of several random sums",
            why="the sums would have to be drawn together.",
            remedy="use one sum (one attention layer's logits) in each softmax.",
            where=node.where,
        )
    return roots[0]


def _free(a: n.Field, b: n.Field) -> tuple[Targets, n.Overlap, Targets, int]:
    """The arguments of ``Evaluation.at`` for the roots of both sides, nothing tied."""
    x, y = len(_root(a).shape), len(_root(b).shape)
    return tuple(range(x)), _root(b), tuple(range(x, x + y)), x + y


def _integrate(
    moment: Rule, ev: Evaluation, a: n.Field, ta: Targets, b: n.Field, tb: Targets, rank: int,
    p: Pairing, one: Callable[..., Any], further: tuple[Any, ...], *, alone: bool = False,
) -> Any:
    """An average over draws for every pair of examples, in the labels of a moment."""
    batch = ev.batch(p)
    roots, nodes = (_root(a), _root(b)), (a, b)
    factors = _factors(moment, ev, roots, p)
    trees = [_Tree(node, root) for node, root in zip(nodes, roots)]
    values = [
        [ev.into(ev.value(v, ev.side_of(k, p)), k, p) for v in tree.values]
        for k, tree in enumerate(trees)
    ]
    sizes = [ev.sides[ev.side_of(k, p)].size for k in ((0, 1) if batch == 2 else (0,))]
    count = math.prod(sizes)

    def listed(x: Any) -> Any:
        return jnp.broadcast_to(x, (*sizes, *x.shape[batch:])).reshape(count, *x.shape[batch:])

    items = jax.tree.map(listed, (factors.covariances, values, further))
    noise = factors.noise(ev)

    def pair(item: Any) -> Any:
        covariances, known, more = item
        draws = factors.draw(noise, covariances)
        left, right = (
            lambda block, t=tree, v=v: jax.vmap(lambda x: t.run(x, v).reshape(-1))(block)
            for tree, v in zip(trees, known)
        )
        return one(draws, left, right, *more)

    found = jax.lax.map(pair, items, batch_size=min(BATCH, count))
    if alone:
        return found.reshape(*sizes, *a.shape)
    found = found.reshape(*sizes, *a.shape, *b.shape)
    return place(found, batch, (*ta, *tb), rank)


@dataclass(frozen=True)
class _Factors:
    """Gaussian fields whose product over axes of their own has the covariance of both roots.

    ``covariances`` holds for each factor the joint covariance of both sides; ``dims`` the axes of
    the root that it covers, ``shapes`` the roots' shapes.
    """

    covariances: list[Any]
    dims: list[Targets]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    scales: tuple[float, float]
    together: bool

    def noise(self, ev: Evaluation) -> Any:
        """Standard normal numbers, each with its negative."""
        sizes = [c.shape[-1] for c in self.covariances]
        rng = np.random.default_rng(ev.sampling.seed)
        half = rng.normal(size=(-(-ev.sampling.draws // 2), *sizes))
        return jnp.asarray(np.concatenate([half, -half]), ev.dtype)

    def draw(self, noise: Any, covariances: list[Any]) -> tuple[Any, Any]:
        """Draws of both roots for one pair of examples, shapes (draws, *shape)."""
        for k, c in enumerate(covariances):
            values, vectors = jnp.linalg.eigh(c)
            root = (vectors * jnp.sqrt(jnp.maximum(values, 0.0))) @ vectors.T
            noise = jnp.moveaxis(jnp.tensordot(noise, root, ([k + 1], [0])), -1, k + 1)
        out = []
        for side, shape in enumerate(self.shapes):
            block = noise * self.scales[side]
            for k, dims in enumerate(self.dims):
                size = math.prod(shape[d] for d in dims)
                start = 0 if side == 0 or self.together else block.shape[k + 1] - size
                block = jax.lax.slice_in_dim(block, start, start + size, axis=k + 1)
            order = [d for dims in self.dims for d in dims]
            block = block.reshape(len(block), *(shape[d] for d in order))
            out.append(jnp.transpose(block, (0, *(1 + order.index(d) for d in range(len(order))))))
        return out[0], out[1]


def _factors(
    moment: Rule, ev: Evaluation, roots: tuple[n.Overlap, n.Overlap], p: Pairing
) -> _Factors:
    """Queries and keys apart where the logits are their product; else the logits as a whole."""
    together = roots[0] is roots[1] and ev.batch(p) == 1
    split = [_product_of_two(ev, r) for r in roots]
    if split[0] is not None and split[1] is not None and (
        [d for _, d in split[0][0]] == [d for _, d in split[1][0]]
    ):
        (left, c1), (right, c2) = split  # type: ignore[misc]
        pairs = [(x, y, d) for (x, d), (y, _) in zip(left, right)]
        scales = (c1 * math.sqrt(roots[0].count), c2 * math.sqrt(roots[1].count))
    else:
        pairs = [(roots[0], roots[1], tuple(range(len(roots[0].shape))))]
        scales = (1.0, 1.0)
    covariances = [_joint(moment, ev, x, y, p, together=together) for x, y, _ in pairs]
    shapes = (roots[0].shape, roots[1].shape)
    return _Factors(covariances, [d for _, _, d in pairs], shapes, scales, together)


def _product_of_two(
    ev: Evaluation, root: n.Overlap
) -> tuple[list[tuple[n.Field, Targets]], float] | None:
    part, scale = _stripped(n.whole(root.operand))
    if not isinstance(part.node, n.Product) or len(part.node.factors) != 2:
        return None
    found = []
    for f in part.node.factors:
        inner, c = _stripped(n.within(f, part.dims))
        scale *= c
        found.append((inner.node, inner.dims))
    (x, dx), (y, dy) = found
    apart = not set(dx) & set(dy) and len(dx) + len(dy) == len(root.shape)
    return (found, scale) if apart and not ev.related(x, y) else None


def _stripped(part: n.Part) -> tuple[n.Part, float]:
    """A field without factors that are one number."""
    scale = 1.0
    while isinstance(part.node, n.Scale):
        factor = part.node.factor.node
        if not isinstance(factor, n.Constant) or factor.array.size != 1:
            break
        scale *= float(factor.array.item())
        part = n.within(part.node.operand, part.dims)
    return part, scale


def _joint(
    moment: Rule, ev: Evaluation, x: n.Field, y: n.Field, p: Pairing, *, together: bool
) -> Any:
    """The covariance of x on the left and y on the right, all positions of both."""

    def block(u: n.Field, v: n.Field, pairing: Pairing, operand: int) -> Any:
        a, b = len(u.shape), len(v.shape)
        out = ev.at(moment, u, tuple(range(a)), v, tuple(range(a, a + b)), a + b, pairing)
        own = ev.batch(pairing)
        if out is ZERO:
            out = jnp.zeros((1,) * (own + a + b), ev.dtype)
        for k, size in enumerate((*u.shape, *v.shape)):
            out = stretch(out, own + k, size)
        out = out.reshape(*out.shape[:own], math.prod(u.shape), math.prod(v.shape))
        return ev.into(out, operand, p) if pairing != p else out

    if together:
        return block(x, y, p, 0)
    xx = block(x, x, ev.alone(0, p), 0)
    yy = block(y, y, ev.alone(1, p), 1)
    xy = block(x, y, p, 0)
    lead = np.broadcast_shapes(*(t.shape[:-2] for t in (xx, xy, yy)))
    wide = lambda t: jnp.broadcast_to(t, (*lead, *t.shape[-2:]))
    top = jnp.concatenate([wide(xx), wide(xy)], -1)
    bottom = jnp.concatenate([jnp.swapaxes(wide(xy), -1, -2), wide(yy)], -1)
    return jnp.concatenate([top, bottom], -2)


# --------------------------------------------------------------------------- running


class _Tree:
    """A field above one random sum, as a function of the sum's block and of known values."""

    def __init__(self, node: n.Field, root: n.Overlap) -> None:
        self.node, self.root = node, root
        self.values: list[n.Value] = []
        self._find(node)

    def _find(self, node: n.Node) -> None:
        from widelimit.graph.walk import children

        if isinstance(node, n.Value):
            if all(node is not v for v in self.values):
                self.values.append(node)
        elif node is not self.root:
            for child in children(node):
                self._find(child)

    def run(self, block: Any, values: list[Any]) -> Any:
        """The field's block, shape (*shape)."""
        known = {id(v): x for v, x in zip(self.values, values)}
        done: dict[int, Any] = {id(self.root): block}

        def of(node: n.Node) -> Any:
            if id(node) in known:
                return known[id(node)]
            if id(node) not in done:
                done[id(node)] = self._one(node, of)
            return done[id(node)]

        return jnp.broadcast_to(of(self.node), self.node.shape)

    @staticmethod
    def _one(node: n.Node, of: Callable[[n.Node], Any]) -> Any:
        rank = len(node.shape)
        if isinstance(node, n.POINTWISE):
            at = lambda part: in_axes(of(part.node), part.dims, rank)
            return jnp.broadcast_to(computed(node, at), node.shape)
        match node:
            case n.Map(operand=operand, acted=acted, function=function, values=values):
                run = over_axes(function, len(operand.shape), acted)
                return run(of(operand), *(of(v) for v in values))
            case n.Copied(operand=operand):
                return of(operand)
            case n.Together(function=function, operands=operands):
                return function(*(of(x) for x in operands))
        raise NotGaussianError(
            "a softmax over random logits meets an operation that is not followed",
            why=f"a node of kind {type(node).__name__.lower()} is not drawn.",
            remedy="take the softmax of the logits themselves.",
            where=getattr(node, "where", None),
        )
