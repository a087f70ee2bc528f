"""The tile engine: a function of pairs of rows, over all pairs, a tile at a time.

It knows nothing of networks. Tiles bound the memory of intermediate results, let a symmetric
matrix compute half of its tiles, and keep every call at one shape, so that it compiles once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Rows = list[Any]
Started = Callable[[], list[Any]]
"""What waits for a block that has been started -> arrays (t1, t2, ...)."""
Block = Callable[[Rows, Rows | None, tuple[int, int]], Started]
"""(rows of x1, rows of x2 or None for a tile on the diagonal, how many of each are real)."""

PATIENCE = 1.0
"""Seconds after which a progress bar appears."""


def tile_size(limit: int, bytes_per_pair: int, memory: int) -> int:
    """The largest power of two at most ``limit`` whose square fits in ``memory`` bytes.

    Raises
    ------
    MemoryError
        If one pair alone does not fit.
    """
    if bytes_per_pair > memory:
        msg = (
            f"one pair of examples needs {bytes_per_pair / 1e9:.3g} GB, more than the bound of "
            f"{memory / 1e9:.3g} GB; reduce the positions of the output, or raise the bound"
        )
        raise MemoryError(msg)
    size = 1
    while size * 2 <= limit and (size * 2) ** 2 * bytes_per_pair <= memory:
        size *= 2
    return size


def rounded(count: int) -> int:
    """A size from a short list, at least ``count`` and at most a quarter larger.

    Few sizes are few programs to compile.
    """
    step = 1 << max(count.bit_length() - 3, 0)
    return -(-count // step) * step


def balanced(count: int, size: int) -> int:
    """The size, at most ``size``, of as many tiles that ``count`` rows fill best."""
    tiles = -(-count // size)
    return min(rounded(-(-count // tiles)), size)


def whole(block: Block, x1: Rows, x2: Rows | None, *, filled: bool) -> list[Any]:
    """Evaluate ``block`` on all pairs of rows at once; ``filled`` up to a rounded size, and cut."""
    n1, n2 = x1[0].shape[0], (x1 if x2 is None else x2)[0].shape[0]
    if not filled or (rounded(n1), rounded(n2)) == (n1, n2):
        return block(x1, x2, (n1, n2))()
    right = None if x2 is None else filled_up(x2)
    return _cut(block(filled_up(x1), right, (n1, n2))(), n1, n2)


def filled_up(x: Rows) -> Rows:
    """Rows repeated to a rounded size."""
    return _fill(x, rounded(x[0].shape[0]))


def tiled(
    block: Block, x1: Rows, x2: Rows | None, sizes: tuple[int, int], *, name: str = "kernel",
    ahead: bool = False,
) -> list[Any]:
    """Evaluate ``block`` on all pairs of rows.

    Parameters
    ----------
    block
        Starts a function of two tiles of rows. With ``x2=None`` it is called with None for tiles
        on the diagonal, and the lower triangle is the transpose of the upper one: each result's
        axes after the first two must come in two equal halves, one per side.
    x1, x2
        Lists of arrays with a common leading axis; ``x2=None`` means ``x1``.
    sizes
        Rows per tile on each side, equal where ``x2`` is None; the last tile is filled up with
        repeated rows, and cut.
    name
        What the progress bar says.
    ahead
        Whether a tile is started before the one before it is there, which keeps the processor
        busy, and takes the memory of two.

    Returns
    -------
    Arrays of shape (n1, n2, ...).
    """
    symmetric = x2 is None
    right = x1 if x2 is None else x2
    n1, n2 = x1[0].shape[0], right[0].shape[0]
    rows1 = _split(x1, sizes[0])
    rows2 = rows1 if symmetric else _split(right, sizes[1])
    real = lambda i, j: (min(sizes[0], n1 - i), min(sizes[1], n2 - j))
    pairs = [(i, j) for i in rows1 for j in rows2 if not symmetric or j >= i]
    out: list[Any] = []
    waiting: list[tuple[Started, int, int]] = []

    def settle() -> None:
        nonlocal out
        started, i, j = waiting.pop(0)
        results = started()
        if not out:
            out = [jnp.zeros((n1, n2, *r.shape[2:]), r.dtype) for r in results]
        parts = results if real(i, j) == sizes else _cut(results, *real(i, j))
        first, second = np.int32(i), np.int32(j)
        out = _put(out, parts, first, second)
        if symmetric and i != j:
            out = _put(out, _transposed(parts), second, first)

    for i, j in watched(pairs, name):
        columns = None if symmetric and i == j else rows2[j]
        waiting.append((block(rows1[i], columns, real(i, j)), i, j))
        if len(waiting) > ahead:
            settle()
    while waiting:
        settle()
    return out


def _split(x: Rows, size: int) -> dict[int, Rows]:
    """Tiles of rows by where they start."""
    starts = range(0, x[0].shape[0], size)
    return {i: _fill([a[i : i + size] for a in x], size) for i in starts}


@partial(jax.jit, static_argnums=1)
def _fill(x: Rows, size: int) -> Rows:
    missing = size - x[0].shape[0]
    return [jnp.concatenate([a, jnp.repeat(a[-1:], missing, axis=0)]) if missing else a for a in x]


@partial(jax.jit, static_argnums=(1, 2))
def _cut(blocks: list[Any], n1: int, n2: int) -> list[Any]:
    return [block[:n1, :n2] for block in blocks]


@partial(jax.jit, donate_argnums=0)
def _put(out: list[Any], parts: list[Any], i: Any, j: Any) -> list[Any]:
    """Write parts where they belong, in place."""
    start = lambda part: (i, j, *(jnp.zeros_like(i) for _ in part.shape[2:]))
    return [jax.lax.dynamic_update_slice(o, p, start(p)) for o, p in zip(out, parts)]


@jax.jit
def _transposed(parts: list[Any]) -> list[Any]:
    """The mirror images; a program of its own, as within an update it would go entry by entry."""

    def one(part: Any) -> Any:
        half = (part.ndim - 2) // 2
        first, second = range(2, 2 + half), range(2 + half, 2 + 2 * half)
        return jnp.transpose(part, (1, 0, *second, *first))

    return [one(part) for part in parts]


def watched(items: Sequence[Any], name: str) -> Iterator[Any]:
    """The items, with a progress bar once they take longer than a moment on a terminal."""
    begun = time.monotonic()
    bar = None
    try:
        for k, item in enumerate(items):
            yield item
            late = time.monotonic() - begun > PATIENCE
            if bar is None and late and k + 1 < len(items) and sys.stderr.isatty():
                from rich.console import Console
                from rich.progress import Progress

                bar = Progress(console=Console(stderr=True), transient=True)
                task = bar.add_task(name, total=len(items), completed=k)
                bar.start()
            if bar is not None:
                bar.update(task, completed=k + 1)
    finally:
        if bar is not None:
            bar.stop()
