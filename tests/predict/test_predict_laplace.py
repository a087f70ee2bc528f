"""Laplace's approximation against dense NumPy, scikit-learn and integration over scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit, log_softmax, softmax
from scipy.stats import norm
from sklearn.datasets import load_wine
from sklearn.gaussian_process import GaussianProcessClassifier

import widelimit as wl
from predict.oracles import Precomputed, network, shapes
from widelimit import predict
from widelimit.predict._softmax import expected_softmax


def dense(gram, gram_cross, gram_star, labels, classes):
    """Newton's method with all classes in one matrix; R and W 2006, section 3.5."""
    n, m = len(labels), len(gram_star)
    y = np.eye(classes)[labels]
    big = np.kron(np.eye(classes), gram)
    f = np.zeros((n, classes))
    for _ in range(100):
        p = softmax(f, 1)
        flat = p.T.ravel()
        stack = np.vstack([np.diag(c) for c in p.T])
        w = np.diag(flat) - stack @ stack.T
        b = w @ f.T.ravel() + (y - p).T.ravel()
        f = np.linalg.solve(np.linalg.inv(big) + w, b).reshape(classes, n).T
    inverse = np.linalg.inv(big)
    flat = f.T.ravel()
    evidence = (
        np.sum(log_softmax(f, 1)[np.arange(n), labels])
        - 0.5 * flat @ inverse @ flat
        - 0.5 * np.linalg.slogdet(np.eye(n * classes) + big @ w)[1]
    )
    inner = np.linalg.solve(np.eye(n * classes) + w @ big, w)
    covariances = []
    for i in range(m):
        cross = np.kron(np.eye(classes), gram_cross[i][None])
        covariances.append(gram_star[i] * np.eye(classes) - cross @ inner @ cross.T)
    return gram_cross @ np.linalg.solve(gram, f), np.array(covariances), evidence


@pytest.fixture
def labels(rng):
    return rng.integers(0, 3, 12)


@pytest.mark.parametrize("kind", ["nngp", "ntkgp"])
@pytest.mark.parametrize("scale", [0.5, 20.0])
def test_matches_dense_newton(kernel, data, labels, kind, scale):
    x, _, x_star = data
    one = kernel.nngp if kind == "nngp" else kernel.ntk
    gram = scale * np.asarray(one(x))
    cross = scale * np.asarray(one(x_star, x))
    prior = scale * np.diag(one(x_star))
    mean, cov, evidence = dense(gram, cross, prior, labels, 3)
    found = predict.laplace(kernel, x, labels, kind=kind, scale=scale)
    assert found.converged
    np.testing.assert_allclose(found.latent_mean(x_star), mean, atol=1e-8)
    np.testing.assert_allclose(found.latent_covariance(x_star), cov, atol=1e-8)
    np.testing.assert_allclose(found.log_marginal_likelihood(), evidence, rtol=1e-9)


def test_two_classes_are_logistic_regression_of_twice_the_kernel(kernel, data, labels):
    x, _, x_star = data
    labels = np.minimum(labels, 1)
    gram = 2 * 4.0 * np.asarray(kernel.nngp(np.concatenate([x, x_star])))
    rows = np.arange(17)[:, None]
    peer = GaussianProcessClassifier(Precomputed(gram), optimizer=None, max_iter_predict=100)
    peer.fit(rows[:12], labels)
    found = predict.laplace(kernel, x, labels, scale=4.0)
    # The peer stops Newton's method at a change of 1e-10 of its objective.
    np.testing.assert_allclose(
        found.log_marginal_likelihood(), peer.log_marginal_likelihood_value_, rtol=1e-8
    )
    # The peer integrates the logistic function by five error functions.
    p = found.probabilities(x_star)
    np.testing.assert_allclose(p, peer.predict_proba(rows[12:]), atol=2e-3)
    mean, cov = found.latent_mean(x_star), found.latent_covariance(x_star)
    for i in range(5):
        m = float(mean[i, 1] - mean[i, 0])
        s = float(jnp.sqrt(cov[i, 0, 0] + cov[i, 1, 1] - 2 * cov[i, 0, 1]))
        integrand = lambda u, m=m, s=s: expit(m + s * u) * norm.pdf(u)
        exact = quad(integrand, -10, 10, epsabs=1e-13)[0]
        np.testing.assert_allclose(p[i, 1], exact, atol=1e-11)


@pytest.mark.parametrize("classes", [3, 10])
def test_softmax_is_integrated(rng, classes):
    mean = 2 * rng.normal(size=(4, classes))
    root = rng.normal(size=(4, classes, classes)) * np.sqrt(3 / classes)
    cov = np.einsum("mij,mkj->mik", root, root)
    found = np.asarray(expected_softmax(jnp.asarray(mean), jnp.asarray(cov)))
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-14)
    finer = expected_softmax(jnp.asarray(mean), jnp.asarray(cov), points=2**16)
    np.testing.assert_allclose(found, finer, atol=6e-4)
    for i in range(4):
        draws = softmax(mean[i] + rng.normal(size=(200_000, classes)) @ root[i].T, 1)
        error = draws.std(0) / np.sqrt(len(draws))
        assert np.all(np.abs(finer[i] - draws.mean(0)) < 5 * error)


def test_softmax_of_steep_and_certain_scores():
    wide = expected_softmax(jnp.asarray([[0.0, 3000.0]]), 1e6 * jnp.eye(2)[None])
    np.testing.assert_allclose(wide[0, 1], norm.cdf(3 / np.sqrt(2)), atol=1e-3)
    certain = expected_softmax(jnp.asarray([[0.0, 1.0, 2.0]]), jnp.zeros((1, 3, 3)))
    np.testing.assert_allclose(certain[0], softmax([0.0, 1.0, 2.0]), rtol=1e-13)


def test_far_from_data_all_classes_are_alike(data, labels):
    """A linear network knows nothing at the origin."""
    x = data[0]
    kernel = wl.kernel(lambda p, v: p @ v, jax.ShapeDtypeStruct((3, 4), jnp.float64))
    p = predict.laplace(kernel, x, labels).probabilities(np.zeros((1, 4)))
    np.testing.assert_allclose(p[0], 1 / 3, atol=1e-12)


def test_a_class_that_was_never_seen(kernel, data, labels):
    x, _, x_star = data
    found = predict.laplace(kernel, x, np.minimum(labels, 1), classes=3)
    p = found.probabilities(x_star)
    assert p.shape == (5, 3)
    assert np.all((p > 0) & (p < 1))
    same = predict.laplace(kernel, x, np.zeros(12, int), classes=2)
    assert np.all(same.probabilities(x)[:, 0] > 0.5)


def test_repeated_rows_and_huge_scales_converge(kernel, data, labels):
    x, _, x_star = data
    twice = predict.laplace(
        kernel, np.concatenate([x, x]), np.concatenate([labels, 2 - labels]), scale=1e4
    )
    assert twice.converged
    assert np.all(np.isfinite(twice.probabilities(x_star)))
    one = predict.laplace(kernel, x[:1], [0], classes=2)
    assert one.probabilities(x[:1])[0, 0] > 0.5


def test_float32(kernel, single, data, labels):
    x, _, x_star = data
    found = predict.laplace(single, x.astype(np.float32), labels, scale=5.0)
    p = found.probabilities(x_star.astype(np.float32))
    assert p.dtype == np.float32
    wide = predict.laplace(kernel, x, labels, scale=5.0)
    np.testing.assert_allclose(p, wide.probabilities(x_star), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.ones(12)}, "integers"),
        ({"labels": np.ones(11, int)}, "12 integers"),
        ({"labels": np.array([-1] + [1] * 11)}, "labels must be in"),
        ({"labels": np.array([5] + [1] * 11), "classes": 3}, "labels must be in"),
        ({"labels": np.zeros(12, int)}, "single class"),
        ({"classes": 1}, "at least 2"),
        ({"classes": 2.5}, "at least 2"),
        ({"x": np.full((12, 4), np.nan)}, "NaN"),
        ({"scale": 0.0}, "one positive number"),
        ({"scale": np.inf}, "one positive number"),
        ({"kind": "ntk"}, "'nngp' or 'ntkgp'"),
    ],
)
def test_refuses_bad_input(kernel, data, labels, change, message):
    given = {"x": data[0], "labels": labels, **change}
    with pytest.raises(ValueError, match=message):
        predict.laplace(kernel, **given)


def test_refuses_bad_points(kernel, data, labels):
    found = predict.laplace(kernel, data[0], labels)
    with pytest.raises(ValueError, match="power of two"):
        found.probabilities(data[2], points=1000)


@pytest.mark.slow
def test_wine_against_regression_with_a_link():
    """Both name the classes; Laplace's approximation doubts more than the fitted link."""
    x, labels = load_wine(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:80], order[80:]
    kernel = wl.kernel(network, shapes(inputs=13))
    fits = [predict.laplace(kernel, x[train], labels[train], scale=s) for s in (1.0, 10.0)]
    evidence = [float(fit.log_marginal_likelihood()) for fit in fits]
    assert evidence[1] > evidence[0] > 80 * np.log(1 / 3)
    p = fits[1].probabilities(x[test])
    post = predict.posterior(kernel, x[train], np.eye(3)[labels[train]], noise=0.1)
    link = predict.fit_link(*post.leave_one_out(), labels[train])
    q = link(post.mean(x[test]), post.variance(x[test]))
    for found, likelihood, calibration in ((p, 0.3, 0.25), (q, 0.1, 0.1)):
        assert predict.accuracy(found, labels[test]) > 0.95
        assert predict.negative_log_likelihood(found, labels[test]) < likelihood
        assert predict.expected_calibration_error(found, labels[test]) < calibration
