"""Student-t processes against scipy's multivariate t, and against the Gaussian limit."""

import jax
import numpy as np
import pytest
from scipy.stats import multivariate_t

from predict.oracles import brute
from widelimit import predict

A, B = 1.7, 0.6


def gram(kernel, x, kind):
    return np.asarray(kernel.nngp(x) if kind == "nngp" else kernel.ntk(x))


@pytest.fixture
def fitted(kernel, data):
    prior = predict.InverseGamma(A, B)
    x, y, _ = data
    return predict.posterior(kernel, x, y, noise=0.2, prior=prior)


@pytest.mark.parametrize("kind", ["nngp", "ntkgp"])
def test_conditional_is_joint_less_marginal(kernel, data, rng, kind):
    x, y, x_star = data
    y, y_star = y[:, 0], rng.normal(size=5)
    prior = predict.InverseGamma(A, B)
    post = predict.posterior(kernel, x, y, noise=0.2, kind=kind, prior=prior)
    everything = gram(kernel, np.concatenate([x, x_star]), kind) + 0.2 * np.eye(17)
    marginal = multivariate_t(np.zeros(12), B / A * everything[:12, :12], 2 * A).logpdf(y)
    joint = multivariate_t(np.zeros(17), B / A * everything, 2 * A).logpdf(np.r_[y, y_star])
    np.testing.assert_allclose(post.log_marginal_likelihood(), marginal, rtol=1e-11)
    np.testing.assert_allclose(
        post.log_predictive_density(x_star, y_star), joint - marginal, rtol=1e-10
    )
    predictive = multivariate_t(
        np.asarray(post.mean(x_star)),
        np.asarray(post.shape_matrix(x_star)) + post.scale * 0.2 * np.eye(5),
        post.degrees_of_freedom,
    )
    np.testing.assert_allclose(predictive.logpdf(y_star), joint - marginal, rtol=1e-10)


def test_outputs_share_one_scale(kernel, data, fitted):
    x, y, x_star = data
    block = np.kron(np.eye(3), gram(kernel, x, "nngp") + 0.2 * np.eye(12))
    joint = multivariate_t(np.zeros(36), B / A * block, 2 * A)
    np.testing.assert_allclose(
        fitted.log_marginal_likelihood(), joint.logpdf(y.T.ravel()), rtol=1e-11
    )
    quadratic = y.T.ravel() @ np.linalg.solve(block, y.T.ravel())
    assert fitted.degrees_of_freedom == 2 * A + 36
    np.testing.assert_allclose(fitted.scale, (B + quadratic / 2) / (A + 18), rtol=1e-12)
    mean, cov = brute(kernel, x, y, x_star, 0.2, "nngp")
    np.testing.assert_allclose(fitted.mean(x_star), mean, atol=1e-11)
    np.testing.assert_allclose(fitted.shape_matrix(x_star), fitted.scale * cov, atol=1e-11)
    expected = (B + quadratic / 2) / (A + 18 - 1) * cov
    np.testing.assert_allclose(fitted.covariance(x_star), expected, atol=1e-11)
    np.testing.assert_allclose(fitted.variance(x_star), np.diag(expected), atol=1e-11)


@pytest.mark.parametrize("kind", ["nngp", "ntkgp"])
@pytest.mark.parametrize("noise", [0.2, np.linspace(0.1, 1, 36).reshape(12, 3)])
def test_leave_one_out_is_refitting(kernel, data, kind, noise):
    x, y, _ = data
    given = {"kind": kind, "prior": predict.InverseGamma(A, B), "mean": 0.1}
    loo = predict.posterior(kernel, x, y, noise=noise, **given).leave_one_out()
    noise = np.broadcast_to(noise, (12, 3))
    for i in (0, 6):
        rest = np.delete(np.arange(12), i)
        post = predict.posterior(kernel, x[rest], y[rest], noise=noise[rest], **given)
        one = slice(i, i + 1)
        np.testing.assert_allclose(loo.mean[one], post.mean(x[one]), atol=1e-10)
        spread = np.broadcast_to(np.reshape(loo.variance[i], (1, -1)), (1, 3))
        np.testing.assert_allclose(spread, post.variance(x[one]), atol=1e-10)
        logs = post.log_predictive_density(x[one], y[one], noise=noise[one])
        np.testing.assert_allclose(loo.log_density[i], logs, rtol=1e-10)


def test_a_certain_scale_is_the_gaussian_process(kernel, data, rng):
    x, y, x_star = data
    plain = predict.posterior(kernel, x, y, noise=0.2)
    post = predict.posterior(kernel, x, y, noise=0.2, prior=predict.InverseGamma(1e6, 1e6))
    y_star = rng.normal(size=(5, 3))
    for one, other in (
        (post.covariance(x_star), plain.covariance(x_star)),
        (post.log_marginal_likelihood(), plain.log_marginal_likelihood()),
        (post.leave_one_out().log_density, plain.leave_one_out().log_density),
        (
            post.log_predictive_density(x_star, y_star),
            plain.log_predictive_density(x_star, y_star),
        ),
    ):
        np.testing.assert_allclose(one, other, rtol=3e-4, atol=1e-6)


def test_trained_networks_keep_the_scale_of_their_prior(kernel, data):
    x, y, x_star = data
    prior = predict.InverseGamma(3.0, 5.0)
    post = predict.posterior(kernel, x, y, noise=0.2, kind="ntk", prior=prior)
    mean, cov = brute(kernel, x, y, x_star, 0.2, "ntk")
    assert post.degrees_of_freedom == 6
    np.testing.assert_allclose(post.mean(x_star), mean, atol=1e-11)
    np.testing.assert_allclose(post.shape_matrix(x_star), 5 / 3 * cov, atol=1e-11)
    np.testing.assert_allclose(post.covariance(x_star), 5 / 2 * cov, atol=1e-11)
    loo = post.leave_one_out()
    plain = predict.posterior(kernel, x, y, noise=0.2, kind="ntk").leave_one_out()
    np.testing.assert_allclose(loo.variance, 5 / 2 * plain.variance, atol=1e-11)


def test_samples_have_heavy_tails_and_one_scale(kernel, data):
    x, _, x_star = data
    prior = predict.InverseGamma(6.0, 2.0)
    post = predict.posterior(kernel, x, np.zeros((12, 2)), noise=0.2, kind="ntk", prior=prior)
    draws = np.asarray(post.sample(jax.random.key(1), x_star, 100_000))
    for o in range(2):
        c = np.asarray(post.covariance(x_star))
        np.testing.assert_allclose(np.cov(draws[..., o].T), c, atol=0.03 * c.max())
    kurtosis = np.mean(draws[:, 0, 0] ** 4) / np.mean(draws[:, 0, 0] ** 2) ** 2
    np.testing.assert_allclose(kurtosis, 3 + 6 / (12 - 4), rtol=0.1)
    # The scale they share correlates the squares: Var[s] / (3 E[s²] - E[s]²) = 1/11.
    correlation = np.corrcoef(draws[:, 0, 0] ** 2, draws[:, 0, 1] ** 2)[0, 1]
    np.testing.assert_allclose(correlation, 1 / 11, atol=0.03)


def test_no_covariance_with_two_degrees_of_freedom(kernel, data):
    x, y, x_star = data
    prior = predict.InverseGamma(1.0, 1.0)
    post = predict.posterior(kernel, x, y, kind="ntk", noise=0.1, prior=prior)
    for method in (post.covariance, post.variance):
        with pytest.raises(ValueError, match="more than 2"):
            method(x_star)
    assert np.all(np.isfinite(post.shape_matrix(x_star)))
    assert np.all(np.isinf(post.leave_one_out().variance))


@pytest.mark.parametrize("values", [(0.0, 1.0), (1.0, -1.0), (np.nan, 1.0), (1.0, np.inf)])
def test_refuses_bad_priors(values):
    with pytest.raises(ValueError, match="inverse gamma"):
        predict.InverseGamma(*values)


def test_prints_what_it_is(fitted):
    assert "Student" in repr(fitted)
    assert "degrees_of_freedom=39.4" in repr(fitted)
