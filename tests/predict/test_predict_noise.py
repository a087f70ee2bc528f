"""Noise of rows and outputs, means, scales and densities against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from predict.oracles import brute
from widelimit import predict

KINDS = ["nngp", "ntk", "ntkgp"]
BAYES = ["nngp", "ntkgp"]


def noises(rng, n=12, outputs=3):
    return {
        "number": 0.3,
        "rows": rng.uniform(0.1, 1, n),
        "column": rng.uniform(0.1, 1, (n, 1)),
        "outputs": rng.uniform(0.1, 1, (1, outputs)),
        "both": rng.uniform(0.1, 1, (n, outputs)),
    }


SHAPES = ["number", "rows", "column", "outputs", "both"]


def per_output(noise, n=12, outputs=3):
    noise = np.asarray(noise)
    noise = noise[:, None] if noise.ndim == 1 else noise
    return np.broadcast_to(noise, (n, outputs)).T


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_output_has_the_posterior_of_its_own_noise(kernel, data, rng, kind, shape):
    x, y, x_star = data
    noise = noises(rng)[shape]
    post = predict.posterior(kernel, x, y, noise=noise, kind=kind)
    mean, cov, var = post.mean(x_star), post.covariance(x_star), post.variance(x_star)
    own = shape in ("outputs", "both")
    assert cov.shape == ((5, 5, 3) if own else (5, 5))
    assert var.shape == ((5, 3) if own else (5,))
    for o, column in enumerate(per_output(noise)):
        m, c = brute(kernel, x, y[:, o], x_star, column, kind)
        np.testing.assert_allclose(mean[:, o], m, atol=1e-10)
        np.testing.assert_allclose(cov[..., o] if own else cov, c, atol=1e-10)
        np.testing.assert_allclose(var[:, o] if own else var, np.diag(c), atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_leave_one_out_is_refitting(kernel, data, rng, kind, shape):
    x, y, _ = data
    noise = noises(rng)[shape]
    loo = predict.posterior(kernel, x, y, noise=noise, kind=kind).leave_one_out()
    for i in (0, 7, 11):
        rest = np.delete(np.arange(len(x)), i)
        logs = 0.0
        for o, column in enumerate(per_output(noise)):
            m, c = brute(kernel, x[rest], y[rest, o], x[i : i + 1], column[rest], kind)
            np.testing.assert_allclose(loo.mean[i, o], m[0], atol=1e-10)
            spread = loo.variance[i, o] if loo.variance.ndim == 2 else loo.variance[i]
            np.testing.assert_allclose(spread, c[0, 0], atol=1e-10)
            logs += norm.logpdf(y[i, o], m[0], np.sqrt(c[0, 0] + column[i]))
        if kind != "ntk":
            np.testing.assert_allclose(loo.log_density[i], logs, rtol=1e-10)
    if kind == "ntk":
        with pytest.raises(ValueError, match="no density"):
            _ = loo.log_density


def test_leave_one_out_unpacks_as_mean_and_variance(kernel, data):
    x, y, _ = data
    loo = predict.posterior(kernel, x, y, noise=0.1).leave_one_out()
    mean, variance = loo
    assert mean is loo.mean
    assert variance is loo.variance
    inside = jax.jit(lambda y: predict.posterior(kernel, x, y, noise=0.1).leave_one_out())(y)
    np.testing.assert_allclose(inside.log_density, loo.log_density, rtol=1e-10)


@pytest.mark.parametrize("kind", BAYES)
@pytest.mark.parametrize("shape", SHAPES)
def test_evidence_is_the_density_of_the_targets(kernel, data, rng, kind, shape):
    x, y, _ = data
    noise = noises(rng)[shape]
    post = predict.posterior(kernel, x, y, noise=noise, kind=kind, mean=0.4)
    gram = np.asarray(kernel.nngp(x) if kind == "nngp" else kernel.ntk(x))
    expected = sum(
        multivariate_normal(np.full(12, 0.4), gram + np.diag(column)).logpdf(y[:, o])
        for o, column in enumerate(per_output(noise))
    )
    np.testing.assert_allclose(post.log_marginal_likelihood(), expected, rtol=1e-11)


@pytest.mark.parametrize("kind", BAYES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prior", [None, predict.InverseGamma(1.3, 0.7)])
def test_code_length_is_the_evidence(kernel, data, rng, kind, shape, prior):
    """Predict one target after another: the densities multiply to the evidence."""
    x, y, count = data[0][:4], data[1][:4], 4
    noise = noises(rng, count)[shape]
    columns = np.stack(per_output(noise, count), 1)
    if shape in ("rows", "column"):
        columns = columns[:, :1]
    given = {"kind": kind, "prior": prior, "mean": lambda x: 0.3 * x[:, 0]}

    first = predict.posterior(kernel, x[:1], y[:1], noise=columns[:1], **given)
    total = first.log_marginal_likelihood()
    for i in range(1, count):
        post = predict.posterior(kernel, x[:i], y[:i], noise=columns[:i], **given)
        total += post.log_predictive_density(
            x[i : i + 1], y[i : i + 1], noise=columns[i : i + 1]
        )
    whole = predict.posterior(kernel, x, y, noise=noise, **given)
    np.testing.assert_allclose(total, whole.log_marginal_likelihood(), rtol=1e-10)


@pytest.mark.parametrize("shape", ["number", "outputs"])
def test_new_targets_jointly(kernel, data, rng, shape):
    x, y, x_star = data
    y_star, noise = rng.normal(size=(5, 3)), noises(rng)[shape]
    found = predict.posterior(kernel, x, y, noise=noise).log_predictive_density(x_star, y_star)
    everything = predict.posterior(
        kernel, np.concatenate([x, x_star]), np.concatenate([y, y_star]), noise=noise
    )
    before = predict.posterior(kernel, x, y, noise=noise)
    difference = everything.log_marginal_likelihood() - before.log_marginal_likelihood()
    np.testing.assert_allclose(found, difference, rtol=1e-10)


def test_mean_is_taken_off_and_put_back(kernel, data):
    x, y, x_star = data
    slope = np.array([1.0, -0.5, 0.2, 0.1])
    for mean, at in (
        (0.7, lambda x: np.full((len(x), 1), 0.7)),
        (lambda x: x @ slope, lambda x: (x @ slope)[:, None]),
        (lambda x: x[:, :3], lambda x: x[:, :3]),
    ):
        for kind in KINDS:
            post = predict.posterior(kernel, x, y, noise=0.1, kind=kind, mean=mean)
            plain = predict.posterior(kernel, x, y - at(x), noise=0.1, kind=kind)
            np.testing.assert_allclose(
                post.mean(x_star), plain.mean(x_star) + at(x_star), atol=1e-12
            )
            np.testing.assert_array_equal(post.variance(x_star), plain.variance(x_star))
            np.testing.assert_allclose(
                post.leave_one_out().mean, plain.leave_one_out().mean + at(x), atol=1e-12
            )
    single = predict.posterior(kernel, x, y[:, 0], noise=0.1, mean=lambda x: x @ slope)
    assert single.mean(x_star).shape == (5,)


@pytest.mark.parametrize("kind", KINDS)
def test_scale_multiplies_the_prior(kernel, data, kind):
    x, y, x_star = data
    post = predict.posterior(kernel, x, y, noise=0.6, kind=kind, scale=3.0)
    plain = predict.posterior(kernel, x, y, noise=0.2, kind=kind)
    np.testing.assert_allclose(post.mean(x_star), plain.mean(x_star), atol=1e-11)
    np.testing.assert_allclose(post.covariance(x_star), 3 * plain.covariance(x_star), atol=1e-11)


@pytest.mark.parametrize("shape", ["number", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_mean_and_covariance(kernel, data, rng, kind, shape):
    x, y, x_star = data
    post = predict.posterior(kernel, x, y, noise=noises(rng)[shape], kind=kind)
    count = 20_000
    draws = np.asarray(post.sample(jax.random.key(0), x_star, count))
    assert draws.shape == (count, 5, 3)
    cov = np.asarray(post.covariance(x_star))
    for o in range(3):
        c = cov if cov.ndim == 2 else cov[..., o]
        deviation = np.sqrt((np.outer(np.diag(c), np.diag(c)) + c**2) / count)
        assert np.all(np.abs(np.cov(draws[..., o].T) - c) < 5 * deviation)
        error = np.abs(draws[..., o].mean(0) - np.asarray(post.mean(x_star))[:, o])
        assert np.all(error < 5 * np.sqrt(np.diag(c) / count))
    assert np.abs(np.corrcoef(draws[:, 0].T) - np.eye(3)).max() < 5 / np.sqrt(count)


def test_samples_where_nothing_is_left_to_chance(kernel, data):
    x, y, _ = data
    draws = predict.posterior(kernel, x, y[:, 0]).sample(jax.random.key(0), x, 3)
    assert draws.shape == (3, 12)
    np.testing.assert_allclose(draws, np.stack([y[:, 0]] * 3), atol=1e-5)


def test_float32(kernel, single, data):
    x, y, x_star = data
    short = [v.astype(np.float32) for v in data]
    for prior in (None, predict.InverseGamma(2.0, 2.0)):
        post = predict.posterior(single, *short[:2], noise=0.1, prior=prior)
        wide = predict.posterior(kernel, x, y, noise=0.1, prior=prior)
        for one, other in (
            (post.mean(short[2]), wide.mean(x_star)),
            (post.covariance(short[2]), wide.covariance(x_star)),
            (post.log_marginal_likelihood(), wide.log_marginal_likelihood()),
            (post.leave_one_out().log_density, wide.leave_one_out().log_density),
        ):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, other, atol=2e-4, rtol=2e-4)
        assert post.sample(jax.random.key(0), short[2], 2).dtype == np.float32


def test_evidence_has_gradients(kernel, data):
    x, y, _ = data

    @jax.jit
    def evidence(kernel, noise):
        return predict.posterior(kernel, x, y, noise=noise).log_marginal_likelihood()

    noise = jnp.linspace(0.1, 0.5, 12)
    slopes = jax.grad(evidence, (0, 1))(kernel, noise)
    stds, rest = jax.tree.flatten(kernel)
    for k in range(4):
        ends = [
            evidence(jax.tree.unflatten(rest, [*stds[:k], stds[k] + d, *stds[k + 1 :]]), noise)
            for d in (1e-5, -1e-5)
        ]
        np.testing.assert_allclose(slopes[0].stds[k], (ends[0] - ends[1]) / 2e-5, rtol=1e-5)
    ends = [evidence(kernel, noise + d * noise**2) for d in (1e-5, -1e-5)]
    np.testing.assert_allclose(slopes[1] @ noise**2, (ends[0] - ends[1]) / 2e-5, rtol=1e-5)


def test_one_row_and_constant_targets(kernel, data):
    x, _, x_star = data
    for kind in KINDS:
        one = predict.posterior(kernel, x[:1], [2.0], noise=0.1, kind=kind)
        mean, cov = brute(kernel, x[:1], np.array([2.0]), x_star, 0.1, kind)
        np.testing.assert_allclose(one.mean(x_star), mean, atol=1e-12)
        np.testing.assert_allclose(one.covariance(x_star), cov, atol=1e-12)
        np.testing.assert_allclose(one.leave_one_out().mean, 0, atol=1e-12)
        flat = predict.posterior(kernel, x, np.full(12, 3.0), noise=0.1, kind=kind, mean=3.0)
        np.testing.assert_allclose(flat.mean(x_star), 3.0, atol=1e-12)


def test_trained_networks_give_data_no_density(kernel, data):
    x, y, x_star = data
    for prior in (None, predict.InverseGamma(2.0, 2.0)):
        post = predict.posterior(kernel, x, y, noise=0.1, kind="ntk", prior=prior)
        with pytest.raises(ValueError, match="use 'ntkgp'"):
            post.log_marginal_likelihood()
        with pytest.raises(ValueError, match="use 'ntkgp'"):
            post.log_predictive_density(x_star, np.ones((5, 3)))


def test_refuses_new_targets_that_do_not_fit(kernel, data):
    x, y, x_star = data
    post = predict.posterior(kernel, x, y, noise=np.full(12, 0.1))
    with pytest.raises(ValueError, match="row to row"):
        post.log_predictive_density(x_star, np.ones((5, 3)))
    with pytest.raises(ValueError, match="noise has shape"):
        post.log_predictive_density(x_star, np.ones((5, 3)), noise=np.ones(12))
    with pytest.raises(ValueError, match="5 examples and y 4"):
        post.log_predictive_density(x_star, np.ones((4, 3)), noise=0.1)
    with pytest.raises(ValueError, match="y_star has shape"):
        post.log_predictive_density(x_star, np.ones((5, 2)), noise=0.1)
    with pytest.raises(ValueError, match="at least 1"):
        post.sample(jax.random.key(0), x_star, 0)
