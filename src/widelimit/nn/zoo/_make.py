"""Layers with common options, each with a random key of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import equinox as eqx
import jax

from widelimit.nn._attention import Attention
from widelimit.nn._conv import Conv
from widelimit.nn._embedding import Embedding, Positions
from widelimit.nn._layers import Linear
from widelimit.nn._spatial import Positionwise


class Make:
    """Makes the layers of one network, so that its lines show nothing but the architecture."""

    def __init__(self, key: jax.Array, **options):
        self.options = options
        self._keys = _keys(key)

    def linear(self, inputs: int, outputs: int) -> Linear:
        """A dense layer."""
        return Linear(inputs, outputs, key=next(self._keys), **self.options)

    def conv(self, inputs: int, outputs: int, size: int = 3, strides: int = 1, **how) -> Conv:
        """A two-dimensional convolution with a square window."""
        window = (size, size)
        key = next(self._keys)
        return Conv(inputs, outputs, window, strides=strides, key=key, **how, **self.options)

    def attention(self, features: int, **how) -> Attention:
        """Self-attention."""
        return Attention(features, key=next(self._keys), **how, **self.options)

    def embedding(self, vocabulary: int, features: int) -> Embedding:
        """A vector for each token."""
        return Embedding(vocabulary, features, key=next(self._keys), **self._weights())

    def positions(self, length: int, features: int) -> Positions:
        """A vector for each position."""
        return Positions(length, features, key=next(self._keys), **self._weights())

    def norm(self, features: int) -> Callable:
        """Layer normalisation of the vector at each position."""
        return Positionwise(eqx.nn.LayerNorm(features))

    def _weights(self) -> dict:
        return {k: v for k, v in self.options.items() if k != "bias_std"}


def _keys(key: jax.Array) -> Iterator[jax.Array]:
    while True:
        key, one = jax.random.split(key)
        yield one
