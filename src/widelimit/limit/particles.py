"""Functions of several dependent Gaussian fields: integrated by drawing the fields.

A pair of examples is drawn by itself. Its Gaussian fields are drawn one after the other, each
given those before, with the covariances that the recursion asks for; these are averages over the
draws made so far, so that all of them are the moments of one set of numbers. The same random
numbers serve all pairs. They are points of a scrambled Sobol sequence, each with its negative, and
made uncorrelated, which integrates what is quadratic in the fields exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from widelimit.graph import nodes as n
from widelimit.graph.entangled import is_root, parts
from widelimit.limit.evaluate import ZERO, Evaluation, Pairing, Rule
from widelimit.limit.pointwise import computed

Targets = tuple[int, ...]
Key = tuple[int, Targets, int]
"""A field's id, its labels, and the side it is on."""

_SIDES: dict[Pairing, tuple[int, int]] = {
    "cross": (0, 1), "first": (0, 0), "second": (1, 1), "left": (0, 0), "right": (0, 0),
}
_CHUNK = 8
"""Arrays of Gaussian fields have room for multiples of this many, to be compiled for few sizes."""
_DEAD = {4: 1e-5, 8: 1e-10}
"""The share of its variance below which nothing of a field is left that is new."""


def drawn_moment(
    moment: Rule, ev: Evaluation, a: n.Node, ta: Targets, b: n.Node, tb: Targets, rank: int,
    p: Pairing,
) -> Any:
    """E[a b], the average over the draws."""
    draws = _draws(moment, ev, (a, ta), (b, tb), rank, p)
    i, j = _SIDES[p]
    x, y = draws.values(a, ta, i), draws.values(b, tb, j)
    return _average(x.astype(ev.dtype), y.astype(ev.dtype))


def drawn_tangent(
    moment: Rule, tangent: Rule, ev: Evaluation, a: n.Field, ta: Targets, b: n.Field, tb: Targets,
    rank: int, p: Pairing,
) -> Any:
    """Σ E[∂a/∂r_i ∂b/∂r_j] T(r_i, r_j) over the Gaussian fields of both."""
    draws = _draws(moment, ev, (a, ta), (b, tb), rank, p)
    i, j = _SIDES[p]
    left, right = draws.slopes(a, ta, i), draws.slopes(b, tb, j)
    total: Any = ZERO
    groups = list(draws.groups)
    for group in groups:
        first = {k: place for place, k in enumerate(group.of_side(i)) if k in left}
        second = {k: place for place, k in enumerate(group.of_side(j)) if k in right}
        if not first or not second:
            continue
        kernel = draws.tangents(tangent, group, first, second, p)
        if kernel is ZERO:
            continue
        x, y = _side_by_side(left, first), _side_by_side(right, second)
        kernel = kernel[..., : x.shape[-2], : y.shape[-2]]
        part = _weighed(kernel, x, y) / ev.sampling.draws
        total = part if total is ZERO else total + part
    if any(g not in groups for g in draws.groups):
        # Asking for tangents drew further fields, which joined groups that were apart.
        return drawn_tangent(moment, tangent, ev, a, ta, b, tb, rank, p)
    return total


@jax.jit
def _weighed(kernel: Any, x: Any, y: Any) -> Any:
    """Σ_ij K_ij Σ_n x_in y_jn."""
    return jnp.sum(kernel * _contract("ein,ejn->eij", (x, 2), (y, 2)), (-1, -2))


def _side_by_side(slopes: dict[Key, Any], places: dict[Key, int]) -> Any:
    """Derivatives at their places along a new axis before the last, which is filled with zeros."""
    by_place = {place: slopes[k] for k, place in places.items()}
    blank = jnp.zeros_like(next(iter(slopes.values())))
    count = _CHUNK * -(-(1 + max(by_place)) // _CHUNK)
    return jnp.stack([by_place.get(place, blank) for place in range(count)], -2)


def drawn_mean(moment: Rule, ev: Evaluation, node: n.Field, side: int) -> Any:
    """E[node] of each example, shape (n or 1, *shape)."""
    p: Pairing = "left" if side == 0 or ev.symmetric else "right"
    own = tuple(range(len(node.shape)))
    draws = _draws(moment, ev, (node, own), (node, own), len(own), p)
    return jnp.mean(draws.values(node, own, 0).astype(ev.dtype), -1)


def _average(x: Any, y: Any) -> Any:
    if x.shape[-1] == y.shape[-1]:
        return _contract("en,en->e", (x, 1), (y, 1)) / x.shape[-1]
    return jnp.mean(x * y, -1)


def _contract(how: str, x: tuple[Any, int], y: tuple[Any, int]) -> Any:
    """An einsum over the last axes of two arrays, whose first ones broadcast, as one axis.

    Products of arrays with many axes are more than XLA takes on processors.
    """
    lead = np.broadcast_shapes(*(a.shape[: a.ndim - k] for a, k in (x, y)))
    flat = [
        jnp.broadcast_to(a, (*lead, *a.shape[a.ndim - k :])).reshape(-1, *a.shape[a.ndim - k :])
        for a, k in (x, y)
    ]
    out = jnp.einsum(how, *flat)
    return out.reshape(*lead, *out.shape[1:])


def _stacked(arrays: list[Any], axis: int = -1) -> Any:
    return jnp.stack(jnp.broadcast_arrays(*arrays), axis)


def _draws(
    moment: Rule, ev: Evaluation, a: tuple[n.Node, Targets], b: tuple[n.Node, Targets], rank: int,
    p: Pairing,
) -> _Draws:
    """The draws of these labels; those of a pair serve its examples with themselves too."""
    sizes = [1] * rank
    for node, targets in (a, b):
        for size, t in zip(node.shape, targets):
            sizes[t] = size
    family = p if p in ("left", "right") else "cross"
    return ev.once(("draws", family, *sizes), lambda: _Draws(moment, ev, sizes, family))


@dataclass(eq=False)
class _Group:
    """Fields that share parameters: where they are in the noise, and how to condition on them.

    ``whitening`` makes their values independent; a row of zeros stands for a field that follows
    from those before it, and for one that is yet to come.
    """

    keys: list[Key]
    columns: list[int]
    whitening: Any

    def of_side(self, side: int) -> list[Key]:
        """The fields of one side."""
        return [k for k in self.keys if k[2] == side]


class _Draws:
    """Values of Gaussian fields, and of functions of them, in the labels of one kind of moment."""

    def __init__(self, moment: Rule, ev: Evaluation, sizes: list[int], family: Pairing) -> None:
        self.moment, self.ev, self.rank, self.family = moment, ev, len(sizes), family
        batch = [ev.sides[ev.side_of(k, family)].size for k in range(ev.batch(family))]
        self.shape = (*batch, *sizes)
        self.nodes: dict[Key, n.Field] = {}
        self.known: dict[Key, Any] = {}
        self.groups: list[_Group] = []
        self._columns = [0, 0]
        self._slopes: dict[Key, dict[Key, Any]] = {}
        self._tangents: dict[Any, tuple[set, dict]] = {}
        self._arrays: dict[Any, Any] = {}
        self._entered: dict[Any, set] = {}

    @property
    def arrays(self) -> list[Any]:
        """All that is held."""
        slopes = [x for s in self._slopes.values() for x in s.values()]
        return [*self.known.values(), *slopes, *self._arrays.values()]

    # ----------------------------------------------------------------- functions

    def values(self, node: n.Node, dims: Targets, side: int) -> Any:
        """A node's values, shape (*batch, *labels, draws); axes may be of size one."""
        key = (id(node), dims, side)
        if key not in self.known:
            self.known[key] = self._run(node, dims, side, self.values, self._draw)
        return self.known[key]

    def slopes(self, node: n.Field, dims: Targets, side: int) -> dict[Key, Any]:
        """The derivatives of a field with respect to the Gaussian fields that it depends on."""
        key = (id(node), dims, side)
        if key not in self._slopes:
            self.values(node, dims, side)
            found: dict[Key, Any] = {}
            self._roots(node, dims, side, found, set())
            full = (*self.shape, self.ev.sampling.draws)
            at = {k: jnp.broadcast_to(self.known[k], full) for k in found}

            def total(at: dict[Key, Any]) -> Any:
                done: dict[Key, Any] = {}

                def of(node: n.Node, dims: Targets, side: int) -> Any:
                    key = (id(node), dims, side)
                    if key not in done:
                        done[key] = at[key] if key in at else self._run(
                            node, dims, side, of, self._draw
                        )
                    return done[key]

                return jnp.sum(of(node, dims, side) * jnp.ones(full, self.ev.dtype))

            self._slopes[key] = jax.grad(total)(at)
        return self._slopes[key]

    def tangents(
        self, tangent: Rule, group: _Group, left: dict[Key, int], right: dict[Key, int], p: Pairing
    ) -> Any:
        """Tangent kernels of Gaussian fields, shape (*batch, *labels, left, right), or ZERO."""
        at = (group, p)
        known, found = self._tangents.setdefault(at, (set(), {}))
        for k, row in left.items():
            for m, column in right.items():
                if (k, m) in known:
                    continue
                known.add((k, m))
                if self.ev.related(self.nodes[k], self.nodes[m]):
                    value = self.ev.at(
                        tangent, self.nodes[k], k[1], self.nodes[m], m[1], self.rank, p
                    )
                    if value is not ZERO:
                        found[row, column] = value
        if not found:
            return ZERO
        size = _CHUNK * -(-(1 + max(max(x) for x in found)) // _CHUNK)
        array = self._arrays.get(at)
        if array is None or array.shape[-1] < size:
            array = jnp.zeros((*self.shape, size, size), self.ev.dtype)
            fresh = dict(found)
        else:
            fresh = {x: v for x, v in found.items() if x not in self._entered[at]}
        for (row, column), value in fresh.items():
            array = _entered(array, value, row, column)
        self._arrays[at], self._entered[at] = array, set(found)
        return array

    def _run(self, node: n.Node, dims: Targets, side: int, of: Any, draw: Any) -> Any:
        if isinstance(node, n.Value):
            return self.ev.value_at(node, dims, self.rank, side, self.family)[..., None]
        assert isinstance(node, n.Field)
        if is_root(node):
            return draw(node, dims, side)
        if isinstance(node, n.Copied):
            return of(node.operand, dims, side)
        return computed(node, lambda p: of(p.node, tuple(dims[k] for k in p.dims), side))

    def _roots(
        self, node: n.Node, dims: Targets, side: int, found: dict[Key, Any], seen: set[Key]
    ) -> None:
        key = (id(node), dims, side)
        if key in seen or not isinstance(node, n.Field):
            return
        seen.add(key)
        if key in self.nodes:
            found[key] = node
            return
        if isinstance(node, n.Apply):
            self.ev.activations.check_derivative(node)
        if isinstance(node, n.Mixed):
            self.ev.activations.check_mixed(node, derivative=True)
        for p in parts(node):
            self._roots(p.node, tuple(dims[k] for k in p.dims), side, found, seen)

    # ----------------------------------------------------------------- Gaussian fields

    def _draw(self, node: n.Field, dims: Targets, side: int) -> Any:
        """The values of one more Gaussian field, given all that were drawn before."""
        key = (id(node), dims, side)
        # Asking for a covariance may draw fields of lower layers first.
        own = self._covariance(key, node, key, node)
        shared: dict[Key, Any] = {}
        while len(shared) < len(self.nodes):
            for other, partner in list(self.nodes.items()):
                if other not in shared:
                    shared[other] = self._covariance(other, partner, key, node)
        column = 2 * self._columns[side] + side
        self._columns[side] += 1
        # By their random numbers: constants that are trained have tangents, but no covariance.
        group = self._joined([k for k in shared if self.ev.related(self.nodes[k], node)])
        noise = _noise(self.ev, column + 1, self.rank)
        if own is ZERO:
            own = jnp.zeros((1,) * len(self.shape), self.ev.dtype)
        # In full, as nearly all end up, so that few shapes are compiled.
        own, blank = jnp.broadcast_to(own, self.shape), jnp.zeros(self.shape, self.ev.dtype)
        size = group.whitening.shape[-1]
        told = [shared[k] for k in group.keys]
        told = [*(blank if c is ZERO else c for c in told), *[blank] * (size - len(told))]
        columns = np.zeros(size, int)
        columns[: len(group.columns)] = group.columns
        drawn, group.whitening = _conditioned(
            group.whitening, _stacked(told), own, noise[:, columns], noise[:, column],
            len(group.keys),
        )
        self.nodes[key], self.known[key] = node, drawn
        group.keys.append(key)
        group.columns.append(column)
        return drawn

    def _covariance(self, a: Key, x: n.Field, b: Key, y: n.Field) -> Any:
        if a[2] > b[2]:
            a, x, b, y = b, y, a, x
        pairing: Pairing = self.family
        if self.family == "cross" and a[2] == b[2]:
            pairing = "first" if a[2] == 0 else "second"
        if not self.ev.related(x, y):
            return ZERO
        return self.ev.at(self.moment, x, a[1], y, b[1], self.rank, pairing)

    def _joined(self, keys: list[Key]) -> _Group:
        """The group of these fields, made of all the groups they are in, with room for one more."""
        touched = [g for g in self.groups if any(k in g.keys for k in keys)]
        if len(touched) == 1:
            (joined,) = touched
        else:
            self.groups = [g for g in self.groups if g not in touched]
            joined = _Group([], [], jnp.zeros((*self.shape, 0, 0), self.ev.dtype))
            for g in touched:
                kept = g.whitening[..., : len(g.keys), : len(g.keys)]
                joined.whitening = _block_diagonal(joined.whitening, kept)
                joined.keys += g.keys
                joined.columns += g.columns
            self.groups.append(joined)
        room = joined.whitening.shape[-1]
        if room <= len(joined.keys):
            size = max(_CHUNK, 2 * room)
            more = ((0, 0),) * len(self.shape) + ((0, size - room),) * 2
            joined.whitening = jnp.pad(joined.whitening, more)
        return joined


@jax.jit
def _entered(array: Any, value: Any, row: Any, column: Any) -> Any:
    return array.at[..., row, column].set(value)


@jax.jit
def _conditioned(
    whitening: Any, told: Any, own: Any, noise: Any, fresh: Any, place: Any
) -> tuple[Any, Any]:
    """Values of a field of variance ``own`` given those of a group, and the group with it.

    Parameters
    ----------
    whitening
        The group's, shape (..., size, size).
    told
        Covariances with the fields of the group, shape (..., size).
    own
        The variance of the new one.
    noise, fresh
        The group's random numbers, shape (draws, size), and those of the new one.
    place
        The row of the new one.
    """
    own = jnp.maximum(own, 0.0)
    weights = _contract("eij,ej->ei", (whitening, 2), (told, 1))
    share = jnp.sum(weights**2, -1)
    # Draws agree with what is told of them up to rounding, and with moments taken elsewhere up to
    # their sampling error: a field keeps its variance.
    over = share > own
    shrink = jnp.sqrt(jnp.where(over, own / jnp.where(over, share, 1.0), 1.0))
    weights = weights * shrink[..., None]
    rest = jnp.maximum(own - jnp.sum(weights**2, -1), 0.0)
    new = rest > _DEAD[own.dtype.itemsize] * own
    spread = jnp.where(new, jnp.sqrt(jnp.where(new, rest, 1.0)), 0.0)
    flat = weights.reshape(-1, weights.shape[-1]) @ noise.T
    drawn = flat.reshape(*weights.shape[:-1], -1) + spread[..., None] * fresh
    row = -_contract("ei,eij->ej", (weights, 1), (whitening, 2))
    row = row.at[..., place].set(1.0)
    row = jnp.where(new[..., None], row / jnp.where(new, spread, 1.0)[..., None], 0.0)
    full = (*row.shape[:-1], *whitening.shape[-2:])
    return drawn, jnp.broadcast_to(whitening, full).at[..., place, :].set(row)


def _block_diagonal(a: Any, b: Any) -> Any:
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (jnp.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (a, b))
    i, j = a.shape[-1], b.shape[-1]
    nothing = ((0, 0),) * len(lead)
    return jnp.concatenate(
        [jnp.pad(a, (*nothing, (0, 0), (0, j))), jnp.pad(b, (*nothing, (0, 0), (i, 0)))], -2
    )


def _noise(ev: Evaluation, columns: int, labels: int) -> Any:
    """Independent standard normal columns, shape (draws, at least ``columns``)."""
    # A field may be wanted at two places of each side.
    block = max(2, (2 if labels == 0 else 4) * ev.entangled.roots)
    count = -(-columns // block)

    def make() -> Any:
        seeds = [(ev.sampling.seed, k) for k in range(count)]
        points = [normal_points(ev.sampling.draws, block, seed) for seed in seeds]
        return jnp.asarray(np.concatenate(points, 1), ev.dtype)

    return ev.once(("noise", block, count), make)


def normal_points(draws: int, columns: int, seed: Any) -> np.ndarray:
    """Points for the integration over a standard normal variable in each column.

    Half of them are a scrambled Sobol sequence, the others their negatives; where there are enough
    they are made uncorrelated.
    """
    from scipy.stats import qmc  # slow to import, and few networks are drawn

    half = max(-(-draws // 2), 2)
    engine = qmc.Sobol(columns, seed=np.random.default_rng(seed))
    uniform = engine.random_base2(math.ceil(math.log2(half)))[:half]
    points = ndtri(np.clip(uniform, 1e-12, 1 - 1e-12))
    points = np.concatenate([points, -points])[:draws]
    if 4 * columns <= draws:
        factor = np.linalg.cholesky(points.T @ points / draws)
        points = np.linalg.solve(factor, points.T).T
    return points
