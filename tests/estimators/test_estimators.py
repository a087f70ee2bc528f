"""Estimators against the formulas they stand for, and against what scikit-learn expects."""

import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_wine
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import WhiteKernel
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import widelimit as wl
from widelimit.estimators import NetworkKernel, WideClassifier, WideRegressor


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, (60, 4))
    y = np.sin(x[:, 0]) + 0.3 * x[:, 1] + 0.1 * rng.normal(size=60)
    return x, 10 * y + 5


@pytest.fixture(scope="module")
def fitted(table):
    return WideRegressor(learn=None, noise=0.05).fit(*table)


def by_hand(x, y, x_star, noise, weights=None):
    """The same prediction from the kernel of the same network, with NumPy."""
    weights = np.ones(len(x)) if weights is None else weights
    mean, std = np.average(x, axis=0, weights=weights), None
    std = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))
    center = np.average(y, weights=weights)
    size = np.sqrt(np.average((y - center) ** 2, weights=weights))
    with wl.precision.double_precision():
        model = wl.nn.mlp(
            x.shape[1], 1, 32, 3, weight_std=2**0.5, bias_std=0.3, key=jax.random.key(1)
        )
        k = wl.kernel(model)
        a, b = jnp.asarray((x - mean) / std), jnp.asarray((x_star - mean) / std)
        gram, cross, own = (np.asarray(k.nngp(*p)) for p in ((a,), (b, a), (b,)))
    inverse = np.linalg.inv(gram + np.diag(noise / weights))
    m = cross @ inverse @ ((y - center) / size) * size + center
    v = (own - cross @ inverse @ cross.T + noise * np.eye(len(x_star))) * size**2
    return m, v


def test_regressor_is_the_posterior(table, fitted):
    x, y = table
    mean, covariance = by_hand(x, y, x[:7] + 0.3, 0.05)
    got, std = fitted.predict(x[:7] + 0.3, return_std=True)
    _, full = fitted.predict(x[:7] + 0.3, return_cov=True)
    np.testing.assert_allclose(got, mean, rtol=1e-9)
    np.testing.assert_allclose(std, np.sqrt(np.diag(covariance)), rtol=1e-8)
    np.testing.assert_allclose(full, covariance, atol=1e-8 * np.max(covariance))


def test_weights_are_repeated_rows(table):
    x, y = table
    weights = np.arange(len(x)) % 3
    one = WideRegressor(learn=None, noise=0.1).fit(x, y, sample_weight=weights)
    many = WideRegressor(learn=None, noise=0.1).fit(
        np.repeat(x, weights, axis=0), np.repeat(y, weights)
    )
    for a, b in zip(one.predict(x, return_std=True), many.predict(x, return_std=True)):
        np.testing.assert_allclose(a, b, rtol=1e-8)


@pytest.mark.parametrize("kind", [WideRegressor, WideClassifier])
def test_weights_are_repeated_rows_in_learning(table, kind):
    x, y = table[0][:20], np.round(table[1][:20] / 20)
    weights = np.arange(20) % 4
    order = np.random.default_rng(1).permutation(20)
    one = kind("relu x 1", restarts=0).fit(x[order], y[order], sample_weight=weights[order])
    many = kind("relu x 1", restarts=0).fit(np.repeat(x, weights, axis=0), np.repeat(y, weights))
    assert one.noise_ == many.noise_
    assert one.log_marginal_likelihood_ == many.log_marginal_likelihood_
    np.testing.assert_array_equal(one.predict(x), many.predict(x))


def test_evidence_of_repeated_rows(table):
    x, y = table[0][:12], table[1][:12]
    rows = np.repeat(np.arange(12), np.resize([1, 3, 2], 12))
    fitted = WideRegressor("relu x 1", learn=None, noise=0.1).fit(x[rows], y[rows])
    x, y = ((v - v.mean(0)) / v.std(0) for v in (x[rows], y[rows]))
    model = wl.nn.mlp(4, 1, 32, 1, weight_std=2**0.5, bias_std=0.3, key=jax.random.key(1))
    gram = np.asarray(wl.kernel(model).nngp(jnp.asarray(x))) + 0.1 * np.eye(len(rows))
    want = multivariate_normal.logpdf(y, cov=gram)
    np.testing.assert_allclose(fitted.log_marginal_likelihood_, want, rtol=1e-9)


def test_several_outputs(table):
    x, y = table
    both = WideRegressor(learn=None, noise=0.05).fit(x, np.stack([y, -2 * y + 1], 1))
    one = WideRegressor(learn=None, noise=0.05).fit(x, y)
    mean, std = both.predict(x[:5], return_std=True)
    want, spread = one.predict(x[:5], return_std=True)
    np.testing.assert_allclose(mean, np.stack([want, -2 * want + 1], 1), rtol=1e-9)
    np.testing.assert_allclose(std, np.stack([spread, 2 * spread], 1), rtol=1e-9)
    assert both.sample_y(x[:5], 3).shape == (5, 2, 3)


def test_samples_have_the_predicted_moments(table, fitted):
    x = table[0][:3] + 0.2
    mean, covariance = fitted.predict(x, return_cov=True)
    draws = fitted.sample_y(x, 20_000, random_state=1)
    error = np.sqrt(np.diag(covariance) / 20_000)
    assert np.all(np.abs(draws.mean(1) - mean) < 4.5 * error)
    np.testing.assert_allclose(np.cov(draws), covariance, atol=0.05 * np.max(covariance))


def test_learning_raises_the_evidence_and_finds_the_noise():
    rng = np.random.default_rng(3)
    x = rng.uniform(-2, 2, (200, 2))
    y = np.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + 0.2 * rng.normal(size=200)
    start = WideRegressor("erf x 2", learn=None, noise=0.5).fit(x, y)
    learned = WideRegressor("erf x 2").fit(x, y)
    assert learned.log_marginal_likelihood_ > start.log_marginal_likelihood_ + 20
    assert np.sqrt(learned.noise_) * np.std(y) == pytest.approx(0.2, rel=0.15)


def test_relevance_finds_what_matters(table):
    x, y = table
    learned = WideRegressor("erf x 1", relevance=True).fit(x, y)
    assert min(learned.input_scales_[:2]) > 2 * max(learned.input_scales_[2:])


def test_relevance_needs_rows(table):
    x, y = table[0][:, :3], table[1]
    few = WideRegressor("erf x 1").fit(x[:47], y[:47])
    np.testing.assert_array_equal(few.input_scales_, 1)
    enough = WideRegressor("erf x 1").fit(x[:48], y[:48])
    forced = WideRegressor("erf x 1", relevance=True).fit(x[:48], y[:48])
    np.testing.assert_array_equal(enough.input_scales_, forced.input_scales_)
    assert len(set(enough.input_scales_)) == 3


@pytest.mark.parametrize("kind", ["nngp", "ntk"])
def test_frozen_predicts_the_same(table, kind):
    x, y = table
    learned = WideRegressor("erf x 1", kind=kind, relevance=True, max_learning_rows=30).fit(x, y)
    frozen = learned.frozen()
    frozen = WideRegressor(**json.loads(json.dumps(frozen.get_params()))).fit(x, y)
    for a, b in zip(frozen.predict(x, return_std=True), learned.predict(x, return_std=True)):
        np.testing.assert_allclose(a, b, rtol=1e-10)


@pytest.mark.parametrize("estimator", [WideRegressor, WideClassifier])
def test_pickle_and_clone(table, estimator):
    x, y = table
    y = y if estimator is WideRegressor else (y > 5).astype(str)
    made = estimator(learn=None).fit(x, y)
    read = pickle.loads(pickle.dumps(made))
    np.testing.assert_array_equal(read.predict(x), made.predict(x))
    assert clone(made).get_params() == made.get_params()


def test_own_models(table):
    x, y = table

    def f(params, row):
        w, v, out = params
        return out @ (jax.nn.sigmoid(w @ row / 2) * (v @ row / 2)) / 8

    shapes = [jax.ShapeDtypeStruct(s, float) for s in ((64, 4), (64, 4), (1, 64))]
    module = wl.nn.mlp(4, 1, 16, 1, key=jax.random.key(0))
    for network in ((f, shapes), wl.kernel(f, shapes), module):
        made = WideRegressor(network, learn=None).fit(x, y)
        assert made.score(x, y) > 0.7


def test_classifier_is_calibrated_and_keeps_labels():
    x, y = load_wine(return_X_y=True)
    names = np.array(["barbera", "grignolino", "barolo"])[y]
    plain = WideClassifier("relu x 1", learn=None)
    proba = cross_val_predict(plain, x, names, cv=4, method="predict_proba")
    fitted = clone(plain).fit(x, names)
    assert list(fitted.classes_) == ["barbera", "barolo", "grignolino"]
    labels = np.searchsorted(fitted.classes_, names)
    assert wl.predict.accuracy(proba, labels) > 0.96
    assert wl.predict.negative_log_likelihood(proba, labels) < 0.08
    assert np.min(proba) > 1 / (3 * (len(x) + 2))
    # Far away from all data nothing is known.
    far = fitted.predict_proba(1e4 * np.ones((1, x.shape[1])))
    assert np.max(far) < 0.75
    learned = WideClassifier("relu x 1", max_learning_rows=100).fit(x, names)
    assert learned.log_marginal_likelihood_ > fitted.log_marginal_likelihood_ + 50


def test_intervals_cover():
    x, y = load_diabetes(return_X_y=True)
    made = WideRegressor("relu x 1").fit(x[:300], y[:300])
    mean, std = made.predict(x[300:], return_std=True)
    inside = np.mean(np.abs(y[300:] - mean) < norm.ppf(0.95) * std)
    assert 0.8 < inside < 0.97
    assert made.score(x[300:], y[300:]) > 0.4


def test_pandas_pipeline_and_grid_search():
    frame = load_wine(as_frame=True)
    search = GridSearchCV(
        make_pipeline(StandardScaler().set_output(transform="pandas"), WideClassifier(learn=None)),
        {"wideclassifier__network": ["relu x 1", "erf x 1"], "wideclassifier__noise": [0.01, 0.1]},
        cv=2,
    ).fit(frame.data, frame.target)
    best = search.best_estimator_[-1]
    assert list(best.feature_names_in_) == list(frame.data.columns)
    assert search.best_score_ > 0.95
    with pytest.raises(ValueError, match="feature names"):
        best.predict(frame.data.rename(columns={"alcohol": "spirit"}))


def test_kernel_object_in_scikit_learn(table):
    x, y = table
    x, y = StandardScaler().fit_transform(x), (y - y.mean()) / y.std()
    process = GaussianProcessRegressor(NetworkKernel("relu x 2") + WhiteKernel(0.05)).fit(x, y)
    assert process.kernel_.k1.variance != 1.0
    assert process.score(x, y) > 0.8
    kernel = NetworkKernel("relu x 2", variance=2.0)
    np.testing.assert_allclose(kernel.diag(x), np.diag(kernel(x)), rtol=1e-12)
    machine = SVC(kernel=kernel, C=10).fit(x[:40], y[:40] > 0)
    same = SVC(kernel="precomputed", C=10).fit(kernel(x[:40]), y[:40] > 0)
    np.testing.assert_array_equal(machine.predict(x), same.predict(kernel(x, x[:40])))


def test_precision_and_settings_of_the_caller(table, fitted):
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    try:
        again = WideRegressor(learn=None, noise=0.05).fit(*table)
        np.testing.assert_array_equal(again.predict(table[0]), fitted.predict(table[0]))
        assert not jax.config.jax_enable_x64
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"network": "relu"}, "not understood"),
        ({"network": "rellu x 3"}, "one of relu"),
        ({"kind": "rbf"}, "kind is"),
        ({"learn": "everything"}, "learn is"),
        ({"noise": -1.0}, "noise is a variance"),
        ({"input_scales": [1.0]}, "input_scales must be 4"),
        ({"scales": {"nothing": 1.0}}, "no parameters nothing"),
        ({"max_learning_rows": 1}, "max_learning_rows"),
    ],
)
def test_settings_that_make_no_sense(table, options, said):
    with pytest.raises(ValueError, match=said):
        WideRegressor(**options).fit(*table)


def test_too_many_rows():
    x = np.arange(20_001.0)[:, None]
    with pytest.raises(ValueError, match=r"20001 distinct rows: .* 3.2 GB each and 13 GB together"):
        WideRegressor().fit(x, x[:, 0])


def test_bad_weights(table):
    x, y = table
    with pytest.raises(ValueError, match="at least 0"):
        WideRegressor(learn=None).fit(x, y, sample_weight=-np.ones(len(x)))


@pytest.mark.parametrize("learn", [None, "evidence"])
def test_tables_that_say_little(learn):
    """One row, a constant target, equal rows with different targets: sane answers."""
    options = {"network": "erf x 1", "learn": learn}
    one = WideRegressor(**options).fit([[1.0, 2.0]], [3.0])
    assert one.predict([[5.0, 1.0]])[0] == pytest.approx(3.0)
    constant = WideRegressor(**options).fit([[0.0], [1.0], [2.0]], [4.0, 4.0, 4.0])
    np.testing.assert_allclose(constant.predict([[7.0]]), 4.0)
    x = np.repeat(np.arange(4.0), 5)[:, None]
    y = np.random.default_rng(0).normal(size=20)
    equal = WideRegressor(**options).fit(x, y)
    assert np.all(np.isfinite(equal.predict(x, return_std=True)))
    single = WideClassifier(**options).fit([[0.0], [1.0]], ["a", "a"])
    assert list(single.predict([[3.0]])) == ["a"]
