"""The tile engine: a function of pairs of rows, over all pairs, a tile at a time.

It knows nothing of networks. Tiles bound the memory of intermediate results, let a symmetric
matrix compute half of its tiles, and keep every call at one shape, so that it compiles once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

Rows = list[Any]
Block = Callable[[Rows, Rows | None, tuple[int, int]], list[Any]]
"""(rows of x1, rows of x2 or None for a tile on the diagonal, how many of each are real)
-> arrays (t1, t2, ...)."""

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


def whole(block: Block, x1: Rows, x2: Rows | None, *, filled: bool) -> list[Any]:
    """Evaluate ``block`` on all pairs of rows at once; ``filled`` up to a rounded size, and cut."""
    n1, n2 = x1[0].shape[0], (x1 if x2 is None else x2)[0].shape[0]
    if not filled:
        return block(x1, x2, (n1, n2))
    right = None if x2 is None else filled_up(x2)
    return [r[:n1, :n2] for r in block(filled_up(x1), right, (n1, n2))]


def filled_up(x: Rows) -> Rows:
    """Rows repeated to a rounded size."""
    return [_fill(a, rounded(a.shape[0])) for a in x]


def tiled(block: Block, x1: Rows, x2: Rows | None, size: int, *, name: str = "kernel") -> list[Any]:
    """Evaluate ``block`` on all pairs of rows.

    Parameters
    ----------
    block
        A function of two tiles of rows. With ``x2=None`` it is called with None for tiles on the
        diagonal, and the lower triangle is the transpose of the upper one: each result's axes
        after the first two must come in two equal halves, one per side.
    x1, x2
        Lists of arrays with a common leading axis; ``x2=None`` means ``x1``.
    size
        Rows per tile; the last tile is filled up with repeated rows, and cut.
    name
        What the progress bar says.

    Returns
    -------
    Arrays of shape (n1, n2, ...), on the host.
    """
    symmetric = x2 is None
    right = x1 if x2 is None else x2
    n1, n2 = x1[0].shape[0], right[0].shape[0]
    starts1, starts2 = range(0, n1, size), range(0, n2, size)
    pairs = [(i, j) for i in starts1 for j in starts2 if not symmetric or j >= i]
    out: list[np.ndarray] = []
    for i, j in watched(pairs, name):
        rows = _rows(x1, i, size)
        on_diagonal = symmetric and i == j
        a, b = min(size, n1 - i), min(size, n2 - j)
        results = block(rows, None if on_diagonal else _rows(right, j, size), (a, b))
        if not out:
            out = [np.empty((n1, n2, *r.shape[2:]), r.dtype) for r in results]
        for target, r in zip(out, results):
            part = np.asarray(r)[:a, :b]
            target[i : i + a, j : j + b] = part
            if symmetric and not on_diagonal:
                target[j : j + b, i : i + a] = _transposed(part)
    return [jax.numpy.asarray(t) for t in out]


def _rows(x: Rows, start: int, size: int) -> Rows:
    return [_fill(a[start : start + size], size) for a in x]


def _fill(a: Any, size: int) -> Any:
    missing = size - a.shape[0]
    if missing == 0:
        return a
    return jax.numpy.concatenate([a, jax.numpy.repeat(a[-1:], missing, axis=0)])


def _transposed(part: np.ndarray) -> np.ndarray:
    half = (part.ndim - 2) // 2
    first, second = range(2, 2 + half), range(2 + half, 2 + 2 * half)
    return np.transpose(part, (1, 0, *second, *first))


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
