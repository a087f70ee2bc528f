"""Random keys, known by where they come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.priors._values import Keys, Known, Opaque, Value, Words


def constant(value: Any) -> Value:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        words = constant_words(np.asarray(jax.random.key_data(value)))
        return wrap(words)
    return Known(np.asarray(value))


def constant_words(array: np.ndarray) -> Words:
    out = np.empty(array.shape, object)
    for i in np.ndindex(array.shape[:-1]):
        token = ("constant", array[i].tobytes())
        for j in range(array.shape[-1]):
            out[(*i, j)] = (token, j)
    return Words(out)


def wrap(words: Words) -> Value:
    out = np.empty(words.tokens.shape[:-1], object)
    for i in np.ndindex(out.shape):
        row = words.tokens[i]
        token = row[0][0]
        if any(pair != (token, j) for j, pair in enumerate(row)):
            return Opaque("a random key is put together from the words of several keys")
        out[i] = token
    return Keys(out)


def each(array: np.ndarray, make: Callable[[Any], Any]) -> np.ndarray:
    out = np.empty(np.shape(array), object)
    for i in np.ndindex(out.shape):
        out[i] = make(array[i])
    return out


def nest(tokens: np.ndarray, shape: tuple[int, ...], make: Callable[[Any, int], Any]) -> np.ndarray:
    out = np.empty((*tokens.shape, *shape), object)
    for i in np.ndindex(tokens.shape):
        for flat, j in enumerate(np.ndindex(shape)):
            out[(*i, *j)] = make(tokens[i], flat)
    return out
