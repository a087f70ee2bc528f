"""Training the demonstration's network at finite width, several networks at once."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from widelimit.cli.demo.data import Digits
from widelimit.cli.demo.network import network, parameter_shapes

MOMENTUM = 0.97
_CHUNK = 25
_batched = jax.vmap(network, (None, 0))


def train(
    data: Digits,
    width: int,
    networks: int,
    steps: int,
    rate: float,
    seed: int,
    advance: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray]:
    r"""Train networks by full-batch gradient descent with momentum on the squared loss.

    The loss is :math:`\frac12 \sum_i |f_\theta(x_i) - f_{\theta_0}(x_i) - y_i|^2`: each network
    is taken relative to its own initial function, so that all have the same limit as the width
    grows.

    Parameters
    ----------
    rate
        Learning rate of plain gradient descent.
    advance
        Called with the number of steps done since the last call.

    Returns
    -------
    Predictions for the test images, shape (networks, m, classes), and the root of the mean
    squared residual on the training images, shape (networks,).
    """
    x, y = jnp.asarray(data.x_train, jnp.float32), jnp.asarray(data.y_train, jnp.float32)
    x_test = jnp.asarray(data.x_test, jnp.float32)
    optimiser = optax.sgd(rate, momentum=MOMENTUM, nesterov=True)

    def initial(key: jax.Array) -> list:
        shapes, structure = jax.tree.flatten(parameter_shapes(width, x.shape[1], y.shape[1]))
        keys = jax.random.split(key, len(shapes))
        return jax.tree.unflatten(
            structure, [jax.random.normal(k, s.shape, s.dtype) for k, s in zip(keys, shapes)]
        )

    def loss(params: list, start: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum((_batched(params, x) - start - y) ** 2)

    def chunk(params: list, state: optax.OptState, start: jax.Array) -> tuple:
        def step(carry: tuple, _: None) -> tuple:
            params, state = carry
            moves, state = optimiser.update(jax.grad(loss)(params, start), state, params)
            return (optax.apply_updates(params, moves), state), None

        return jax.lax.scan(step, (params, state), length=_CHUNK)[0]

    begin = jax.vmap(initial)(jax.random.split(jax.random.key(seed), networks))
    start, start_test = jax.jit(jax.vmap(lambda p: (_batched(p, x), _batched(p, x_test))))(begin)
    run = jax.jit(jax.vmap(chunk))
    params, state = begin, jax.vmap(optimiser.init)(begin)
    for _ in range(0, steps, _CHUNK):
        params, state = jax.block_until_ready(run(params, state, start))
        advance(_CHUNK)
    end = jax.jit(jax.vmap(lambda p: _batched(p, x_test)))(params)
    residual = jnp.sqrt(2 * jax.vmap(loss)(params, start) / y.size)
    return np.asarray(end - start_test, float), np.asarray(residual, float)
