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
    nothing = jnp.zeros((), array.dtype)
    total: Any = None
    for tap in range(windows[0].size):
        # One pad and one slice for each tap become one loop, with the sum; padded once for all
        # taps, the array would be written and read again.
        config, step = [(0, 0, 0)] * array.ndim, [1] * array.ndim
        for axis, w in zip(axes, windows, strict=True):
            count = w.outputs(array.shape[axis])
            low = w.low - tap * w.dilation
            seen = (count - 1) * w.stride + 1 if count else 0
            spread = max((array.shape[axis] - 1) * w.spacing + 1, 0)
            config[axis], step[axis] = (low, seen - low - spread, w.spacing - 1), w.stride
        piece = jax.lax.pad(array, nothing, config)
        if max(step) > 1:
            piece = jax.lax.slice(piece, [0] * array.ndim, piece.shape, step)
        total = piece if total is None else total + piece
    return total
