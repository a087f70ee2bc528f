"""Gradient descent on half the squared error, with the best step chosen by validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from data import Draw

import widelimit as wl

BATCH, EVERY = 100, 100
STEPS = {"dense": 6000, "convolutional": 5000, "pooled": 5000}
PROBED = 100
"""Training images from which the largest eigenvalue of the tangent kernel is taken."""


class Trained(NamedTuple):
    """Outputs for the test images, at the best step by validation and at the last one."""

    best: np.ndarray
    last: np.ndarray
    validation: float
    steps: int
    fitted: float


def model_function(model: Any) -> tuple[Callable[[Any, Any], Any], Any]:
    """A function of (parameters, one example), and the parameters."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    return lambda p, x: eqx.combine(p, static)(x), params


def critical_rate(model: Any, x: Any) -> float:
    """The learning rate at which the linearised network stops converging: 2 over the eigenvalue.

    The loss is averaged over examples, so that the kernel's eigenvalue is divided by their number.
    """
    f, params = model_function(model)
    operator = wl.ntk_operator(f, params, jnp.asarray(x[:PROBED]))
    bound = wl.dynamics.largest_learning_rate(operator, steps=32)
    return bound.most * min(PROBED, len(x))


def train(
    model: Any, draw: Draw, name: str, rate: float, seed: int, *, decay: float = 0.0,
    centred: bool = False,
) -> Trained | None:
    """Train in batches of 100; None if the loss diverges.

    ``centred`` trains f(θ) - f(θ₀); ``decay`` adds decay/2 |θ|² to the loss.
    """
    f, params = model_function(model)
    many = jax.vmap(f, (None, 0))
    shift = lambda x: many(params, x) if centred else 0.0
    sets = {k: (jnp.asarray(p.x), jnp.asarray(p.y)) for k, p in draw._asdict().items()}
    start = {k: shift(x) for k, (x, _) in sets.items()}
    targets = sets["train"][1] + start["train"]

    def loss(p: Any, x: Any, y: Any) -> Any:
        norm = sum(jnp.sum(v**2) for v in jax.tree.leaves(p))
        return jnp.sum((many(p, x) - y) ** 2) / (2 * BATCH) + decay / 2 * norm

    @jax.jit
    def step(p: Any, rows: Any) -> Any:
        slope = jax.grad(loss)(p, sets["train"][0][rows], targets[rows])
        return jax.tree.map(lambda v, g: v - rate * g, p, slope)

    outputs = jax.jit(many)
    evaluate = lambda p, part: np.asarray(outputs(p, sets[part][0]) - start[part])
    now, best, found = params, -1.0, (None, 0)
    for k, rows in enumerate(batches(len(targets), STEPS[name], seed)):
        # A loop inside of the program would run convolutions without their fast routines.
        for one in rows:
            now = step(now, one)
        out = evaluate(now, "validation")
        if not np.all(np.isfinite(out)):
            return None
        score = accuracy(out, draw.validation.labels)
        if score > best:
            best, found = score, (evaluate(now, "test"), (k + 1) * EVERY)
    fitted = accuracy(evaluate(now, "train"), draw.train.labels)
    return Trained(found[0], evaluate(now, "test"), best, found[1], fitted)


def batches(count: int, steps: int, seed: int) -> Any:
    """Rows of each step, epoch by epoch, shape (steps / 100, 100, batch)."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.permutation(count) for _ in range(-(-steps * BATCH // count))])
    return jnp.asarray(rows[: steps * BATCH].reshape(steps // EVERY, EVERY, BATCH))


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """The share of examples whose largest output is that of their class."""
    return float(np.mean(np.argmax(outputs, 1) == labels))
