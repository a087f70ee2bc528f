"""A network read for one shape of input, ready to be evaluated: compiled programs, tiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.batches import float_dtype
from widelimit.errors import Where
from widelimit.graph import nodes as n
from widelimit.graph.entangled import entangled
from widelimit.graph.show import Layouts
from widelimit.graph.simplify import simplified
from widelimit.graph.walk import reachable
from widelimit.kernel import _angle as angle
from widelimit.kernel._alone import Alone
from widelimit.kernel._finite import (
    culprit,
    drawn_not_finite,
    first_bad,
    first_bad_example,
    not_finite,
)
from widelimit.kernel._output import diagonal_block, pair_block, positions
from widelimit.limit import unsettled
from widelimit.limit.activations import Activations
from widelimit.limit.angle import kernels
from widelimit.limit.differences import has_close_pairs
from widelimit.limit.evaluate import Evaluation, Sampling, Side, deep
from widelimit.precision import double_precision
from widelimit.tiles import Block, Started, balanced, filled_up, tile_size, tiled, whole
from widelimit.trace import Graph

TILE = 1024
"""Examples per tile, at most."""
MEMORY = 2 << 30
"""Bytes that one tile's intermediate results may take."""
CACHE = 64 << 20
"""Bytes that they had better take, where a program holds the whole network.

Larger arrays leave the caches, and come fresh from the system, for every layer; and small tiles
leave out more of what is below the diagonal.
"""

CLOSE_TILES, TRIED_AGAIN = 2, 16
"""After how many tiles in a row with close pairs others are taken to have some too; one in so many
is looked at."""

_ALIVE = 8
"""Moments of the largest size that a compiled program holds at once, roughly."""

Kinds = tuple[str, ...]
Blocks = list[list[Any]]
"""One array for each kernel and each output."""


_PAIRS = 4
"""Pairs in an abstract evaluation of two examples with two."""


@dataclass(frozen=True)
class Costs:
    """What the pairs of a graph take.

    Attributes
    ----------
    nodes
        By the id of a node: which position axes are tied, and bytes per pair of its moments.
    pair
        A bound on the bytes that one pair of examples needs while it is computed.
    tile
        The number of examples on each side of a tile.
    """

    nodes: Layouts
    pair: int
    tile: int


class Shapes(NamedTuple):
    """What an evaluation of two examples with two says, from shapes alone.

    The numbers of entries of all moments, their layouts, and what is asked of an example alone.
    """

    entries: list[int]
    layouts: Layouts
    alone: Alone


class Program:
    """The evaluation of one graph.

    Attributes
    ----------
    read
        The graph as read.
    graph
        The graph that is evaluated, without what vanishes in the limit.
    sampled
        Whether some integrals are taken by sampling.
    """

    def __init__(
        self, read: Graph, trainable: tuple[bool, ...], sampling: Sampling | None = None
    ) -> None:
        nodes = simplified([o.node for o in read.outputs])
        outputs = tuple(replace(o, node=x) for o, x in zip(read.outputs, nodes))
        self.read = read
        self.graph = replace(read, outputs=outputs, nodes=tuple(reachable(nodes)))
        self.entangled = entangled(nodes)
        several = any(isinstance(x, n.Together) for x in self.graph.nodes)
        self.sampled = several or bool(self.entangled.fields)
        self._sampling = sampling
        self._trainable = trainable
        self._watched = unsettled.watched(self.graph.nodes)
        self._angular = (
            not self.sampled and not self._watched and angle.depends_on_angle(self.graph)
        )
        self._activations = Activations()
        for x in self.graph.nodes:
            if isinstance(x, n.Mixed):
                self._activations.check_mixed(x)
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._fits = angle.Fits()
        self._series: dict[Kinds, bool] = {}
        self._shapes: dict[tuple[Kinds, bool], Shapes] = {}

    def with_sampling(self, sampling: Sampling) -> Program:
        """The same graph, with other draws."""
        other = copy(self)
        other._sampling = sampling
        other._compiled, other._shapes = {}, {}
        return other

    def pairs(self, stds: Any, x1: list[Any], x2: list[Any] | None, kinds: Kinds) -> Blocks:
        """Kernels of all pairs of examples; ``x2=None`` is ``x1``."""
        # Inside a trace even operations on constants give tracers.
        if _traced(x1, x2, stds, jnp.zeros(())):
            out, _, lost = self._pairs(stds, x1, x2, None, kinds=kinds, careful=True)
            return self._poisoned(out, lost)
        staged = self._staged(kinds)
        count = max(x1[0].shape[0], (x2 or x1)[0].shape[0])
        need = self._bytes_per_pair(x1, kinds, staged=staged)
        size = self._tile(need, staged=staged)
        series = self._of_angle(stds, x1, x2, kinds)
        apart = count > size and not (staged or self.sampled)
        apart = apart and self._shaped(x1, kinds).alone.worthwhile(size)
        block = self._layers(stds, kinds, apart=apart)
        if series is not None:
            block = self._angles(series, block, size)
            # One product and few loops over its entries: nothing to keep in the caches.
            size = max(size, tile_size(angle.TILE, need, MEMORY))
        if count <= size:
            flat = whole(block, x1, x2, filled=self._fills and series is None)
        else:
            sizes = balanced(x1[0].shape[0], size), balanced((x2 or x1)[0].shape[0], size)
            ahead = not staged and 2 * math.prod(sizes) * need <= MEMORY
            name = " and ".join(kinds).upper()
            flat = tiled(block, x1, x2, sizes, name=name, ahead=ahead)
        self._require_finite(stds, x1, x2, kinds, first_bad(flat, symmetric=x2 is None))
        per = len(self.graph.outputs)
        return [flat[i : i + per] for i in range(0, len(flat), per)]

    def diagonal(self, stds: Any, x: list[Any], kinds: Kinds) -> Blocks:
        """Kernels of each example with itself."""
        run = lambda s, x, real: self._diagonal(s, x, kinds, real)
        count = x[0].shape[0]
        traced = _traced(x, stds, jnp.zeros(()))
        fills = self._fills and not traced and not self._staged(kinds)
        run = run if self._staged(kinds) else self._once((kinds, "diagonal"), run)
        out, lost = run(stds, filled_up(x) if fills else x, count)
        if traced:
            return self._poisoned(out, lost)
        self._refuse(lost, kinds)
        out = [[block[:count] for block in one] for one in out]
        bad = first_bad_example([block for one in out for block in one])
        self._require_finite(stds, x, None, kinds, None if bad is None else (bad, bad))
        return out

    def costs(self, leaves: list[Any], kinds: Kinds) -> Costs:
        """What each node's moments take, and the tiles that follow from it."""
        size = np.dtype(float_dtype(leaves)).itemsize
        layouts = self._shaped(leaves, kinds).layouts
        nodes = {
            key: (tied, -(-entries // _PAIRS) * size) for key, (tied, entries) in layouts.items()
        }
        staged = self._staged(kinds)
        pair = self._bytes_per_pair(leaves, kinds, staged=staged)
        return Costs(nodes, pair, self._tile(pair, staged=staged))

    def operations(self, stds: Any, x1: list[Any], x2: list[Any], kinds: Kinds) -> dict[str, float]:
        """What the compiler counts in one tile: ``flops``, and ``bytes accessed``.

        Nothing is evaluated. Of a network that is run step by step there is no such program.
        """
        run = lambda s, a, b, real: self._pairs(s, a, b, real, kinds=kinds, careful=False)
        sizes = x1[0].shape[0], x2[0].shape[0]
        found = jax.jit(run).lower(stds, x1, x2, sizes).compile().cost_analysis() or {}
        return {key: float(found[key]) for key in ("flops", "bytes accessed")}

    # ----------------------------------------------------------------- inside

    def _layers(self, stds: Any, kinds: Kinds, *, apart: bool = False) -> Block:
        """All pairs of two tiles, layer by layer; again with distances where some are close.

        ``apart`` says that what is asked of each example alone has a program of its own.
        """
        staged = self._staged(kinds)
        alone: dict[tuple, tuple[list[Any], Any]] = {}
        close, tiles = 0, 0

        def own(x: list[Any] | None, *, careful: bool) -> Any:
            if x is None or not apart:
                return None
            key = careful, *map(id, x)
            if key not in alone:
                one = partial(self._alone, kinds=kinds, careful=careful)
                # With the rows, lest other arrays take their places.
                alone[key] = x, self._once((kinds, careful, "alone"), one)(stds, x)
            return alone[key][1]

        def block(a: list[Any], b: list[Any] | None, real: tuple[int, int]) -> Started:
            nonlocal tiles

            def run(*, careful: bool) -> tuple[Blocks, Any, Any]:
                one = partial(self._pairs, kinds=kinds, careful=careful)
                one = one if staged else self._once((kinds, careful, apart), one)
                return one(stds, a, b, real, (own(a, careful=careful), own(b, careful=careful)))

            tiles += 1
            at_once = close >= CLOSE_TILES and tiles % TRIED_AGAIN > 0
            started = run(careful=at_once)

            def finish() -> list[Any]:
                nonlocal close
                out, near, lost = started
                self._refuse(lost, kinds)
                if not at_once:
                    again = bool(near) and self._activations.kinked()
                    close = close + 1 if again else 0
                    if again:
                        out, _, lost = run(careful=True)
                        self._refuse(lost, kinds)
                flat = [x for one in out for x in one]
                if self.sampled and not all(bool(jnp.all(jnp.isfinite(x))) for x in flat):
                    raise drawn_not_finite()
                return flat

            return finish

        return block

    def _alone(
        self, stds: Any, rows: list[Any], *, kinds: Kinds, careful: bool
    ) -> tuple[list[Any], Any]:
        side = Side(rows, rows[0].shape[0])
        ev = self._evaluation(stds, (side, side), kinds, careful=careful)
        with deep(len(self.graph.nodes)):
            return self._shaped(rows, kinds, careful=careful).alone.compute(ev, side.size)

    def _angles(self, series: angle.Series, layers: Block, size: int) -> Block:
        """All pairs of two tiles by a series; if some are opposite by layers, some at a time."""

        def block(a: list[Any], b: list[Any] | None, real: tuple[int, int]) -> Started:
            terms = jnp.asarray(series.coefficients, a[0].dtype)

            def run(*, careful: bool) -> tuple[list[Any], Any, Any]:
                how = {
                    "degrees": series.degrees, "powers": series.powers, "careful": careful
                }
                one = self._once(("angle", *how.values()), partial(kernels, **how))
                return one(terms, a[0], None if b is None else b[0], real)

            quick = run(careful=False)

            def finish() -> list[Any]:
                out, near, opposite = quick
                if not bool(opposite):
                    return run(careful=True)[0] if bool(near) else out
                counts = len(a[0]), len((b or a)[0])
                if max(counts) <= size:
                    return layers(a, b, real)()
                return tiled(layers, a, b, (balanced(counts[0], size), balanced(counts[1], size)))

            return finish

        return block

    def _of_angle(self, stds: Any, x1: list[Any], x2: list[Any] | None, kinds: Kinds) -> Any:
        """The kernels as a series in the angle of two inputs; None if they are no such function."""
        batches = [x1[0]] if x2 is None else [x1[0], x2[0]]
        dtype = float_dtype(x1)
        pairs = len(batches[0]) * len(batches[-1])
        if not self._angular or pairs * angle.layers(self.graph) < angle.WORK:
            return None
        if self._staged(kinds) or any(x.dtype != dtype or x.shape[-1] < 2 for x in batches):
            return None
        lengths = angle.Lengths.of(*batches)
        equal = lengths is not None and lengths.equal(dtype)
        if lengths is None or self._fits.declined((kinds, equal)):
            return None
        if not equal and angle.has_biases(self.graph):
            return None
        run = lambda s, a, b: self._pairs(s, [a], [b], None, kinds=kinds, careful=True)[0]
        wide = [np.asarray(s, float) for s in stds]
        size, features = np.dtype(dtype).itemsize, x1[0].shape[-1]

        def fit(often: bool) -> angle.Series | None:
            # Compiling takes as long as many evaluations step by step.
            chosen = self._once((kinds, "series"), run) if often else run

            def evaluate(a: Any, b: Any) -> list[Any]:
                with double_precision():
                    found = chosen(wide, a, b)
                return [x for one in found for x in one]

            return angle.Series.fitted(evaluate, features, lengths.most, size, equal=equal)

        values = features, size, lengths.most, *map(float, wide)
        return self._fits.of((kinds, equal), values, fit)

    @property
    def _fills(self) -> bool:
        """Whether a few more rows cost little, so that a new number of rows need not compile."""
        return positions(self.graph) == 1 and not self.sampled

    def _once(self, key: Any, run: Callable[..., Any]) -> Callable[..., Any]:
        if key not in self._compiled:
            self._compiled[key] = jax.jit(run)
        return self._compiled[key]

    def _staged(self, kinds: Kinds) -> bool:
        """Whether to run step by step, so that a series is compiled once for all layers.

        Closed forms are compiled together instead, into one program for the whole network.
        """
        if kinds not in self._series:
            nodes = [o.node for o in self.graph.outputs]
            self._series[kinds] = self._activations.series(nodes, derivative="ntk" in kinds)
        return self._series[kinds]

    def _tile(self, need: int, *, staged: bool) -> int:
        """Examples on each side of a tile, of so many bytes per pair."""
        largest = tile_size(TILE, need, MEMORY)
        if staged or self.sampled:
            return largest
        return tile_size(largest, need, max(CACHE, need))

    def _bytes_per_pair(self, leaves: list[Any], kinds: Kinds, *, staged: bool) -> int:
        """A bound on what one pair of examples needs while it is computed.

        Step by step every moment stays until the end; a compiled program lets go of them.
        """
        size = np.dtype(float_dtype(leaves)).itemsize
        if positions(self.graph) == 1 and not self.sampled:
            fields = sum(isinstance(x, n.Field) for x in self.graph.nodes)
            return (max(12, 4 * fields) if staged else 12) * size
        entries = [-(-count // _PAIRS) for count in self._shaped(leaves, kinds).entries]
        return max(sum(entries) if staged else _ALIVE * max(entries), 1) * size

    def _shaped(self, leaves: list[Any], kinds: Kinds, *, careful: bool = False) -> Shapes:
        key = kinds, careful
        if key in self._shapes:
            return self._shapes[key]
        two = [jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype) for x in leaves]
        stds = [jax.ShapeDtypeStruct((), float_dtype(leaves))] * len(self.graph.leaves)

        def run(stds: Any, a: Any, b: Any) -> None:
            sides = (Side(a, 2), Side(b, 2))
            ev = self._evaluation(stds, sides, kinds, careful=careful)
            with deep(len(self.graph.nodes)):
                for kind in kinds:
                    for out in self.graph.outputs:
                        pair_block(ev, out, kind)
            self._shapes[key] = Shapes(ev.sizes(), ev.layouts(), Alone.of(ev))

        jax.eval_shape(run, stds, two, two)
        return self._shapes[key]

    def _evaluation(self, stds: Any, sides: tuple[Side, Side], kinds: Kinds, **how: Any) -> Any:
        dtype = float_dtype([*sides[0].leaves, *sides[1].leaves])
        tangent = "ntk" in kinds
        return Evaluation(
            sides, stds, self._trainable, dtype, self._activations, with_tangent=tangent,
            sampling=self._sampling, entangled=self.entangled, **how,
        )

    def _pairs(
        self, stds: Any, a: Any, b: Any, real: Any, own: Any = (None, None), *, kinds: Kinds,
        careful: bool,
    ) -> tuple[Blocks, Any, Any]:
        """Kernels of all pairs, whether some are close, and which functions are undecided.

        ``own`` is what ``_alone`` has found for both sides.
        """
        found = [x for x in own if x is not None]
        given = None
        if found:
            alone = self._shaped(a, kinds, careful=careful).alone
            given = alone.given(*(arrays for arrays, _ in found))
        left = Side(a, a[0].shape[0])
        right = left if b is None else Side(b, b[0].shape[0])
        ev = self._evaluation(stds, (left, right), kinds, careful=careful, given=given)
        with deep(len(self.graph.nodes)):
            results = [[pair_block(ev, out, kind) for out in self.graph.outputs] for kind in kinds]
            lost = unsettled.flags(ev, self._watched, real)
        ev.drop_draws()
        flags = [
            has_close_pairs(x, y, real, symmetric=ev.symmetric) for x, y in _distinct(ev.close)
        ]
        flags += [*ev.empty, *(empty for _, empty in found)]
        close = jnp.any(jnp.stack(flags)) if flags else jnp.zeros((), bool)
        return results, close, lost

    def _diagonal(self, stds: Any, leaves: Any, kinds: Kinds, real: Any) -> tuple[Blocks, Any]:
        side = Side(leaves, leaves[0].shape[0])
        ev = self._evaluation(stds, (side, side), kinds)
        with deep(len(self.graph.nodes)):
            out = [[diagonal_block(ev, o, kind) for o in self.graph.outputs] for kind in kinds]
            lost = unsettled.flags(ev, self._watched, (real, real))
        ev.drop_draws()
        return out, lost

    def _refuse(self, lost: Any, kinds: Kinds) -> None:
        for node, flag in zip(self._watched, np.asarray(lost), strict=True):
            if flag:
                raise unsettled.refusal(node, tangents="ntk" in kinds)

    def _require_finite(
        self, stds: Any, x1: list[Any], x2: list[Any] | None, kinds: Kinds,
        bad: tuple[int, int] | None,
    ) -> None:
        """Refuse a kernel that is infinite or undefined for a pair of examples."""
        if bad is None:
            return

        def where() -> Where | None:
            for rows, k in zip((x1, x2 or x1), bad):
                side = Side([a[k : k + 1] for a in rows], 1)
                ev = self._evaluation(stds, (side, side), kinds)
                with deep(len(self.graph.nodes)):
                    found = culprit(ev, self.graph.nodes)
                if found is not None:
                    return found
            return None

        raise drawn_not_finite() if self.sampled else not_finite(bad, where())

    def _poisoned(self, out: Blocks, lost: Any) -> Blocks:
        """NaN for what would be refused, where nothing can be raised: inside of a trace."""
        if not self._watched:
            return out
        return [[jnp.where(jnp.any(lost), jnp.nan, block) for block in one] for one in out]


def _traced(*trees: Any) -> bool:
    return any(isinstance(v, jax.core.Tracer) for v in jax.tree.leaves(trees))


def _distinct(pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    seen: dict[tuple[int, int], tuple[Any, Any]] = {}
    for x, y in pairs:
        seen.setdefault((id(x), id(y)), (x, y))
    return list(seen.values())
