"""Gradient flow against matrix exponentials, its two ends, and ensembles of trained networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import widelimit as wl
from predict.oracles import network, shapes
from widelimit import predict
from widelimit.models import describe, sample

KINDS = ["ntk", "nngp"]


@pytest.mark.parametrize("kind", KINDS)
def test_matches_the_matrix_exponential(kernel, data, kind):
    x, y, x_star = data
    nngp, ntk = map(np.asarray, kernel.both(jnp.concatenate([x, x_star])))
    t = ntk if kind == "ntk" else nngp
    flow = predict.gradient_flow(kernel, x, y, learning_rate=0.3, kind=kind)
    times = [0.0, 0.01, 0.5, 7.0]
    means, covs = flow.mean(x_star, times), flow.covariance(x_star, jnp.asarray(times))
    variances, trained = flow.variance(x_star, times), flow.train_mean(times)
    assert means.shape == (4, 5, 3)
    assert covs.shape == (4, 5, 5)
    for k, time in enumerate(times):
        decay = expm(-0.3 * time * t[:12, :12])
        a = t[12:, :12] @ np.linalg.inv(t[:12, :12]) @ (np.eye(12) - decay)
        cross = nngp[12:, :12]
        cov = nngp[12:, 12:] + a @ nngp[:12, :12] @ a.T - a @ cross.T - cross @ a.T
        np.testing.assert_allclose(means[k], a @ y, atol=1e-11)
        np.testing.assert_allclose(covs[k], cov, atol=1e-11)
        np.testing.assert_allclose(variances[k], np.diag(cov), atol=1e-11)
        np.testing.assert_allclose(trained[k], y - decay @ y, atol=1e-11)
        np.testing.assert_allclose(flow.mean(x_star, time), means[k], atol=1e-13)


def test_begins_at_the_prior_and_ends_at_the_posterior(kernel, data):
    x, y, x_star = data
    flow = predict.gradient_flow(kernel, x, y, mean=0.5)
    np.testing.assert_array_equal(flow.mean(x_star, 0.0), 0.5)
    np.testing.assert_array_equal(flow.covariance(x_star, 0.0), kernel.nngp(x_star))
    post = predict.posterior(kernel, x, y, kind="ntk", mean=0.5)
    for end in (np.inf, 1e9):
        np.testing.assert_allclose(flow.mean(x_star, end), post.mean(x_star), atol=1e-8)
        np.testing.assert_allclose(
            flow.covariance(x_star, end), post.covariance(x_star), atol=1e-8
        )
        np.testing.assert_allclose(flow.train_mean(end), y, atol=1e-8)


def test_readout_alone_ends_at_the_bayesian_posterior(kernel, data):
    x, y, x_star = data
    flow = predict.gradient_flow(kernel, x, y, kind="nngp")
    post = predict.posterior(kernel, x, y)
    np.testing.assert_allclose(flow.mean(x_star, np.inf), post.mean(x_star), atol=1e-8)
    np.testing.assert_allclose(flow.covariance(x_star, np.inf), post.covariance(x_star), atol=1e-8)


def test_short_times_are_a_step_of_gradient_descent(kernel, data):
    """The first order in t keeps its relative precision, however small t is."""
    x, y, x_star = data
    flow = predict.gradient_flow(kernel, x, y, learning_rate=2.0)
    first = np.asarray(kernel.ntk(x_star, x)) @ y
    np.testing.assert_allclose(flow.mean(x_star, 1e-12) / 2e-12, first, rtol=1e-9)


@pytest.mark.parametrize("time", [1.0, 1e6, 1e20, np.inf])
def test_repeated_inputs_with_different_targets_learn_their_mean(kernel, data, time):
    x, y, x_star = data
    twice = predict.gradient_flow(
        kernel, np.concatenate([x, x]), np.concatenate([y + 1, y - 1]), learning_rate=0.5
    )
    once = predict.gradient_flow(kernel, x, y)
    np.testing.assert_allclose(twice.mean(x_star, time), once.mean(x_star, time), atol=1e-8)
    np.testing.assert_allclose(
        twice.covariance(x_star, time), once.covariance(x_star, time), atol=1e-8
    )


def test_no_signal_at_all_does_not_move():
    kernel = wl.kernel(lambda p, v: p @ v, jax.ShapeDtypeStruct((3, 4), jnp.float64))
    flow = predict.gradient_flow(kernel, np.zeros((2, 4)), np.ones(2))
    np.testing.assert_array_equal(flow.mean(np.ones((1, 4)), [0.0, 1.0, np.inf]), 0)
    np.testing.assert_array_equal(flow.train_mean(np.inf), 0)


def test_float32_and_one_row(kernel, single, data):
    x, y, x_star = data
    flow = predict.gradient_flow(kernel, x[:1], y[:1, 0])
    short = predict.gradient_flow(
        single, x[:1].astype(np.float32), y[:1, 0].astype(np.float32)
    )
    for t in (0.1, np.inf):
        found = short.mean(x_star.astype(np.float32), t)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, flow.mean(x_star, t), atol=1e-5)


@pytest.mark.parametrize(
    ("method", "beta"), [("descent", None), ("momentum", 0.8), ("nesterov", 0.8)]
)
def test_steps_match_the_matrix_recurrence(kernel, data, method, beta):
    """Mean and covariance through A, the map from residuals to what is learned, step by step."""
    x, y, x_star = data
    nngp, ntk = map(np.asarray, kernel.both(jnp.concatenate([x, x_star])))
    t, decay, rate = ntk[:12, :12], 0.4, 0.02
    flow = predict.gradient_flow(
        kernel, x, y, method=method, momentum=beta, learning_rate=rate, weight_decay=decay, mean=0.5
    )
    times = [0, 1, 2, 25]
    means, covs = flow.mean(x_star, times), flow.covariance(x_star, times)
    variances, trained = flow.variance(x_star, times), flow.train_mean(times)
    beta = beta or 0.0
    way = speed = np.zeros((12, 12))  # coefficients of the gradients, for unit residuals
    found = {0: way}
    for step in range(1, 26):
        slope = np.eye(12) - t @ way - decay * way
        speed = beta * speed + rate * slope
        way = way + (rate * slope + beta * speed if method == "nesterov" else speed)
        found[step] = way
    for k, step in enumerate(times):
        a = ntk[12:, :12] @ found[step]
        cross = nngp[12:, :12]
        cov = nngp[12:, 12:] + a @ nngp[:12, :12] @ a.T - a @ cross.T - cross @ a.T
        np.testing.assert_allclose(means[k], 0.5 + a @ (y - 0.5), atol=1e-12)
        np.testing.assert_allclose(covs[k], cov, atol=1e-12)
        np.testing.assert_allclose(variances[k], np.diag(cov), atol=1e-12)
        np.testing.assert_allclose(trained[k], 0.5 + t @ found[step] @ (y - 0.5), atol=1e-12)
    post = predict.posterior(kernel, x, y, kind="ntk", mean=0.5, noise=decay)
    np.testing.assert_allclose(flow.mean(x_star, np.inf), post.mean(x_star), atol=1e-11)
    np.testing.assert_allclose(flow.covariance(x_star, np.inf), post.covariance(x_star), atol=1e-11)


def test_stops_early(kernel, data):
    x, _, x_star = data
    y, y_star = x[:, :2] + np.random.default_rng(1).normal(size=(12, 2)), x_star[:, :2]
    flow = predict.gradient_flow(kernel, x, y)
    times = np.geomspace(1e-4, 1e4, 500)
    errors = ((np.asarray(flow.mean(x_star, times)) - y_star) ** 2).sum((1, 2)) / 2
    spread = np.asarray(flow.variance(x_star, times)).sum(1)  # two outputs, times a half
    for of, losses in [("mean", errors), ("network", errors + spread)]:
        best = flow.best_time(x_star, y_star, of=of)
        assert losses.min() * (1 - 1e-3) < best.loss <= losses.min()
        near = losses < best.loss * (1 + 1e-2)
        assert times[near].min() / 1.1 < best.time < times[near].max() * 1.1
    assert flow.best_time(x_star, y_star, most=1e-3).time == 1e-3
    with pytest.raises(ValueError, match="'mean' or 'network'"):
        flow.best_time(x_star, y_star, of="median")
    with pytest.raises(ValueError, match="training targets"):
        flow.best_time(x_star, y_star[:, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "descent", "learning_rate": 1e3}, "stable are learning rates below"),
        ({"method": "sgd"}, "there are flow"),
        ({"method": "momentum"}, "momentum= at least 0"),
        ({"weight_decay": np.nan}, "weight_decay"),
        ({"y": np.ones(11)}, "12 examples and y 11"),
        ({"y": np.full(12, np.nan)}, "y contains NaN"),
        ({"x": np.full((12, 4), np.inf)}, "NaN or infinite"),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"learning_rate": np.nan}, "learning rate"),
        ({"kind": "ntkgp"}, "'ntk' or 'nngp'"),
        ({"scale": -1.0}, "one positive number"),
    ],
)
def test_refuses_bad_input(kernel, data, change, message):
    given = {"x": data[0], "y": data[1], **change}
    with pytest.raises(ValueError, match=message):
        predict.gradient_flow(kernel, **given)


@pytest.mark.parametrize("t", [-1.0, np.nan, [0.0, -0.1], np.zeros((2, 2))])
def test_refuses_bad_times(kernel, data, t):
    flow = predict.gradient_flow(kernel, data[0], data[1])
    with pytest.raises(ValueError, match=r"times are|t is a number"):
        flow.mean(data[2], t)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ensemble_of_trained_networks(kind):
    """Train wide networks by small steps; compare mean and covariance while they learn."""
    width, count, rate, every = 1024, 512, 0.002, 400
    rng = np.random.default_rng(3)
    x, y, x_star = rng.normal(size=(5, 3)), rng.normal(size=5), rng.normal(size=(3, 3))
    struct = shapes(width, 3, 1)
    description = describe(network, struct)
    forward = jax.vmap(lambda a, v: network(a, v)[0], (None, 0))
    frozen = jax.tree.map(lambda _: 0.0 if kind == "nngp" else 1.0, struct)
    frozen[1] = (1.0, 0.0 if kind == "nngp" else 1.0)

    def plain(params, v):
        (w1, b1), (w2, _) = params
        h = jax.nn.relu(w1 @ v * jnp.sqrt(2 / v.size) + 0.3 * b1)
        return w2 @ h / jnp.sqrt(h.size)

    if kind == "nngp":
        forward = jax.vmap(lambda a, v: plain(a, v)[0], (None, 0))

    def run(key):
        arrays = jax.tree.unflatten(jax.tree.structure(struct), sample(description, key))
        loss = lambda a: 0.5 * jnp.sum((forward(a, x) - y) ** 2)

        def step(_, a):
            return jax.tree.map(lambda v, g, m: v - rate * m * g, a, jax.grad(loss)(a), frozen)

        outputs = []
        for _ in range(2):
            arrays = jax.lax.fori_loop(0, every, step, arrays)
            outputs.append(forward(arrays, x_star))
        return jnp.stack(outputs)

    keys = jax.random.split(jax.random.key(0), count)
    ends = np.asarray(jax.jit(lambda k: jax.lax.map(run, k, batch_size=64))(keys))
    kernel = wl.kernel(plain if kind == "nngp" else network, struct)
    flow = predict.gradient_flow(kernel, x, y, learning_rate=rate, kind=kind)
    times = [every, 2 * every]
    # In units of standard errors; 2 % for the width and the step.
    for k, t in enumerate(times):
        mean, cov = np.asarray(flow.mean(x_star, t)), np.asarray(flow.covariance(x_star, t))
        error = np.sqrt(np.diag(cov) / count)
        assert np.all(np.abs(ends[:, k].mean(0) - mean) < 4 * error + 0.02 * np.abs(mean).max())
        deviation = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / count)
        found = np.cov(ends[:, k].T)
        assert np.all(np.abs(found - cov) < 4 * deviation + 0.02 * np.diag(cov).max())
