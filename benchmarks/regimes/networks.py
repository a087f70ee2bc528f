"""Three networks for small images, each written once for training and for its limit."""

from __future__ import annotations

from typing import Any

import jax
from data import CLASSES, SIZE

import widelimit as wl

WIDTHS = {"dense": 512, "convolutional": 32, "pooled": 32}
STRIDE = 2
SCALES = {"weight_std": 2**0.5, "bias_std": 0.1}


def network(name: str, parameterization: str, key: Any) -> Any:
    """Three hidden layers with ReLU: dense, or 3 × 3 convolutions that end flattened or pooled."""
    how = {**SCALES, "parameterization": parameterization}
    width = WIDTHS[name]
    keys = jax.random.split(key, 4)
    if name == "dense":
        sizes = (SIZE * SIZE, width, width, width)
        layers = [wl.nn.flatten]
        for k, a, b in zip(keys, sizes, sizes[1:]):
            layers += [wl.nn.Linear(a, b, key=k, **how), jax.nn.relu]
        last = width
    else:
        layers = []
        for k, a, strides in zip(keys, (1, width, width), (STRIDE, 1, 1)):
            layers += [wl.nn.Conv(a, width, (3, 3), strides=strides, key=k, **how), jax.nn.relu]
        pooled = name == "pooled"
        layers.append(wl.nn.global_average if pooled else wl.nn.flatten)
        last = width if pooled else width * (SIZE // STRIDE) ** 2
    return wl.nn.Sequential([*layers, wl.nn.Linear(last, CLASSES, key=keys[3], **how)])
