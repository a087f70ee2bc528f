"""One small network and its data, and the optimizer that the predictions are compared with."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import widelimit as wl

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def network(p, x):
    return p["v"] @ jnp.tanh(p["w"] @ x + p["b"]) / 3


PARAMS = {"w": normal(7, 4), "b": normal(7), "v": normal(2, 7)}
X, Y, X_STAR, Y_STAR = normal(6, 4), normal(6, 2), normal(5, 4), normal(5, 2)
WEIGHTS = {"w": 0.5, "b": jnp.linspace(0, 1, 7), "v": 2.0}
LINEAR = wl.linearize(network, PARAMS)


def linear_outputs(params, x):
    return jax.vmap(lambda e: LINEAR(params, e))(x)


def squared(outputs):
    return 0.5 * jnp.sum((outputs - Y) ** 2)


def trained(optimizer, steps, loss=squared, decay=0.0, centre=PARAMS, weights=None, x=X):
    """The linearised network's parameters after some steps of an optimizer of optax."""
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    weights = ones if weights is None else {k: ones[k] * v for k, v in weights.items()}

    def step(_, now):
        params, state = now
        slope = jax.grad(lambda p: loss(linear_outputs(p, x)))(params)
        slope = jax.tree.map(
            lambda g, p, c, w: w * g + decay * (p - c) * (w > 0), slope, params, centre, weights
        )
        updates, state = optimizer.update(slope, state)
        return optax.apply_updates(params, updates), state

    run = jax.jit(lambda now, count: jax.lax.fori_loop(0, count, step, now))
    now, passed, found = (PARAMS, optimizer.init(PARAMS)), 0, []
    for time in np.atleast_1d(steps):
        now, passed = run(now, time - passed), time
        found.append(now[0])
    return found if np.ndim(steps) else found[0]


def close(found, expected, tolerance=1e-10):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)
