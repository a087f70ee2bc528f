"""Windows that walk along an axis: how the taps of a convolution meet the positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Window:
    """The taps of a kernel along one axis: output o sees input o·stride + t·dilation − low.

    ``spacing`` is the dilation of the input: that many places from one entry to the next, the
    others zero. Beyond the ends there are ``low`` and ``high`` zeros; negative ones cut.
    """

    size: int
    stride: int = 1
    low: int = 0
    high: int = 0
    spacing: int = 1
    dilation: int = 1

    def outputs(self, length: int) -> int:
        """The number of places on an axis of this length."""
        padded = self.low + max((length - 1) * self.spacing + 1, 0) + self.high
        return max((padded - (self.size - 1) * self.dilation - 1) // self.stride + 1, 0)

    @property
    def trivial(self) -> bool:
        """Whether every output is the input at its own place."""
        return self == Window(1)


def window_sum(array: Any, axes: tuple[int, ...], windows: tuple[Window, ...]) -> Any:
    """Σ over taps of an array whose ``axes`` are all moved by the same tap.

    For one axis this is a sum pooling; for two axes it is the effect of one random kernel on a
    covariance, Σ_t M[i + t, j + t].
    """
    config = [(0, 0, 0)] * array.ndim
    for axis, w in zip(axes, windows, strict=True):
        config[axis] = (w.low, w.high, w.spacing - 1)
    counts = [w.outputs(array.shape[a]) for a, w in zip(axes, windows)]
    padded = jax.lax.pad(array, jnp.zeros((), array.dtype), config)
    total: Any = None
    for tap in range(windows[0].size):
        start, stop, step = [0] * array.ndim, list(padded.shape), [1] * array.ndim
        for axis, w, count in zip(axes, windows, counts):
            first = tap * w.dilation
            start[axis], step[axis] = first, w.stride
            stop[axis] = first + (count - 1) * w.stride + 1 if count else first
        piece = jax.lax.slice(padded, start, stop, step)
        total = piece if total is None else total + piece
    return total
