"""Sampled kernels against exact ones, their errors against their spread, blocks against wholes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

WIDTH, D = 16, 3


def f(p, x):
    return p["v"] @ jax.nn.relu(p["w"] @ x / np.sqrt(D)) / np.sqrt(WIDTH)


SHAPES = {
    "v": jax.ShapeDtypeStruct((4, WIDTH), float),
    "w": jax.ShapeDtypeStruct((WIDTH, D), float),
}
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def x():
    return jnp.asarray(np.random.default_rng(0).normal(size=(6, D)))


@pytest.mark.parametrize("kind", ["nngp", "ntk"])
def test_agrees_with_the_limit_which_one_hidden_layer_has_at_any_width(x, kind):
    found = wl.monte_carlo(f, SHAPES, key=KEY, draws=2000).sampled(x, x[:4], kind)
    exact = getattr(wl.kernel(f, SHAPES), kind)(x, x[:4])
    z = np.asarray((found.mean - exact) / found.standard_error)
    assert found.draws == 2000 and np.max(np.abs(z)) < 4.5
    assert np.max(found.standard_error / np.abs(exact).max()) < 0.03


def test_standard_errors_are_those_of_repetitions(x):
    means, errors = [], []
    mc = wl.monte_carlo(f, SHAPES, key=KEY, draws=64)  # one program for all keys
    for seed in range(60):
        mc.key = jax.random.key(seed)
        mc._last.clear()
        found = mc.sampled(x[:3])
        means.append(found.mean)
        errors.append(found.standard_error)
    ratio = np.std(means, axis=0, ddof=1) / np.sqrt(np.mean(np.square(errors), axis=0))
    assert np.all((ratio > 0.7) & (ratio < 1.35))


def test_blocks_fit_together_and_are_positive(x):
    mc = wl.monte_carlo(f, SHAPES, key=KEY, draws=40)
    whole = np.asarray(mc.ntk(x))
    blocks = np.block([[mc.ntk(x[:2]), mc.ntk(x[:2], x[2:])],
                       [mc.ntk(x[2:], x[:2]), mc.ntk(x[2:])]])
    np.testing.assert_allclose(blocks, whole, rtol=1e-10)
    assert np.linalg.eigvalsh(np.asarray(mc.nngp(x)))[0] > -1e-12
    np.testing.assert_allclose(mc.ntk_diagonal(x), np.diagonal(whole), rtol=1e-10)
    np.testing.assert_allclose(mc.nngp_diagonal(x), np.diagonal(mc.both(x).nngp), rtol=1e-10)


def test_more_draws_continue(x):
    mc = wl.monte_carlo(f, SHAPES, key=KEY, draws=50)
    first = mc.sampled(x)
    mc.more(33)
    both, at_once = mc.sampled(x), wl.monte_carlo(f, SHAPES, key=KEY, draws=83).sampled(x)
    assert (first.draws, both.draws) == (50, 83)
    np.testing.assert_allclose(both.mean, at_once.mean, rtol=1e-12)
    np.testing.assert_allclose(both.standard_error, at_once.standard_error, rtol=1e-10)


def test_stops_at_a_precision(x):
    mc = wl.monte_carlo(f, SHAPES, key=KEY, precision=0.02)
    found = mc.sampled(x)
    reached = float(jnp.max(found.standard_error) / jnp.max(jnp.abs(found.mean)))
    assert 0.015 < reached < 0.025
    assert mc.sampled(x[:2]).draws == found.draws
    capped = wl.monte_carlo(f, SHAPES, key=KEY, precision=1e-6, most=300).sampled(x)
    assert capped.draws == 300


def test_networks_without_a_limit_positions_and_frozen_parameters(x):
    def g(p, x):  # a maximum over random values has no closed limit
        h = jnp.max(p["w"] @ x) * x[:2, None]
        return h * p["v"][:, 0] / 2

    mc = wl.monte_carlo(g, SHAPES, key=KEY, draws=8, trainable={"w": False, "v": True})
    assert mc.ntk(x[:3], x[:2]).shape == (3, 2, 2, 2)
    frozen = wl.monte_carlo(f, SHAPES, key=KEY, draws=2000, trainable={"w": False, "v": True})
    exact = wl.kernel(f, SHAPES, trainable={"w": False, "v": True}).ntk(x)
    found = frozen.sampled(x, kind="ntk")
    assert np.max(np.abs((found.mean - exact) / found.standard_error)) < 4.5


def test_refusals(x):
    for options in ({}, {"draws": 10, "precision": 0.1}):
        with pytest.raises(ValueError, match="either draws or precision"):
            wl.monte_carlo(f, SHAPES, key=KEY, **options)
    for options in ({"draws": 1}, {"precision": 0.0}):
        with pytest.raises(ValueError, match="at least 2 and precision positive"):
            wl.monte_carlo(f, SHAPES, key=KEY, **options)
    mc = wl.monte_carlo(f, SHAPES, key=KEY, draws=4)
    with pytest.raises(ValueError, match="kind='signal'"):
        mc.sampled(x, kind="signal")
    with pytest.raises(ValueError, match="at least 1"):
        mc.more(0)
