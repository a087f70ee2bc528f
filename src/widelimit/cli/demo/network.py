"""The network of the demonstration, in plain JAX, as a user would write it."""

from __future__ import annotations

import inspect
import itertools

import jax
import jax.numpy as jnp


def network(params, image):
    """Two hidden layers of any width; the sizes are those of the arrays."""
    *hidden, (weight, bias) = params
    h = image
    for w, b in hidden:
        h = jax.nn.relu(w @ h * (2 / h.size) ** 0.5 + 0.1 * b)
    return weight @ h / h.size**0.5 + 0.1 * bias


def parameter_shapes(width: int, inputs: int, classes: int) -> list:
    """Abstract parameters: pairs of a weight and a bias for each layer."""
    sizes = [inputs, width, width, classes]
    make = jax.ShapeDtypeStruct
    return [
        (make((b, a), jnp.float32), make((b,), jnp.float32))
        for a, b in itertools.pairwise(sizes)
    ]


def source() -> str:
    """The network's own lines."""
    return inspect.getsource(network)
