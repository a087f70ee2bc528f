"""One kernel as compiled programs: the whole at once, or tile by tile under a memory bound."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.batches import length
from widelimit.tangent._axes import Axes
from widelimit.tangent._cost import Cost, cost
from widelimit.tangent._features import Products
from widelimit.tangent._problem import Arrays, Problem
from widelimit.tangent._vectors import Vectors
from widelimit.tiles import watched

METHODS = ("structured", "jacobian", "vector_products")

KEPT = 64
"""Programs that are remembered."""


class Program:
    """The kernel of one output by one method, for examples of one shape."""

    def __init__(
        self, p: Problem, number: int, axes: Axes, method: str, memory: int, *, apart: bool
    ) -> None:
        self.axes, self.apart, self.memory = axes, apart, memory
        self.dtype = p.outputs[number].dtype
        function = p.function(number)
        self.itemsize = jnp.dtype(self.dtype).itemsize
        self.count = len(p.chosen)
        if method == "vector_products":
            self.features: Any = Vectors(function, axes, self.dtype, memory // 2)
        else:
            self.features = Products(function, axes, self.dtype, dense=method == "jacobian")
        self._compiled: dict[Any, Any] = {}
        self._sizes: dict[tuple[int, int], int] = {}

    # ----------------------------------------------------------------- as functions

    def whole(self, arrays: Arrays, x1: Any, x2: Any) -> Any:
        """All pairs of two batches; x2=None is x1."""
        if x2 is None or isinstance(self.features, Vectors):
            first = self.features.of(arrays, x1)
            second = first if x2 is None else self.features.of(arrays, x2)
        else:
            first, second = self.features.both(arrays, x1, x2)
        return self.combined(arrays, first, second, (length(x1), length(x1 if x2 is None else x2)))

    def combined(self, arrays: Arrays, first: Any, second: Any, counts: tuple[int, int]) -> Any:
        """The kernel of two batches from what is kept of each."""
        if isinstance(self.features, Vectors):
            return self._columns(arrays, first, second)
        limit = self.memory / self.itemsize / 2
        parts = self.features.kernel(
            arrays.weights, first, second, counts, limit, apart=self.apart
        )
        return parts if self.apart else parts[0]

    def _columns(self, arrays: Arrays, first: Any, second: Any) -> Any:
        if not self.apart:
            return self.features.kernel(arrays, first, second)
        out = []
        for k in range(self.count):
            weights = tuple(
                w if j == k else jnp.zeros((), arrays.theta[j].dtype)
                for j, w in enumerate(arrays.weights)
            )
            alone = Arrays(arrays.theta, arrays.rest, arrays.constants, weights)
            out.append(self.features.kernel(alone, first, second))
        return out

    def estimate(self, arrays: Arrays, x1: Any, x2: Any) -> Cost:
        """What all pairs at once would cost."""
        return cost(jax.make_jaxpr(self.whole)(arrays, x1, x2))

    def kept(self, arrays: Arrays, x: Any) -> float:
        """Bytes that are kept of one example."""
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct((2, *a.shape[1:]), a.dtype), x)
        found = jax.tree.leaves(jax.eval_shape(self.features.of, arrays, one))
        return sum(math.prod(a.shape) * a.dtype.itemsize for a in found) / 2

    # ----------------------------------------------------------------- compiled

    def compiled(self, name: str, function: Any, *arguments: Any) -> Any:
        """A program for these shapes."""
        leaves, tree = jax.tree.flatten(arguments)
        key = (name, tree, tuple((a.shape, a.dtype) for a in leaves))
        if key not in self._compiled:
            self._compiled[key] = jax.jit(function).lower(*arguments).compile()
        return self._compiled[key]

    def run(self, arrays: Arrays, x1: Any, x2: Any, size: int | None = None) -> Any:
        """All pairs, with intermediate results within the bound on memory.

        Raises
        ------
        MemoryError
            If one pair of examples needs more.
        """
        n1, n2 = length(x1), length(x1 if x2 is None else x2)
        most = max(n1, n2)
        if size is None:
            if (n1, n2) not in self._sizes:
                self._sizes[n1, n2] = self._choose(arrays, x1, x2, most)
            size = self._sizes[n1, n2]
        if size >= most:
            return self.compiled("whole", self.whole, arrays, x1, x2)(arrays, x1, x2)
        return self._tiled(arrays, x1, x2, -(-most // -(-most // size)))

    def _choose(self, arrays: Arrays, x1: Any, x2: Any, most: int) -> int:
        """The size of tiles."""
        size = min(most, self._guess(arrays, x1))
        if size >= most:
            program = self.compiled("whole", self.whole, arrays, x1, x2)
            if _temporary(program) <= self.memory:
                return most
            if most == 1:
                self._refuse_beyond(_temporary(program))
            size = max(1, most // 2)
        return self._fitting(arrays, x1, size)

    def _refuse_beyond(self, need: float) -> None:
        if need > self.memory:
            msg = (
                f"one pair of examples needs {need / 1e9:.3g} GB, more than the bound of "
                f"{self.memory / 1e9:.3g} GB; raise memory=, name trace_axes or diagonal_axes, or "
                'take method="vector_products", whose memory does not grow with the outputs'
            )
            raise MemoryError(msg)

    def _guess(self, arrays: Arrays, x: Any) -> int:
        """The size of tiles whose parts fit, before anything is compiled."""
        kept = self.kept(arrays, x)
        pair = math.prod(self.axes.result) * self.itemsize * (self.count if self.apart else 1)
        room = float(self.memory)
        size = 1
        while 2 * (2 * size) * kept + (2 * size) ** 2 * pair <= 2 * room and size < 1 << 20:
            size *= 2
        return size

    def _fitting(self, arrays: Arrays, x: Any, size: int) -> int:
        while True:
            need = self._need(arrays, _rows(x, 0, size), size)
            if need <= self.memory:
                return size
            if size == 1:
                self._refuse_beyond(need)
            size = max(1, min(size // 2, int(size * math.sqrt(self.memory / need))))

    def _need(self, arrays: Arrays, x: Any, size: int) -> float:
        """Bytes that a pair of tiles of this size takes."""
        prepare = self.compiled("of", self.features.of, arrays, x)
        kept = jax.eval_shape(self.features.of, arrays, x)
        bytes_kept = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(kept))
        join = self.compiled("join", self._join(size), arrays, kept, kept)
        return max(_temporary(prepare), _temporary(join) + _outputs(join)) + 2 * bytes_kept

    def _join(self, size: int) -> Any:
        def join(arrays: Arrays, first: Any, second: Any) -> Any:
            return self.combined(arrays, first, second, (size, size))

        return join

    def _tiled(self, arrays: Arrays, x1: Any, x2: Any, size: int) -> Any:
        symmetric = x2 is None
        right = x1 if x2 is None else x2
        n1, n2 = length(x1), length(right)
        rows = range(0, n1, size)
        columns = range(0, n2, size)
        pairs = [(i, j) for i in rows for j in columns if not symmetric or j >= i]
        of = lambda x: self.compiled("of", self.features.of, arrays, x)(arrays, x)
        swap = self.axes.swapped()
        out: Any = None
        row, first = -1, None
        for i, j in watched(pairs, "tangent kernel"):
            if i != row:
                row, first = i, of(_rows(x1, i, size))
            on_diagonal = symmetric and i == j
            second = first if on_diagonal else of(_rows(right, j, size))
            join = self.compiled("join", self._join(size), arrays, first, second)
            parts = jax.tree.map(np.asarray, join(arrays, first, second))
            if out is None:
                out = jax.tree.map(lambda p: np.empty((n1, n2, *p.shape[2:]), p.dtype), parts)
            for target, p in zip(jax.tree.leaves(out), jax.tree.leaves(parts)):
                a, b = min(size, n1 - i), min(size, n2 - j)
                target[i : i + a, j : j + b] = p[:a, :b]
                if symmetric and not on_diagonal:
                    target[j : j + b, i : i + a] = np.transpose(p[:a, :b], swap)
        return jax.tree.map(jnp.asarray, out)


def _rows(x: Any, start: int, size: int) -> Any:
    """Examples, the last of them repeated to fill a tile."""

    def cut(a: Any) -> Any:
        part = a[start : start + size]
        missing = size - part.shape[0]
        if not missing:
            return part
        return jnp.concatenate([part, jnp.repeat(part[-1:], missing, axis=0)])

    return jax.tree.map(cut, x)


def _temporary(program: Any) -> float:
    """Bytes of intermediate results, where the compiler says so."""
    found = program.memory_analysis()
    return float(getattr(found, "temp_size_in_bytes", 0) or 0)


def _outputs(program: Any) -> float:
    found = program.memory_analysis()
    return float(getattr(found, "output_size_in_bytes", 0) or 0)
