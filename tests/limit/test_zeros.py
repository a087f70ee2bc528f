"""Empty inputs without a bias: values and slopes at exactly zero, as the network has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

from .networks import struct

WIDTH, DRAWS = 16, 20_000
PRIOR = {"[0]": wl.Prior(0.0, 1.0), "[1]": wl.Prior(0.0, 0.0), "[2]": wl.Prior(0.0, 1.0)}
SHAPES = [struct(4, WIDTH), struct(WIDTH), struct(WIDTH)]
FUNCTIONS = {
    "relu": jax.nn.relu,
    "maximum": lambda u: jnp.maximum(u, 0.0),
    "abs": jnp.abs,
    "leaky": jax.nn.leaky_relu,
    "step": lambda u: jnp.where(u > 0, 1.0, 0.0),
    "other step": lambda u: jnp.where(u >= 0, 1.0, -0.3),
    "clipped": lambda u: jax.nn.relu6(u) - 2 * jax.nn.relu(-u),
    "smooth": jax.lax.erf,
}


def network(activation):
    def f(p, x):
        return (activation(x @ p[0] / 2 + p[1]) @ p[2]).sum() / np.sqrt(WIDTH)

    return f


def sampled(f, x, rng):
    """Both kernels of one hidden layer, whose expectation is the limit at any width."""
    def one(a, c):
        p = [a, jnp.zeros(WIDTH), c]
        out, back = jax.vmap(lambda z: f(p, z))(x), jax.vmap(lambda z: jax.grad(f)(p, z))(x)
        rows = jnp.concatenate([g.reshape(len(x), -1) for g in jax.tree.leaves(back)], 1)
        return jnp.outer(out, out), rows @ rows.T

    a, c = rng.normal(size=(DRAWS, 4, WIDTH)), rng.normal(size=(DRAWS, WIDTH))
    for draws in jax.jit(jax.vmap(one))(a, c):
        yield np.mean(draws, 0), np.std(draws, 0) / np.sqrt(DRAWS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_agrees_with_the_network(name, rng):
    f = network(FUNCTIONS[name])
    x = rng.normal(size=(3, 3, 4))
    x[:, 2] = 0
    x[1, 1] = 0
    x[2] = 0
    kernels = wl.kernel(f, SHAPES, prior=PRIOR).both(x)
    for limit, (mean, error) in zip(kernels, sampled(f, x, rng)):
        assert np.max(np.abs(limit - mean) / (error + 1e-9)) < 4.5
        assert np.max(error) < 0.03 * np.max(np.abs(mean))


def test_inside_of_jit_and_across_batches(rng):
    kernel = wl.kernel(network(jax.nn.relu), SHAPES, prior=PRIOR)
    x = rng.normal(size=(3, 3, 4))
    x[0, 1:] = 0
    whole = kernel.ntk(x)
    np.testing.assert_allclose(jax.jit(kernel.ntk)(x), whole, rtol=1e-10)
    np.testing.assert_allclose(kernel.ntk(x[:1], x), whole[:1], rtol=1e-10)
    np.testing.assert_allclose(kernel.ntk_diagonal(x), np.diag(whole), rtol=1e-10)


@pytest.mark.parametrize(("slope", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_a_slope_is_met_by_what_is_trained_layers_below(slope, share):
    """Zero inputs, a zero bias that is trained, a smooth layer, and then a kink."""
    def f(p, x):
        h = jnp.tanh(x @ p[0] / 2 + p[1]) @ p[2] / np.sqrt(WIDTH)
        return jnp.where(h > 0, h, slope * h) @ p[3] / np.sqrt(WIDTH)

    shapes = [struct(4, WIDTH), struct(WIDTH), struct(WIDTH, WIDTH), struct(WIDTH)]
    kernel = wl.kernel(f, shapes, prior=PRIOR | {"[3]": wl.Prior(0.0, 1.0)})
    x = np.zeros((2, 4))
    x[1] = 1.0
    ntk = kernel.ntk(x)
    assert ntk[0, 0] == share
    assert ntk[1, 1] > 0.3
