"""Expansions, sensitivity and spectra against brute force and against simulated learning."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from tangent.zoo import ZOO


def moved(params, size, seed=0):
    rng = np.random.default_rng(seed)
    change = lambda a: a + size * rng.normal(size=a.shape) if eqx.is_inexact_array(a) else a
    return jax.tree.map(change, params)


@pytest.mark.parametrize("name", ["mlp", "recurrent", "equinox_gru", "constants_among_parameters"])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_error_of_an_expansion_has_its_order(name, degree):
    case = ZOO[name]()
    x = case.x[0]
    g = wl.taylor(case.f, case.params, degree)
    if name == "constants_among_parameters" and degree >= 1:  # linear in its parameters
        near = moved(case.params, 1.0)
        np.testing.assert_allclose(g(near, x), case.f(near, x), rtol=1e-12)
        return
    sizes = [2e-2, 1e-2]
    errors = []
    for h in sizes:
        near = moved(case.params, h)
        errors.append(float(jnp.max(jnp.abs(g(near, x) - case.f(near, x)))))
    order = np.log2(errors[0] / errors[1])
    assert degree + 1 == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("name", [
    "mlp", pytest.param("transformer_block", marks=pytest.mark.slow), "custom_vjp",
])
def test_linearize_is_value_plus_jacobian(name):
    case = ZOO[name]()
    x = case.x[0]
    near = moved(case.params, 0.5)
    jacobian = jax.jacrev(case.f)(case.params, x)
    step = jax.tree.map(lambda a, b: a - b, near, case.params)
    pairs = zip(jax.tree.leaves(jacobian), jax.tree.leaves(step))
    change = sum(jnp.tensordot(j, s, s.ndim) for j, s in pairs)
    expected = case.f(case.params, x) + change
    np.testing.assert_allclose(wl.linearize(case.f, case.params)(near, x), expected, rtol=1e-10)


def test_expansion_refusals():
    case = ZOO["mlp"]()
    with pytest.raises(ValueError, match="degree"):
        wl.taylor(case.f, case.params, -1)
    with pytest.raises(ValueError, match="expanded around"):
        wl.linearize(case.f, case.params)(case.params[:-1], case.x[0])


def test_jacobian_norm():
    case = ZOO["transformer_block"]()
    jacobians = jax.vmap(lambda x: jax.jacrev(lambda e: case.f(case.params, e))(x))(case.x)
    expected = np.sqrt(np.sum(np.asarray(jacobians) ** 2, axis=(1, 2, 3)))
    exact = wl.jacobian_norm(case.f, case.params, case.x)
    np.testing.assert_allclose(exact.value, expected, rtol=1e-12)
    assert not np.any(exact.standard_error)
    estimate = wl.jacobian_norm(
        case.f, case.params, case.x, probes=4000, key=jax.random.key(0), batch_size=2
    )
    z = (np.asarray(estimate.value) - expected) / np.asarray(estimate.standard_error)
    assert np.all(np.abs(z) < 4)
    assert np.all(estimate.standard_error < 0.02 * expected)


@pytest.mark.slow
def test_jacobian_norm_at_initialisation():
    # E ||df/dx||^2 = (sw2 E phi'^2)^L sw2 for a ReLU network with weights of variance sw2 / fan-in.
    width, outputs, d, sw2, nets = 200, 64, 6, 1.7, 40
    def f(p, x):
        h = jax.nn.relu(p[0] @ x * np.sqrt(sw2 / d))
        h = jax.nn.relu(p[1] @ h * np.sqrt(sw2 / width))
        return p[2] @ h * np.sqrt(sw2 / width)
    squares = []
    for k in range(nets):
        keys = jax.random.split(jax.random.key(k), 3)
        shapes = [(width, d), (width, width), (outputs, width)]
        p = [jax.random.normal(key, s) for key, s in zip(keys, shapes)]
        x = jax.random.normal(jax.random.key(100 + k), (1, d))
        squares.append(float(wl.jacobian_norm(f, p, x).value[0]) ** 2 / outputs)
    error = np.std(squares, ddof=1) / np.sqrt(nets)
    assert abs(np.mean(squares) - sw2 * (sw2 / 2) ** 2) < 4 * error
    assert error < 0.05


def test_jacobian_norm_refusals():
    with pytest.raises(ValueError, match="not real"):
        wl.jacobian_norm(lambda w, t: w[t].sum(0), jnp.ones((3, 2)), jnp.array([[0, 1]]))
    for options in ({"probes": 1, "key": jax.random.key(0)}, {"probes": 5}):
        with pytest.raises(ValueError, match="probes"):
            wl.jacobian_norm(lambda w, x: w @ x, jnp.ones((3, 2)), jnp.ones((1, 2)), **options)


def test_closed_path_goes_through_its_points():
    points = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2, 3)))
    path = wl.closed_path(points, 20)
    np.testing.assert_allclose(path[::4], points, atol=1e-12)
    circle = jnp.asarray([[np.cos(2 * np.pi * k / 3), np.sin(2 * np.pi * k / 3)] for k in range(3)])
    np.testing.assert_allclose(np.sum(wl.closed_path(circle, 50) ** 2, 1), 1, rtol=1e-12)
    with pytest.raises(ValueError, match="odd"):
        wl.closed_path(points[:4], 10)


# ---------------------------------------------------------------- spectra


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 10))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.exp(x @ x.T), 2 * x[:, 0] + 3 * x[:, 1] * x[:, 2]


def test_spectrum_numbers():
    rng = np.random.default_rng(1)
    q = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    s = wl.spectrum(q @ np.diag([4.0, 2, 1, 1]) @ q.T)
    np.testing.assert_allclose(s.eigenvalues, [4, 2, 1, 1])
    assert s.condition_number == pytest.approx(4)
    # exp(ln 2 / 2 + ln 4 / 4 + 2 ln 8 / 8) = 2 ** (1/2 + 1/2 + 3/4)
    assert s.effective_rank == pytest.approx(2**1.75)
    assert s.participation_ratio == pytest.approx(64 / 22)
    y = rng.normal(size=4)
    np.testing.assert_allclose(wl.spectrum(np.outer(y, y)).alignment(y), 1)
    np.testing.assert_allclose(wl.spectrum(np.eye(4)).alignment(y), 0.5)
    np.testing.assert_allclose(s.alignment(q[:, 0]), 4 / np.sqrt(22))
    np.testing.assert_allclose(s.cumulative_power(q[:, 0] + q[:, 1]), [0.5, 1, 1, 1])
    assert wl.spectrum(np.outer(y, y)).condition_number > 1e12
    y = y - y.mean()
    np.testing.assert_allclose(wl.spectrum(np.outer(y, y) + 3).alignment(y, centred=True), 1)


def test_spectrum_of_all_outputs():
    case = ZOO["mlp"]()
    k = wl.empirical_ntk(case.f, case.params, case.x)
    n, o = len(case.x), 3
    flat = np.transpose(np.asarray(k), (0, 2, 1, 3)).reshape(n * o, n * o)
    np.testing.assert_allclose(
        wl.spectrum(k).eigenvalues, np.linalg.eigvalsh(flat)[::-1], rtol=1e-8, atol=1e-10
    )


@pytest.mark.parametrize(
    ("ridge", "noise", "sizes"), [(0.1, 0.0, [5, 20]), (0.3, 0.25, [5, 20, 60])]
)
def test_learning_curve_is_what_learning_gives(problem, ridge, noise, sizes):
    k, y = problem
    curve = wl.spectrum(k).learning_curve(y, sizes, ridge=ridge, noise=noise)
    rng = np.random.default_rng(5)
    for p, predicted, error in zip(sizes, curve.error, curve.standard_error):
        found = []
        for _ in range(300):
            rows = rng.integers(0, len(y), p)
            target = y[rows] + np.sqrt(noise) * rng.normal(size=p)
            weights = np.linalg.solve(k[np.ix_(rows, rows)] + ridge * np.eye(p), target)
            found.append(np.mean((k[:, rows] @ weights - y) ** 2))
        assert predicted == pytest.approx(np.mean(found), rel=0.06)
        assert 0 < error < 0.3 * predicted


def test_spectrum_refusals(problem):
    k, y = problem
    for bad, match in (
        (k[:, :5], "square"), (k + np.triu(k), "symmetric"), (k * np.nan, "NaN")
    ):
        with pytest.raises(ValueError, match=match):
            wl.spectrum(bad)
    s = wl.spectrum(k)
    for call, match in (
        (lambda: s.learning_curve(y, [0]), "sizes"),
        (lambda: s.learning_curve(y, [10], ridge=-1), "ridge"),
        (lambda: s.alignment(y[:5]), "y has shape"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
