"""Exact predictions against linear algebra, scikit-learn, and trained linearised networks."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor

import widelimit as wl
from predict.oracles import Precomputed, brute, network, shapes
from widelimit import predict
from widelimit.models import describe, sample

KINDS = ["nngp", "ntk", "ntkgp"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_matches_plain_linear_algebra(kernel, data, kind, noise):
    x, y, x_star = data
    post = predict.posterior(kernel, x, y, noise=noise, kind=kind)
    mean, cov = brute(kernel, x, y, x_star, noise, kind)
    assert post.jitter == 0
    np.testing.assert_allclose(post.mean(x_star), mean, atol=1e-10)
    np.testing.assert_allclose(post.covariance(x_star), cov, atol=1e-10)
    np.testing.assert_allclose(post.variance(x_star), np.diag(cov), atol=1e-10)


def test_matches_scikit_learn(kernel, data):
    x, y, x_star = data
    gram = np.asarray(kernel.nngp(jnp.concatenate([x, x_star])))
    rows = np.arange(len(gram))[:, None]
    peer = GaussianProcessRegressor(Precomputed(gram), alpha=0.05, optimizer=None)
    peer.fit(rows[: len(x)], y[:, 0])
    mean, cov = peer.predict(rows[len(x) :], return_cov=True)
    post = predict.posterior(kernel, x, y[:, 0], noise=0.05)
    np.testing.assert_allclose(
        post.log_marginal_likelihood(), peer.log_marginal_likelihood_value_, rtol=1e-11
    )
    np.testing.assert_allclose(post.mean(x_star), mean, atol=1e-10)
    np.testing.assert_allclose(post.covariance(x_star), cov, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_interpolates_without_noise(kernel, data, kind):
    x, y, _ = data
    post = predict.posterior(kernel, x, y, kind=kind)
    np.testing.assert_allclose(post.mean(x), y, atol=1e-9)
    np.testing.assert_allclose(post.variance(x), 0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_leave_one_out_is_refitting(kernel, data, kind, noise):
    x, y, _ = data
    loo = predict.posterior(kernel, x, y, noise=noise, kind=kind).leave_one_out()
    for i in (0, 5, 11):
        rest = np.delete(np.arange(len(x)), i)
        post = predict.posterior(kernel, x[rest], y[rest], noise=noise, kind=kind)
        np.testing.assert_allclose(loo.mean[i], post.mean(x[i : i + 1])[0], atol=1e-9)
        np.testing.assert_allclose(loo.variance[i], post.variance(x[i : i + 1])[0], atol=1e-9)


@pytest.mark.parametrize("ridge", [0.0, 0.4])
def test_ntk_is_gradient_descent_on_the_linearised_network(ridge):
    """Train wide networks' linearisations to convergence; compare their mean and variance."""
    width, count, inputs = 256, 128, 4
    description = describe(network, shapes(width, inputs, 1))
    kernel = wl.kernel(network, shapes(width, inputs, 1))
    rng = np.random.default_rng(1)
    x, y, x_star = rng.normal(size=(6, inputs)), rng.normal(size=6), rng.normal(size=(3, inputs))

    @jax.jit
    def trained(key):
        arrays = sample(description, key)
        everything = jnp.concatenate([x, x_star])
        outputs = lambda a: jax.vmap(lambda one: description.apply(a, one)[0])(everything)
        jacobian = jax.tree.leaves(jax.jacrev(outputs)(arrays))
        features = jnp.concatenate([j.reshape(len(everything), -1) for j in jacobian], 1)
        start = outputs(arrays)
        train, test = features[:6], features[6:]
        rate = 1 / (jnp.linalg.norm(train, 2) ** 2 + ridge)

        def step(_, move):
            residual = start[:6] + train @ move - y
            return move - rate * (train.T @ residual + ridge * move)

        move = jax.lax.fori_loop(0, 1000, step, jnp.zeros(features.shape[1]))
        return start[6:] + test @ move

    ends = np.asarray(jax.lax.map(trained, jax.random.split(jax.random.key(2), count)))
    post = predict.posterior(kernel, x, y, noise=ridge, kind="ntk")
    spread = np.sqrt(np.asarray(post.variance(x_star)))
    np.testing.assert_allclose(ends.mean(0), post.mean(x_star), atol=4 * spread.max() / count**0.5)
    np.testing.assert_allclose(ends.std(0), spread, rtol=4 / (2 * count) ** 0.5)


def test_ntk_mean_of_one_linearised_network_exactly(data):
    """With the kernel of its own features, gradient descent ends in kernel regression."""
    x, y, x_star = data
    linear = lambda p, v: p @ v / 2.0
    kernel = wl.kernel(linear, jax.ShapeDtypeStruct((3, 4), jnp.float64))
    ridge = 0.7
    move = np.zeros((4, 3))
    for _ in range(3000):
        move -= 0.02 * (x.T @ (x @ move / 2 - y) / 2 + ridge * move)
    post = predict.posterior(kernel, x, y, noise=ridge, kind="ntk")
    np.testing.assert_allclose(post.mean(x_star), x_star @ move / 2, atol=1e-10)


def test_duplicates_get_the_smallest_jitter(kernel, data):
    x, y, x_star = data
    twice, targets = np.concatenate([x, x]), np.concatenate([y, y])
    post = predict.posterior(kernel, twice, targets)
    assert post.jitter < 1e-12
    np.testing.assert_allclose(
        post.mean(x_star), predict.posterior(kernel, x, y).mean(x_star), atol=1e-6
    )


def test_float32_beyond_its_precision_warns(data):
    x, y, _ = data
    kernel = wl.kernel(network, shapes(dtype=jnp.float32))
    close = np.concatenate([x, x + 1e-4]).astype(np.float32)
    targets = np.concatenate([y, y]).astype(np.float32)
    with pytest.warns(predict.PrecisionWarning, match="float32"):
        post = predict.posterior(kernel, close, targets)
    assert post.condition > 1e5
    assert np.all(np.isfinite(post.mean(x.astype(np.float32))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert predict.posterior(kernel, close, targets, noise=0.1).mean(close).dtype == "float32"


def test_condition_number_is_estimated(kernel, data):
    x, y, _ = data
    post = predict.posterior(kernel, x, y, noise=0.01)
    exact = np.linalg.cond(np.asarray(kernel.nngp(x)) + 0.01 * np.eye(len(x)))
    assert 0.5 * exact < post.condition < 1.001 * exact


def test_gradients_pass_through_the_prediction(kernel, data):
    x, y, x_star = data
    post = predict.posterior(kernel, x, y, noise=0.1, kind="ntk")
    for f in (lambda v: post.mean(v[None])[0, 0], lambda v: post.variance(v[None])[0]):
        slope = jax.grad(f)(jnp.asarray(x_star[0]))
        direction = np.array([1.0, -0.5, 0.3, 0.2])
        ends = [float(f(jnp.asarray(x_star[0] + s * direction))) for s in (1e-5, -1e-5)]
        np.testing.assert_allclose(slope @ direction, (ends[0] - ends[1]) / 2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.ones(11)}, "12 examples and y 11"),
        ({"y": np.ones((12, 1, 1))}, "must be"),
        ({"y": np.full(12, np.nan)}, "y contains NaN"),
        ({"x": np.full((12, 4), np.inf)}, "NaN or infinite"),
        ({"noise": -0.1}, "at least 0"),
        ({"noise": np.nan}, "at least 0"),
        ({"noise": np.ones(11)}, "noise has shape"),
        ({"noise": np.ones((12, 2))}, "noise has shape"),
        ({"noise": np.ones((3, 12))}, "noise has shape"),
        ({"noise": [-1.0, *[1.0] * 11]}, "got -1"),
        ({"kind": "gp"}, "'nngp', 'ntkgp' or 'ntk'"),
        ({"scale": 0.0}, "one positive number"),
        ({"mean": np.nan}, "prior mean contains NaN"),
        ({"mean": np.ones(12)}, "a number or a function"),
        ({"mean": lambda x: np.ones((12, 2))}, r"must be \(12, 3\) or \(12,\)"),
        ({"prior": "t"}, "InverseGamma"),
    ],
)
def test_refuses_bad_input(kernel, data, change, message):
    x, y, _ = data
    given = {"x": x, "y": y, "noise": 0.1, **change}
    with pytest.raises(ValueError, match=message):
        predict.posterior(kernel, **given)


def test_refuses_inputs_to_predict(kernel, data):
    x, y, _ = data
    post = predict.posterior(kernel, x, y)
    with pytest.raises(ValueError, match="alike"):
        post.mean(np.ones((2, 5)))
    with pytest.raises(ValueError, match="NaN"):
        post.variance(np.full((2, 4), np.nan))


def test_refuses_positions(data):
    x, y, _ = data
    with pytest.raises(ValueError, match="positions"):
        rows = lambda p, v: v.reshape(2, 2) @ p
        kernel = wl.kernel(rows, jax.ShapeDtypeStruct((2, 7), jnp.float64))
        predict.posterior(kernel, x, y)


def test_refuses_several_outputs(data):
    x, y, _ = data
    kernel = wl.kernel(lambda p, v: (p @ v, 2 * p @ v), jax.ShapeDtypeStruct((7, 4), jnp.float64))
    with pytest.raises(ValueError, match="one output"):
        predict.posterior(kernel, x, y)


def test_refuses_outputs_that_are_not_gaussian(data):
    x, y, _ = data
    kernel = wl.kernel(
        lambda p, v: jax.nn.relu(p @ v), jax.ShapeDtypeStruct((7, 4), jnp.float64)
    )
    with pytest.raises(wl.NotGaussianError, match="not Gaussian"):
        predict.posterior(kernel, x, y)


def test_refuses_outputs_with_a_mean(data):
    x, y, _ = data
    kernel = wl.kernel(lambda p, v: p @ v + 1.0, jax.ShapeDtypeStruct((7, 4), jnp.float64))
    with pytest.raises(wl.NotGaussianError, match="known part"):
        predict.posterior(kernel, x, y)
