"""Learning: gradients against differences, planted values, and data that are hard to learn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import predict
from widelimit.predict._objective import Objective, Point
from widelimit.predict._search import search

OBJECTIVES = ["evidence", "leave_one_out"]


def objective(name, kernel, x, y, reading="nngp", counts=1.0):
    rows, counts = jnp.asarray(np.linspace(0.5, 2, len(x))), counts * jnp.ones(len(x))
    x, y = jnp.asarray(x), jnp.asarray(y)
    return Objective.filled(kernel, reading, name, 0.0, x, y, rows, counts)


@pytest.mark.parametrize("reading", ["nngp", "ntk"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_against_differences(kernel, data, rng, name, reading):
    x, y, _ = data
    x = np.concatenate([x, x[:1], x[:1] + 1e-7])
    y = np.concatenate([y, y[:2]])
    start = Point([jnp.zeros(()) for _ in range(4)], jnp.log(0.3), jnp.zeros(4), jnp.zeros(()))
    slope = objective(name, kernel, x, y, reading).slope(start)
    at = rng.normal(size=10) / 4
    value, gradient = slope(at)
    for k in range(10):
        step = 1e-5 * np.eye(10)[k]
        difference = (slope(at + step)[0] - slope(at - step)[0]) / 2e-5
        np.testing.assert_allclose(gradient[k], difference, rtol=1e-5, atol=1e-7 * abs(value))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_rows_that_fill_up_count_nothing(light, rng, name):
    x, y = rng.normal(size=(33, 4)), rng.normal(size=(33, 2))
    target = objective(name, light, x, y)
    assert target.x.shape[0] > 33
    point = Point([jnp.zeros(()), jnp.zeros(())], jnp.log(0.3), None, None)
    value, _ = target.slope(point)(np.append(np.zeros(2), np.log(0.3)))
    post = predict.posterior(light, x, y, noise=0.3 * np.linspace(0.5, 2, 33))
    evidence = post.log_marginal_likelihood()
    expected = evidence if name == "evidence" else post.leave_one_out().log_density.sum()
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def at_a_point(name, light, x, y, counts):
    """Value and gradient of the objective in two standard deviations and the noise."""
    one = jnp.ones(len(x))
    x, y = jnp.asarray(x), jnp.asarray(y)
    target = Objective.filled(light, "nngp", name, 0.0, x, y, one, counts * one)
    start = Point([jnp.zeros(()), jnp.zeros(())], jnp.zeros(()), None, None)
    return target.slope(start)(np.array([0.1, 0.2, np.log(0.3)]))


@pytest.mark.parametrize("outputs", [None, 2])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_row_that_counts_three_times_is_three_rows(light, data, name, outputs):
    x, y, _ = data
    y = y[:, 0] if outputs is None else y[:, :outputs]
    counts = np.resize([1, 3, 2, 1], 12)
    rows = np.repeat(np.arange(12), counts)
    for got, want in zip(
        at_a_point(name, light, x, y, counts), at_a_point(name, light, x[rows], y[rows], 1.0)
    ):
        np.testing.assert_allclose(got, want, rtol=1e-9)


def test_two_halves_are_one_row(light, data):
    x, y, _ = data
    rows = np.repeat(np.arange(12), 2)
    halves = at_a_point("evidence", light, x[rows], y[rows], 0.5)
    whole = at_a_point("evidence", light, x, y, 1.0)
    for got, want in zip(halves, whole):
        np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize("kind", ["nngp", "ntkgp"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_value_is_that_of_the_posterior(kernel, data, name, kind):
    x, y, _ = data
    rows = np.linspace(0.5, 2, 12)
    seen = []
    fit = predict.learn(
        kernel, x, y, noise=0.3, kind=kind, objective=name, input_scales=True, output_scale=True,
        row_noise_factor=rows, mean=0.1, steps=5, progress=lambda *given: seen.append(given),
    )  # fmt: skip
    post = predict.posterior(
        fit.kernel, x * fit.input_scales, y, noise=fit.noise * rows, kind=kind, mean=0.1,
        scale=fit.output_scale,
    )  # fmt: skip
    if name == "evidence":
        expected = post.log_marginal_likelihood()
    else:
        expected = post.leave_one_out().log_density.sum()
    np.testing.assert_allclose(fit.value, expected, rtol=1e-10)
    assert fit.history.shape == (6,)
    assert fit.history[-1] == fit.value
    assert np.all(np.diff(fit.history) > 0)
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5]
    assert [value for _, value in seen] == list(fit.history[1:])
    assert not fit.converged
    assert fit.input_scales.shape == (4,)


def planted(kernel, rng, n=150, noise=0.2, d=4):
    """A function of the network's own prior at other scales, seen with noise."""
    x = rng.normal(size=(n, d))
    gram = np.asarray(kernel.nngp(x)) + 1e-10 * np.eye(n)
    y = np.linalg.cholesky(gram) @ rng.normal(size=(n, 2))
    return x, y + np.sqrt(noise) * rng.normal(size=y.shape)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_planted_noise_is_recovered(kernel, rng, name):
    x, y = planted(kernel, rng)
    start = kernel.with_stds({"[0][0]": 0.4, "[1][0]": 2.0})
    fit = predict.learn(start, x, y, noise=2.0, objective=name)
    assert fit.converged
    assert 0.14 < fit.noise < 0.28
    assert fit.value > fit.history[0] + 20
    assert fit.jitter == 0
    assert set(fit.kernel.priors) == set(kernel.priors)
    again = predict.learn(fit.kernel, x, y, noise=fit.noise, objective=name)
    np.testing.assert_allclose(again.value, fit.value, atol=1e-3)
    truth = predict.posterior(kernel, x, y, noise=0.2)
    if name == "evidence":
        assert fit.value >= float(truth.log_marginal_likelihood()) - 1e-6


def test_features_without_effect_are_scaled_down(kernel, rng):
    x = rng.normal(size=(120, 4))
    y = np.sin(2 * x[:, 0]) + 0.05 * rng.normal(size=120)
    fit = predict.learn(kernel, x, y, input_scales=True)
    assert fit.input_scales.shape == (4,)
    assert np.all(fit.input_scales[1:] < 0.1 * fit.input_scales[0])


def test_what_is_kept_stays(light, data):
    x, y = data[0][:4], data[1][:4]
    fit = predict.learn(light, x, y, noise=0.4, learn_noise=False)
    assert fit.noise == 0.4
    fit = predict.learn(light, x, y, noise=0.0, learn_noise=False, steps=3)
    assert fit.noise == 0
    assert fit.jitter == 0
    fit = predict.learn(light, x, y, learn_stds=False)
    assert [p.std for p in fit.kernel.priors.values()] == [1.0, 1.0]
    assert fit.output_scale == 1
    assert fit.input_scales is None


def test_constants_stay_constant(rng):
    s = jax.ShapeDtypeStruct((64,), jnp.float64)
    kernel = wl.kernel(
        lambda p, v: p[1] @ jax.nn.relu(v[0] * p[0] * p[2]) / 8.0, [s, s, s],
        prior=[wl.Prior(), wl.Prior(), wl.Prior.constant(0.3)],
    )  # fmt: skip
    x = rng.normal(size=(8, 1))
    fit = predict.learn(kernel, x, x[:, 0], noise=0.1, steps=2)
    assert len(jax.tree.leaves(fit.kernel)) == 2
    assert fit.kernel.stds[2] == 0
    assert fit.kernel.stds[0] != 1


def test_restarts_are_reproducible_and_no_worse(light, data):
    x, y, _ = data
    given = {"noise": 0.1, "restarts": 2, "steps": 15}
    one = predict.learn(light, x, y, seed=3, **given)
    two = predict.learn(light, x, y, seed=3, **given)
    assert one.value == two.value
    assert one.noise == two.noise
    plain = predict.learn(light, x, y, noise=0.1, steps=15)
    assert one.value >= plain.value


def test_bounds_hold(light, data):
    x, y, _ = data
    bounds = predict.Bounds(stds=(0.9, 1.1), noise=(0.5, 2.0))
    fit = predict.learn(light, x, y, noise=0.1, bounds=bounds)
    assert 0.05 * (1 - 1e-9) <= fit.noise <= 0.2 * (1 + 1e-9)
    for prior in fit.kernel.priors.values():
        assert 0.9 - 1e-9 <= prior.std <= 1.1 + 1e-9


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("case", ["one row", "constant", "zero", "duplicates"])
def test_odd_data(light, data, name, case):
    x, y, x_star = data
    y = y[:, 0]
    if case == "one row":
        x, y = x[:1], y[:1]
    elif case == "constant":
        y = np.full(12, 3.0)
    elif case == "zero":
        y = np.zeros(12)
    else:
        y = x @ np.array([1.0, -0.5, 0.3, 2.0])
        x, y = np.concatenate([x, x]), np.concatenate([y + 0.5, y - 0.5])
    fit = predict.learn(light, x, y, objective=name)
    assert np.isfinite(fit.value)
    assert fit.noise > 0
    if case == "duplicates":
        assert 0.2 < fit.noise < 0.35
    post = predict.posterior(fit.kernel, x, y, noise=fit.noise)
    assert np.all(np.isfinite(post.mean(x_star)))


def test_float32(single, data):
    x, y, _ = (v.astype(np.float32) for v in data)
    fit = predict.learn(single, x, y, noise=0.1, steps=10, input_scales=True)
    assert fit.value > fit.history[0]
    assert np.isfinite(fit.noise)


def test_the_search_turns_back_where_nothing_is_finite():
    """A maximum at the edge of what can be computed is found from the computable side."""

    def slope(point):
        if point[0] > 1:
            return np.nan, np.full(1, np.nan)
        return -((point[0] - 0.9) ** 2), -2 * (point - 0.9)

    limits = (np.array([-50.0]), np.array([50.0]))
    found = search(slope, np.array([[-30.0], [4.0]]), limits, 1, 100, None)
    np.testing.assert_allclose(found.point, 0.9, atol=1e-4)
    with pytest.raises(ValueError, match="not finite at any of 2 starts"):
        search(slope, np.array([[3.0], [4.0]]), limits, 1, 100, None)


def test_no_start_that_works_is_an_error(light, data):
    x, y, _ = data
    x, y = np.concatenate([x, x]), np.concatenate([y, -y])
    with pytest.raises(ValueError, match="larger noise"):
        predict.learn(light, x, y, noise=1e-30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.ones(11)}, "12 examples and y 11"),
        ({"y": np.full(12, np.inf)}, "y contains NaN"),
        ({"x": np.full((12, 4), np.nan)}, "NaN or infinite"),
        ({"noise": -0.1}, "at least 0"),
        ({"noise": np.nan}, "at least 0"),
        ({"noise": 0.0}, "start above 0"),
        ({"noise": np.ones(12)}, "row_noise_factor"),
        ({"noise": None, "learn_noise": False}, "give it"),
        ({"kind": "ntk"}, "'ntkgp' has the same mean"),
        ({"kind": "gp"}, "'nngp' or 'ntkgp'"),
        ({"objective": "loss"}, "'evidence' or 'leave_one_out'"),
        ({"row_noise_factor": np.ones(11)}, "row_noise_factor has shape"),
        ({"row_noise_factor": np.zeros(12)}, "weight zero"),
        ({"row_counts": np.ones((12, 1))}, "row_counts has shape"),
        ({"row_counts": np.full(12, -1.0)}, "row_counts must be positive"),
        ({"restarts": -1}, "restarts"),
        ({"steps": 0}, "steps"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"learn_noise": False, "learn_stds": False}, "nothing to learn"),
        ({"mean": np.nan}, "prior mean"),
    ],
)
def test_refuses_bad_input(light, data, change, message):
    given = {"x": data[0], "y": data[1], "noise": 0.1, **change}
    with pytest.raises(ValueError, match=message):
        predict.learn(light, **given)


def test_refuses_bad_bounds_and_inputs_without_features(rng):
    for pair in ((0.0, 1.0), (2.0, 3.0), (0.5, np.inf)):
        with pytest.raises(ValueError, match="factors around the start"):
            predict.Bounds(noise=pair)
    linear = lambda p, v: p @ v.reshape(-1)
    kernel = wl.kernel(linear, jax.ShapeDtypeStruct((3, 4), jnp.float64))
    with pytest.raises(ValueError, match=r"one array of numbers \(n, d\)"):
        predict.learn(kernel, rng.normal(size=(5, 2, 2)), np.ones(5), input_scales=True)
