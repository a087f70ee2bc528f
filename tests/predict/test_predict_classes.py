"""Class probabilities against sampling and closed forms; metrics against scikit-learn."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import calibration
from sklearn.metrics import accuracy_score, log_loss

from widelimit import predict


def test_two_classes_in_closed_form(rng):
    mean, variance, tau = rng.normal(size=(20, 2)), rng.uniform(0.01, 4, size=(20, 2)), 0.3
    p = predict.class_probabilities(mean, variance, temperature=tau)
    exact = norm.cdf((mean[:, 0] - mean[:, 1]) / np.sqrt(variance.sum(1) + 2 * tau**2))
    np.testing.assert_allclose(p[:, 0], exact, atol=1e-12)
    np.testing.assert_allclose(np.sum(p, 1), 1, atol=1e-14)


def test_many_classes_against_sampling(rng):
    mean, std = rng.normal(size=(1, 6)), np.array([[0.1, 0.5, 1.0, 2.0, 0.3, 1.5]])
    draws = mean + std * rng.normal(size=(100_000, 6))
    sampled = np.bincount(draws.argmax(1), minlength=6) / len(draws)
    p = np.asarray(predict.class_probabilities(mean, std**2)[0])
    np.testing.assert_allclose(p, sampled, atol=4 * math.sqrt(0.25 / len(draws)))


def test_probability_tails_keep_relative_precision():
    p = predict.class_probabilities(np.array([[0.0, 6.0]]), 0.5)
    np.testing.assert_allclose(p[0, 0], norm.cdf(-6.0), rtol=1e-10)


def test_no_spread_at_all_is_the_argmax_with_shared_ties():
    p = predict.class_probabilities(np.array([[1.0, 2.0, 0.0], [3.0, 3.0, 1.0], [0.0, 0, 0]]))
    np.testing.assert_allclose(p, [[0, 1, 0], [0.5, 0.5, 0], [1 / 3] * 3], atol=1e-12)


def test_variance_per_row_and_float32():
    mean = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    p = predict.class_probabilities(mean, np.array([0.1, 10.0], np.float32))
    assert p.dtype == np.float32
    assert p[0, 0] > p[1, 0] > 0.5


def test_link_is_recovered(rng):
    mean, variance = 3 * rng.normal(size=(3000, 4)), rng.choice([0.01, 9.0], size=3000)
    std = np.sqrt(0.3 * variance + 0.6**2)
    labels = (mean + std[:, None] * rng.normal(size=mean.shape)).argmax(1)
    link = predict.fit_link(mean, variance, labels)
    assert abs(link.temperature - 0.6) < 0.1
    assert abs(link.scale - 0.3) < 0.05
    np.testing.assert_array_equal(
        link(mean, variance),
        predict.class_probabilities(
            mean, variance, temperature=link.temperature, scale=link.scale
        ),
    )


def test_link_without_variance_is_a_temperature(rng):
    mean = rng.normal(size=(3000, 4))
    labels = (mean + 0.5 * rng.normal(size=mean.shape)).argmax(1)
    link = predict.fit_link(mean, 0.0, labels)
    assert abs(link.temperature - 0.5) < 0.05
    assert link.scale == 1


def test_weights_of_a_link_count_examples(rng):
    mean, variance = rng.normal(size=(60, 3)), rng.uniform(0.1, 1, 60)
    labels, counts = rng.integers(0, 3, 60), rng.integers(0, 4, 60)
    weighted = predict.fit_link(mean, variance, labels, weights=5.0 * counts)
    repeated = predict.fit_link(*(np.repeat(v, counts, 0) for v in (mean, variance, labels)))
    np.testing.assert_allclose(
        weighted(mean, variance), repeated(mean, variance), atol=1e-4
    )
    for bad in (np.ones(59), np.zeros(60), -np.ones(60), np.full(60, np.nan)):
        with pytest.raises(ValueError, match="weights must be 60 numbers"):
            predict.fit_link(mean, variance, labels, weights=bad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": np.ones(3)}, "two classes"),
        ({"mean": np.ones((3, 1))}, "two classes"),
        ({"mean": np.full((3, 2), np.nan)}, "mean contains NaN"),
        ({"variance": -1.0}, "negative"),
        ({"variance": np.ones(2)}, "does not match"),
        ({"variance": np.ones((3, 3))}, "does not match"),
        ({"temperature": -1.0}, "temperature"),
        ({"scale": math.inf}, "scale"),
    ],
)
def test_refuses_bad_scores(arguments, message):
    with pytest.raises(ValueError, match=message):
        predict.class_probabilities(**{"mean": np.ones((3, 2)), "variance": 1.0, **arguments})


@pytest.fixture
def predictions(rng):
    p = rng.dirichlet([0.5, 0.7, 1.0], size=500)
    labels = np.array([rng.choice(3, p=row) for row in p])
    return p, labels


def test_metrics_match_scikit_learn(predictions):
    p, labels = predictions
    assert predict.accuracy(p, labels) == accuracy_score(labels, p.argmax(1))
    np.testing.assert_allclose(
        predict.negative_log_likelihood(p, labels), log_loss(labels, p), rtol=1e-10
    )
    curve = predict.calibration_curve(p, labels, bins=10)
    right = p.argmax(1) == labels
    true, predicted = calibration.calibration_curve(right, p.max(1), n_bins=10)
    np.testing.assert_allclose(curve.accuracy, true)
    np.testing.assert_allclose(curve.confidence, predicted)
    assert curve.examples.sum() == len(labels)


def test_calibration_error_by_hand():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    labels = np.array([0, 1, 1, 1])
    expected = 0.5 * abs(0.5 - 0.9) + 0.25 * 0.4 + 0.25 * 0.3
    found = predict.expected_calibration_error(p, labels, bins=10)
    np.testing.assert_allclose(found, expected)


def test_certain_and_wrong_is_infinitely_unlikely():
    assert predict.negative_log_likelihood([[1.0, 0.0]], [1]) == math.inf


@pytest.mark.parametrize(
    ("p", "labels", "message"),
    [
        ([[0.5, 0.6]], [0], "sum to 1"),
        ([[0.5, 0.5]], [2], "labels must be in"),
        ([[0.5, 0.5]], [0.0], "integers"),
        ([[0.5, 0.5]], [0, 1], "1 integers"),
        ([0.5, 0.5], [0], "shape"),
    ],
)
def test_refuses_bad_metrics_input(p, labels, message):
    with pytest.raises(ValueError, match=message):
        predict.accuracy(p, labels)
