"""What networks on images and sequences need besides weights: pooling, flattening, norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
from jaxtyping import Array, Float


class AvgPool(eqx.Module):
    """Averages over windows of the spatial axes, channels last, without padding.

    Parameters
    ----------
    window
        Size in each spatial dimension.
    strides
        Steps between windows; those of ``window`` by default.
    """

    window: tuple[int, ...] = eqx.field(static=True)
    strides: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, window: Sequence[int], strides: Sequence[int] | None = None):
        self.window = tuple(window)
        self.strides = self.window if strides is None else tuple(strides)

    def __call__(
        self, x: Float[Array, "*space channels"], *, key: jax.Array | None = None
    ) -> Float[Array, "*outspace channels"]:
        """Pool one example; ``key`` is ignored."""
        del key
        window, strides = (*self.window, 1), (*self.strides, 1)
        total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, "VALID")
        return total / math.prod(self.window)


class Positionwise(eqx.Module):
    """A layer of one vector, such as ``eqx.nn.LayerNorm(features)``, at each position.

    Parameters
    ----------
    layer
        Applied to every vector along the last axis, with the same weights.
    """

    layer: Callable

    def __call__(
        self, x: Float[Array, "*positions inputs"], *, key: jax.Array | None = None
    ) -> Float[Array, "*positions outputs"]:
        """Apply the layer everywhere in one example; ``key`` is ignored."""
        del key
        layer = self.layer
        for _ in range(x.ndim - 1):
            layer = jax.vmap(layer)
        return layer(x)


def global_average(x: Float[Array, "*positions channels"]) -> Float[Array, " channels"]:
    """The mean over every axis but the last."""
    return x.mean(tuple(range(x.ndim - 1)))


def flatten(x: Float[Array, "*shape"]) -> Float[Array, " size"]:
    """One axis in place of all."""
    return x.reshape(-1)
