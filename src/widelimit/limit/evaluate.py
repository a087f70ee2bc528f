"""The state of one evaluation: two batches of examples, and everything computed so far.

Every quantity is asked for, not pushed: the output asks for the moments it needs, for the pairs
(x1 with x2) and for each example with itself, with or without cross-position blocks.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.errors import MisalignedWidthError
from widelimit.graph import nodes as n
from widelimit.graph.entangled import Entangled
from widelimit.graph.walk import reachable
from widelimit.limit.place import place

if TYPE_CHECKING:
    from widelimit.limit.activations import Activations

Pairing = Literal["cross", "left", "right", "first", "second"]
"""Both batches; each example with itself; and the latter once more for every pair."""
ZERO = None
"""A moment that vanishes identically."""

PENDING = object()
"""A moment that is being computed: to meet it again is to go in circles."""

Rule = Callable[..., Any]


@dataclass(frozen=True)
class Sampling:
    """How many draws the integrals over random attention logits take, and from which seed."""

    draws: int = 1024
    seed: int = 0


@dataclass
class Side:
    """One batch of examples."""

    leaves: list[Any]
    size: int
    values: dict[int, Any] = field(default_factory=dict)


class Evaluation:
    """Moments and tangent kernels of a graph's nodes on two batches.

    Parameters
    ----------
    sides
        The two batches; the same object twice for a symmetric evaluation.
    stds
        The standard deviation of each parameter.
    trainable
        Whether each parameter is trained.
    dtype
        The floating type of all results.
    with_tangent
        Whether tangent kernels will be asked for.
    careful
        Whether squared distances are carried beside the moments, so that near-duplicate inputs
        keep all their digits, and variables without variance are looked at by themselves. If
        not, ``close`` collects the inputs of pairs, and ``empty`` flags, that say whether this
        was needed.
    sampling
        How integrals without a closed form are drawn.
    entangled
        Which fields are drawn.
    given
        Moments and means of each example with itself that are known already, by their keys: those
        of ``asked`` and the pairing (of a moment) or the side (of a mean).

    Attributes
    ----------
    asked
        What was asked of examples with themselves for something else than such a quantity, and a
        function that asks another evaluation for it, of its left side.
    """

    def __init__(
        self,
        sides: tuple[Side, Side],
        stds: Sequence[Any],
        trainable: Sequence[bool],
        dtype: Any,
        activations: Activations,
        *,
        with_tangent: bool,
        careful: bool = True,
        sampling: Sampling | None = None,
        entangled: Entangled | None = None,
        given: Mapping[tuple, Any] | None = None,
    ) -> None:
        self.sides = sides
        self.symmetric = sides[0] is sides[1]
        self.stds = stds
        self.trainable = trainable
        self.dtype = dtype
        self.activations = activations
        self.with_tangent = with_tangent
        self.careful = careful
        self.sampling = sampling or Sampling()
        self.entangled = entangled or Entangled()
        self.close: list[Any] = []
        self.empty: list[Any] = []
        self.asked: dict[tuple, Callable[[Evaluation], Any]] = {}
        self._alone = 0
        self._memo: dict[tuple, Any] = dict(given or {})
        self._made: dict[tuple, Any] = {}
        self._relations: dict[tuple[int, int], bool] = {}
        self._constants: dict[int, bool] = {}

    # ----------------------------------------------------------------- batches

    @staticmethod
    def batch(pairing: Pairing) -> int:
        """The number of batch axes."""
        return 1 if pairing in ("left", "right") else 2

    def side_of(self, operand: int, pairing: Pairing) -> int:
        """Which batch the left (0) or right (1) operand of a pairing is read from."""
        if pairing == "cross":
            return operand
        return 0 if pairing in ("left", "first") or self.symmetric else 1

    @staticmethod
    def alone(operand: int, pairing: Pairing) -> Pairing:
        """The pairing of an operand's examples with themselves."""
        if pairing == "cross":
            return "left" if operand == 0 else "right"
        return pairing

    def into(self, array: Any, operand: int, pairing: Pairing) -> Any:
        """Give an array with one batch axis the batch axes of a pairing."""
        match pairing:
            case "cross":
                return jnp.expand_dims(array, 1 - operand)
            case "first" | "second":
                return jnp.expand_dims(array, 1 if pairing == "first" else 0)
        return array

    # ----------------------------------------------------------------- values

    def value(self, node: n.Value, side: int) -> Any:
        """A value for every example, shape (n or 1, *shape)."""
        memo = self.sides[side].values
        if id(node) not in memo:
            memo[id(node)] = self._cast(self._value(node, side))
        return memo[id(node)]

    def _cast(self, array: Any) -> Any:
        array = jnp.asarray(array)
        return array.astype(self.dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array

    def _value(self, node: n.Value, side: int) -> Any:
        match node:
            case n.Constant(array=array):
                return jnp.asarray(array)[None]
            case n.Input(number=number, shape=shape):
                leaf = self.sides[side].leaves[number]
                return leaf.reshape(leaf.shape[0], *shape)
            case n.OneHot(index=index, shape=shape):
                i = self.value(index, side)[..., None]
                inside = (i >= 0) & (i < shape[-1])
                return jnp.where(inside, (i == jnp.arange(shape[-1])).astype(self.dtype), jnp.nan)
            case n.Expectation(operand=operand):
                block = self.mean(operand, side)
                return jnp.broadcast_to(block, (block.shape[0], *node.shape))
            case n.Compute(function=function, arguments=arguments):
                blocks = [self.value(a, side) for a in arguments]
                one = [x.shape[0] == 1 and self.sides[side].size != 1 for x in blocks]
                if all(x.shape[0] == 1 for x in blocks):
                    return jnp.asarray(function(*(x[0] for x in blocks)))[None]
                inputs = [x[0] if o else x for x, o in zip(blocks, one)]
                return jax.vmap(function, in_axes=[None if o else 0 for o in one])(*inputs)
        msg = f"no value for {type(node).__name__}"
        raise TypeError(msg)

    def value_at(
        self, node: n.Value, targets: Sequence[int], rank: int, operand: int, pairing: Pairing
    ) -> Any:
        """A value in the axes of a moment."""
        array = self.value(node, self.side_of(operand, pairing))
        return place(self.into(array, operand, pairing), self.batch(pairing), targets, rank)

    # ----------------------------------------------------------------- means

    def mean(self, node: n.Node, side: int) -> Any:
        """The mean of a field, shape (n or 1, *shape); zeros are full arrays here."""
        from widelimit.limit.means import mean

        key = ("mean", id(node), 0 if self.symmetric else side)
        if not self._alone:
            self.asked.setdefault(key[:-1], lambda ev: ev.mean(node, 0))
        if key not in self._memo:
            self._alone += 1
            try:
                out = mean(self, node, side)
            finally:
                self._alone -= 1
            if out is ZERO:
                out = jnp.zeros((1,) * (1 + len(node.shape)), self.dtype)
            self._memo[key] = out
        return self._memo[key]

    def mean_at(
        self, node: n.Node, targets: Sequence[int], rank: int, operand: int, pairing: Pairing
    ) -> Any:
        """The mean of a node in the axes of a moment, or ZERO."""
        if isinstance(node, n.Value):
            return self.value_at(node, targets, rank, operand, pairing)
        if n.zero_mean(node):
            return ZERO
        array = self.mean(node, self.side_of(operand, pairing))
        return place(self.into(array, operand, pairing), self.batch(pairing), targets, rank)

    # ----------------------------------------------------------------- pairs

    def at(
        self,
        kind: Rule,
        a: n.Node,
        a_targets: Sequence[int],
        b: n.Node,
        b_targets: Sequence[int],
        rank: int,
        pairing: Pairing,
    ) -> Any:
        """``kind(a, b)`` in the axes of a larger moment; equal targets are tied axes."""
        if pairing == "right" and self.symmetric:
            pairing = "left"
        if pairing in ("first", "second") and not self.is_drawn_for_pairs(a, b):
            own: Pairing = "left" if pairing == "first" else "right"
            return self._into_all(
                self.at(kind, a, a_targets, b, b_targets, rank, own), pairing
            )
        ties = tuple(
            a_targets.index(t) if t in a_targets else None  # type: ignore[attr-defined]
            for t in b_targets
        )
        key = (kind.__name__, id(a), id(b), ties, pairing)
        free = iter(range(len(a.shape), len(a.shape) + len(b.shape)))
        first = tuple(range(len(a.shape)))
        other = tuple(t if t is not None else next(free) for t in ties)
        count = len(first) + sum(t is None for t in ties)
        alone = pairing in ("left", "right")
        if alone and not self._alone:
            ask = lambda ev: ev.at(kind, a, first, b, other, count, "left")
            self.asked.setdefault(key[:-1], ask)
        if key not in self._memo:
            self._memo[key] = PENDING
            self._alone += alone
            try:
                self._memo[key] = kind(self, a, first, b, other, count, pairing)
            finally:
                self._alone -= alone
                if self._memo[key] is PENDING:
                    del self._memo[key]
        out = self._memo[key]
        if out is PENDING:
            raise MisalignedWidthError(
                "two arrangements of one random field meet, and no rule relates them",
                why="the same random numbers are positions in one place and channels in another.",
                remedy="arrange both in the same way, or sample finite networks instead.",
                where=getattr(a, "where", None) or getattr(b, "where", None),
            )
        if out is ZERO:
            return ZERO
        targets = [*a_targets, *(t for t, tie in zip(b_targets, ties) if tie is None)]
        if isinstance(out, tuple):
            put = (x if x is ZERO else place(x, self.batch(pairing), targets, rank) for x in out)
            return tuple(put)
        return place(out, self.batch(pairing), targets, rank)

    def is_drawn_for_pairs(self, a: n.Node, b: n.Node) -> bool:
        """Whether a moment of one example depends on draws, which every pair has of its own."""
        above = self.entangled.above
        several = any(isinstance(x, n.Field) and x.several for x in (a, b))
        return not several and (id(a) in above or id(b) in above)

    def is_entangled(self, node: n.Node) -> bool:
        """Whether a field is drawn."""
        return id(node) in self.entangled.fields

    def _into_all(self, out: Any, pairing: Pairing) -> Any:
        if isinstance(out, tuple):
            return tuple(x if x is ZERO else self.into(x, 0, pairing) for x in out)
        return out if out is ZERO else self.into(out, 0, pairing)

    def once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """What is made when it is first asked for, and kept."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def drop_draws(self) -> None:
        """Let go of what refers back to the evaluation, and takes most of its memory."""
        self._made.clear()

    def sizes(self) -> list[int]:
        """The numbers of entries of all moments and draws computed so far."""
        drawn = [x for made in self._made.values() for x in getattr(made, "arrays", [])]
        moments = jax.tree.leaves(list(self._memo.values()))
        arrays = [x for x in (*moments, *drawn) if hasattr(x, "shape")]
        return [int(np.prod(x.shape, dtype=np.int64)) for x in arrays]

    def work(self) -> tuple[int, int]:
        """The entries of moments of examples with themselves, and of those for pairs."""
        alone, pairs = 0, 0
        for key, value in self._memo.items():
            entries = sum(math.prod(x.shape) for x in jax.tree.leaves(value) if hasattr(x, "shape"))
            if key[0] == "mean" or key[-1] in ("left", "right"):
                alone += entries
            else:
                pairs += entries
        return alone, pairs

    def layouts(self) -> dict[int, tuple[tuple[bool, ...], int]]:
        """What was asked of each node with itself, by the node's id.

        Which position axes were tied in all of its moments across examples, and how many entries
        these have together.
        """
        found: dict[int, tuple[tuple[bool, ...], int]] = {}
        for key, value in self._memo.items():
            if key[0] in ("mean", "gathered"):
                continue
            _, a, b, ties, pairing = key
            blocks = [x for x in jax.tree.leaves(value) if hasattr(x, "shape")]
            if a != b or pairing != "cross" or not blocks:
                continue
            entries = sum(int(np.prod(x.shape, dtype=np.int64)) for x in blocks)
            tied = tuple(t is not None for t in ties)
            before, sofar = found.get(a, (tied, 0))
            found[a] = (tuple(x and y for x, y in zip(before, tied)), sofar + entries)
        return found

    def trains_constants(self, node: n.Node) -> bool:
        """Whether parameters that start as constants, and are not random, are below a node."""
        if id(node) not in self._constants:
            below = reachable([node])
            self._constants[id(node)] = any(isinstance(x, n.Tangent) for x in below)
        return self._constants[id(node)]

    def related(self, a: n.Node, b: n.Node) -> bool:
        """Whether two nodes share random numbers at their own layer."""
        key = (id(a), id(b))
        if key not in self._relations:
            self._relations[key] = n.related(a, b)
        return self._relations[key]

    def variance(self, leaf: int) -> Any:
        """The variance of a parameter's entries."""
        return jnp.asarray(self.stds[leaf], self.dtype) ** 2


@contextmanager
def deep(nodes: int) -> Iterator[None]:
    """Let the recursion go through a graph of so many nodes.

    A layer takes a dozen or so calls from Python to Python, which need no stack of the machine.
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 2000 + 40 * nodes))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def add(a: Any, b: Any) -> Any:
    """The sum, where ZERO is nothing."""
    if a is ZERO:
        return b
    return a if b is ZERO else a + b


def times(*factors: Any) -> Any:
    """The product, where ZERO is absorbing and truth values select.

    A mask leaves 0 of what is not finite, such as a mean over no tokens.
    """
    if any(f is ZERO for f in factors):
        return ZERO
    out: Any = 1.0
    masks = [f for f in factors if is_mask(f)]
    for f in factors:
        if not is_mask(f):
            out = f if isinstance(out, float) and out == 1.0 else out * f
    for mask in masks:
        out = jnp.where(mask, out, 0)
    return out


def is_mask(factor: Any) -> bool:
    """Whether a factor consists of truth values."""
    return hasattr(factor, "dtype") and jnp.issubdtype(factor.dtype, jnp.bool_)


def barrier(array: Any) -> Any:
    """Keep layers apart: fused into each other, the lower ones are computed for every use."""
    if array is ZERO or not isinstance(array, jax.core.Tracer):
        return array
    return jax.lax.optimization_barrier(array)
