"""Fashion-MNIST: convolutional kernels beside dense ones and trained convolutional networks."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import training

import widelimit as wl
from kernels import Classes

FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES, PATCH, WIDTH = 10, 4, 32
SIZES = {"flattened": (300, 2000), "pooled": (300,)}
TESTED = {300: 500, 2000: 2000}
STEPS = {300: 600, 2000: 1200}


def images(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images between 0 and 1 with a channel axis, and labels."""
    pixels = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    x = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28, 1) / 255.0
    return x.astype(np.float32), np.frombuffer(labels, np.uint8, offset=8).astype(int)


def network(top: str, width: int, key: Any, **how: Any) -> Any:
    """Patches of 4 × 4, three 3 × 3 convolutions, ReLU, and a readout."""
    keys = jax.random.split(key, 5)
    size = (28 // PATCH) ** 2 * width if top == "flattened" else width
    last = {"flattened": wl.nn.flatten, "pooled": wl.nn.global_average}[top]
    out = {**how, "weight_std": 1.0}
    layers = [wl.nn.Conv(1, width, (PATCH, PATCH), strides=PATCH, key=keys[0], **how), jax.nn.relu]
    for k in keys[1:4]:
        layers += [wl.nn.Conv(width, width, (3, 3), key=k, **how), jax.nn.relu]
    return wl.nn.Sequential([*layers, last, wl.nn.Linear(size, CLASSES, key=keys[4], **out)])


def rows(folder: Path | None, seeds: int, done: Any) -> Iterator[dict[str, Any]]:
    """One result for each method, number of images and draw of the training images."""
    x, labels = images(folder or FOLDER, "train")
    x_test, labels_test = images(folder or FOLDER, "t10k")
    x, x_test = ((v - x.mean()) / x.std() for v in (x, x_test))
    for seed in range(seeds):
        for n, count in TESTED.items():
            rng = np.random.default_rng(seed)
            chosen = rng.choice(len(x), n, replace=False)
            tested = rng.choice(len(x_test), count, replace=False)
            base = {"task": "Fashion-MNIST", "n": n, "tested": count, "seed": seed}
            draw = Classes(base, labels[chosen], labels_test[tested], CLASSES, done)
            yield from of_draw(draw, x[chosen], x_test[tested])


def of_draw(draw: Classes, x: np.ndarray, x_test: np.ndarray) -> Iterator[dict[str, Any]]:
    """One result for each method."""
    key, n = jax.random.key(draw.base["seed"]), draw.base["n"]
    flat = lambda v: v.reshape(len(v), -1)
    dense = wl.nn.mlp(784, CLASSES, 512, 3, weight_std=2**0.5, key=key)
    yield from draw.of_kernel("dense kernel", wl.kernel(dense), flat(x), flat(x_test))
    for top, sizes in SIZES.items():
        if n in sizes:
            wide = wl.kernel(network(top, 64, key, weight_std=2**0.5, bias_std=0.1))
            yield from draw.of_kernel(f"convolutional kernel, {top}", wide, x, x_test)
    how = {"parameterization": "standard", "weight_std": 2**0.5, "bias_std": 0.0}
    for top, sizes in SIZES.items():
        name = f"trained network of width {WIDTH}, {top}"
        if n in sizes and not draw.done(draw.base, name):
            model = network(top, WIDTH, key, **how)
            a, b = jnp.asarray(x), jnp.asarray(x_test)
            out = training.classify(model, a, draw.train, b, key, STEPS[n])
            yield draw.result(name, *out)
