"""The kernel for tinygp, whose processes must be ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

tinygp = pytest.importorskip("tinygp")

NOISE = 0.03


@pytest.fixture(scope="module")
def network():
    model = wl.nn.mlp(3, 1, 32, 1, weight_std=1.4, bias_std=0.3, key=jax.random.key(0))
    return wl.kernel(model)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x, x_star = rng.normal(size=(30, 3)), rng.normal(size=(9, 3))
    return jnp.asarray(x), jnp.asarray(np.sin(2 * x[:, 0]) + x[:, 1]), jnp.asarray(x_star)


def adapter(*args, **kwargs):
    from widelimit.estimators.tinygp import NetworkKernel

    return NetworkKernel(*args, **kwargs)


@pytest.mark.parametrize(("kind", "ours"), [("nngp", "nngp"), ("ntk", "ntkgp")])
def test_process_is_our_posterior(network, data, kind, ours):
    x, y, x_star = data
    gp = tinygp.GaussianProcess(adapter(network, kind=kind, variance=1.7), x, diag=NOISE)
    value, conditioned = jax.jit(lambda y: gp.condition(y, x_star, diag=0.0))(y)
    want = wl.predict.posterior(network, x, y, noise=NOISE, kind=ours, scale=1.7)
    np.testing.assert_allclose(value, want.log_marginal_likelihood(), rtol=1e-8)
    np.testing.assert_allclose(conditioned.mean, want.mean(x_star), rtol=1e-8)
    np.testing.assert_allclose(conditioned.variance, want.variance(x_star), rtol=1e-8)
    got, expected = conditioned.covariance, want.covariance(x_star)
    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-8 * float(expected.max()))


def test_gradient_in_every_scale(network, data):
    x, y, _ = data

    def theirs(kernel, noise):
        return tinygp.GaussianProcess(kernel, x, diag=noise).log_probability(y)

    slope, by_noise = jax.jit(jax.grad(theirs, argnums=(0, 1)))(adapter(network), NOISE)

    def ours(network, variance, noise):
        gp = wl.predict.posterior(network, x, y, noise=noise, scale=variance)
        return gp.log_marginal_likelihood()

    want = jax.jit(jax.grad(ours, argnums=(0, 1, 2)))(network, 1.0, NOISE)
    got = (slope.network, slope.variance, by_noise)
    assert len(jax.tree.leaves(got)) == len(network.priors) + 2
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        np.testing.assert_allclose(a, b, rtol=1e-7)
    step, name = 1e-5, next(iter(network.priors))
    std = network.priors[name].std
    high, low = (ours(network.with_stds({name: std + s}), 1.0, NOISE) for s in (step, -step))
    first = slope.network.priors[name].std
    np.testing.assert_allclose(first, (high - low) / (2 * step), rtol=1e-6)


def test_sums_and_products_with_their_kernels(network, data):
    x, _, x_star = data
    other = tinygp.kernels.Matern32(1.3, distance=tinygp.kernels.distance.L2Distance())
    mixed = 0.5 * adapter(network) * other + adapter(network, kind="ntk")
    stationary, nngp = other(x_star, x), network.nngp(x_star, x)
    want = 0.5 * nngp * stationary + network.ntk(x_star, x)
    np.testing.assert_allclose(mixed(x_star, x), want, rtol=1e-8)
    own = 0.5 * network.nngp_diagonal(x) * other(x) + network.ntk_diagonal(x)
    np.testing.assert_allclose(mixed(x), own, rtol=1e-8)
    np.testing.assert_allclose(jnp.diagonal(mixed(x, x)), own, rtol=1e-8)


def test_single_precision(network, data):
    x, _, x_star = data
    for kind in ("nngp", "ntk"):
        kernel = adapter(network, kind=kind)
        got = kernel(x_star.astype(jnp.float32), x.astype(jnp.float32))
        assert got.dtype == jnp.float32
        want = np.asarray(kernel(x_star, x))
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * want.max())


def test_what_is_no_network(network):
    with pytest.raises(TypeError, match="got str"):
        adapter("relu x 3")
    with pytest.raises(ValueError, match="'nngp' or 'ntk'"):
        adapter(network, kind="ntkgp")
