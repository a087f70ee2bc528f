"""Pair moments of every activation in the table against the oracle, and their certificates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widelimit import duals

from . import oracle
from .rows import ROWS, grid

jax.config.update("jax_enable_x64", True)

_MIXED = [
    ("tanh", "relu", True),
    ("relu6", "elu", True),
    ("sign", "erf", True),
    ("relu", "sign", False),
    ("cubic", "relu_squared", False),
    ("identity", "tanh", False),
    ("cubic", "tanh", True),
    ("gaussian", "sin", False),
    ("gelu", "erf", False),
    ("gelu", "gaussian", False),
    ("relu", "gaussian", False),
    ("user_jump", "relu", True),
]


def _cases():
    singles = [(name, name, row.slow) for name, row in ROWS.items()]
    for first, second, slow in singles + _MIXED:
        marks = [pytest.mark.slow] if slow else []
        yield pytest.param(first, second, marks=marks, id=f"{first}-{second}")


def _numpy(fn):
    fast = jax.jit(fn)
    return lambda x: np.asarray(fast(x))


@pytest.mark.parametrize(("first", "second"), list(_cases()))
def test_pair_matches_oracle_within_certificate(first, second):
    one, two = ROWS[first], ROWS[second]
    phi = duals.Activation(one.fn)
    psi = phi if first == second else duals.Activation(two.fn)
    assert phi.family == one.family
    assert (phi.method == "closed form") == (one.family is not None)
    variances = min(one.variances, two.variances, key=max)
    q1, q2, c = grid(variances, thin=not (one.slow or two.slow))
    run = jax.jit(lambda *a: duals.pair(phi, psi, *a, derivative=True))
    bound = jax.jit(lambda *a: duals.certificate(phi, psi, *a, derivative=True))
    got, bounds = run(q1, q2, c), bound(q1, q2, c)
    for k, (f, g) in enumerate(((phi.fn, psi.fn), (phi.prime.fn, psi.prime.fn))):
        f, g = _numpy(f), _numpy(g)
        want = [oracle.pair(f, g, one.kinks, two.kinks, *p) for p in zip(q1, q2, c)]
        square = lambda f, kinks, q: oracle.mean(lambda x: f(x) ** 2, kinks, q)
        size = [square(f, one.kinks, a) * square(g, two.kinks, b) for a, b in zip(q1, q2)]
        size = np.sqrt(size)
        error = np.abs(np.asarray(got[k]) - want)
        assert np.all(error <= 1e-8 * size)
        assert np.all(error <= np.asarray(bounds[k]) + 1e-13 * size)
        assert np.all(np.asarray(bounds[k]) <= 1e-7 * size + 1e-300)


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "user_jump"])
def test_means_and_slopes(name):
    row = ROWS[name]
    phi, f = duals.Activation(row.fn), _numpy(row.fn)
    q = np.array([1e-3, 1.0, 30.0])
    want = [oracle.mean(f, row.kinks, x) for x in q]
    np.testing.assert_allclose(duals.mean(phi, q), want, rtol=1e-11, atol=1e-14)
    slopes = [oracle.mean(lambda u: f(u) * u, row.kinks, x) / x for x in q]
    np.testing.assert_allclose(duals.slope(phi, q), slopes, rtol=1e-10)
    df = _numpy(phi.prime.fn)
    want = [oracle.mean(df, row.kinks, x) for x in q]
    np.testing.assert_allclose(duals.mean_derivative(phi, q), want, rtol=1e-11)
    both = duals.second(phi, phi, q, derivative=True)
    want = [oracle.mean(lambda u: f(u) ** 2, row.kinks, x) for x in q]
    np.testing.assert_allclose(both.value, want, rtol=1e-11)
    want = [oracle.mean(lambda u: df(u) ** 2, row.kinks, x) for x in q]
    np.testing.assert_allclose(both.derivative, want, rtol=1e-11)
    assert np.all(np.isfinite(duals.slope(phi, np.array([0.0]))))


@pytest.mark.parametrize("name", ["relu", "gelu", "step", "tanh", "elu"])
def test_difference_keeps_relative_precision(name):
    row = ROWS[name]
    phi, f = duals.Activation(row.fn), _numpy(row.fn)
    q1, q2 = np.array([1.0, 1.0, 2.0, 1.0]), np.array([1.0, 1.0, 1.0, 1.0])
    d = np.array([1e-2, 0.0, 0.5, 1e-14])
    got = np.asarray(jax.jit(lambda *a: duals.difference(phi, *a))(q1, q2, (q1 + q2 - d) / 2, d))
    square = lambda a, b: (a - b) ** 2
    for i in (0, 2):
        c = (q1[i] + q2[i] - d[i]) / 2
        want = oracle.pair(f, f, row.kinks, row.kinks, q1[i], q2[i], c, of=square)
        np.testing.assert_allclose(got[i], want, rtol=1e-10)
    assert got[1] == 0.0
    if name == "step":
        want = np.arctan2(1e-7, 1) / np.pi
    else:
        df = _numpy(phi.prime.fn)
        want = oracle.mean(lambda u: df(u) ** 2, row.kinks, 1.0) * d[3]
    np.testing.assert_allclose(got[3], want, rtol=1e-6)


_EDGES = np.array([(1, 1, 1.0), (1, 1, -1), (0, 1, 0), (0, 0, 0), (2, 1, 2**0.5)], float)


@pytest.mark.parametrize(
    "name",
    ["relu", "relu_squared", "gelu", "sin", "step", "tanh"]
    + [pytest.param(n, marks=pytest.mark.slow) for n in ("elu", "relu6", "user_kink", "user_jump")],
)
def test_gradients(name):
    phi = duals.Activation(ROWS[name].fn)

    def value(a):
        return duals.pair(phi, phi, a[..., 0], a[..., 1], a[..., 2]).value

    run, gradient = jax.jit(value), jax.jit(jax.grad(lambda a: jnp.sum(value(a))))
    inside = np.array([(1, 1.3, 0.5), (2, 0.5, -0.7), (30, 20, 20.0)])
    exact = np.asarray(gradient(np.concatenate([inside, _EDGES])))
    assert np.all(np.isfinite(exact))
    for i in range(3):
        step = 1e-5 * np.eye(3)[i]
        slope = (np.asarray(run(inside + step)) - np.asarray(run(inside - step))) / 2e-5
        np.testing.assert_allclose(exact[:3, i], slope, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["relu", "gelu", "relu_squared"])
def test_second_derivatives_are_finite(name):
    phi = duals.Activation(ROWS[name].fn)
    value = lambda a: duals.pair(phi, phi, *a).value
    second = jax.jit(jax.vmap(jax.jacfwd(jax.grad(value))))(_EDGES)
    assert np.all(np.isfinite(second))


@pytest.mark.parametrize("name", ["relu", "gelu", pytest.param("elu", marks=pytest.mark.slow)])
def test_float32_near_duplicates(name):
    row = ROWS[name]
    q = np.array([1.0, 1.0, 1.0, 30.0, 1e-3], np.float32)
    d = np.array([0.0, 1e-6, 0.1, 20.0, 1e-9], np.float32)

    def run(dtype, c):
        phi, a = duals.Activation(row.fn), jnp.asarray(q, dtype)
        out = duals.pair(phi, phi, a, a, jnp.asarray(c, dtype), d=d.astype(dtype), derivative=True)
        return phi, a, out

    _, _, single = run(np.float32, q - d / 2)
    phi, a, double = run(np.float64, q.astype(float) - d.astype(float) / 2)
    sizes = duals.second(phi, phi, a, derivative=True)
    for x, y, size in zip(single, double, sizes):
        assert x.dtype == np.float32
        assert np.all(np.abs(np.asarray(x) - np.asarray(y)) <= 2e-6 * np.asarray(size))


def test_broadcasts_rows_and_columns():
    phi, psi = duals.Activation(jnp.tanh), duals.Activation(jax.nn.relu)
    q1, q2 = np.linspace(0.5, 2, 3)[:, None], np.linspace(0.1, 1, 4)[None]
    c = 0.6 * np.sqrt(q1 * q2)
    got = duals.pair(phi, psi, q1, q2, c).value
    flat = duals.pair(phi, psi, *(a.ravel() for a in np.broadcast_arrays(q1, q2, c))).value
    assert got.shape == (3, 4)
    np.testing.assert_allclose(got.ravel(), flat, rtol=1e-13)


def test_autodiff_derivative_not_distributional():
    """A straight-through sign has derivative one, a plain sign zero."""

    @jax.custom_jvp
    def through(x):
        return jnp.sign(x)

    through.defjvp(lambda primals, tangents: (jnp.sign(primals[0]), tangents[0]))
    phi, plain = duals.Activation(through), duals.Activation(jnp.sign)
    arguments = (np.array([1.0]), np.array([2.0]), np.array([0.3]))
    assert duals.pair(phi, phi, *arguments, derivative=True).derivative[0] == 1.0
    assert duals.pair(plain, plain, *arguments, derivative=True).derivative[0] == 0.0


@pytest.mark.parametrize("scale", [1.0, 1 / 2.4020563531719796, 0.3])
def test_derivatives_of_closed_forms_are_closed(scale):
    """E[erf'(u) erf'(v)] = (4 / pi) a² / sqrt((1 + 2a²q1)(1 + 2a²q2) - 4a⁴c²), for erf(a u)."""
    phi = duals.Activation(lambda u: 0.5 + 0.5 * jax.scipy.special.erf(scale * u))
    assert phi.prime.form is not None
    assert phi.prime.prime.form is not None
    q1, q2, c = grid((1e-3, 1.0, 30.0))
    a = 2 * scale**2
    want = a / 2 / np.pi / np.sqrt((1 + a * q1) * (1 + a * q2) - (a * c) ** 2)
    got = duals.pair(phi, phi, q1, q2, c, derivative=True).derivative
    np.testing.assert_allclose(got, want, rtol=3e-13)


def test_recognised_however_spelled():
    spellings = [jax.nn.relu, lambda x: jnp.maximum(x, 0), lambda x: x * (x > 0)]
    assert {duals.Activation(f).family for f in spellings} == {"relu"}
    clipped = duals.Activation(lambda x: jnp.clip(x, 0, 500.0))
    assert clipped.family is None


def test_works_inside_transforms():
    def inside(q):
        phi = duals.Activation(jax.nn.relu6)
        return duals.mean(phi, q)

    q = np.array([0.5, 4.0])
    want = [oracle.mean(lambda x: np.clip(x, 0, 6), (0, 6), x) for x in q]
    np.testing.assert_allclose(jax.jit(jax.vmap(inside))(q), want, rtol=1e-11)


@pytest.mark.slow
def test_parameters_move_the_kinks():
    shifted = lambda u, mu, s: jax.nn.relu((jax.nn.relu(u) - mu) * s)
    phi = duals.Activation(shifted, n_params=2)
    q, mu, s = np.array([1.0, 2.5]), np.array([0.4, 0.6]), np.array([1.0, 1.7])
    c = np.sqrt(np.outer(q, q)) * np.array([[1, 0.3], [0.3, 0.999]])

    def run(mu):
        own = {"params1": (mu[:, None], s[:, None]), "params2": (mu[None], s[None])}
        return duals.pair(phi, phi, q[:, None], q[None], c, **own, derivative=True)

    got = jax.jit(run)(mu)
    f = lambda i: lambda u: np.maximum((np.maximum(u, 0) - mu[i]) * s[i], 0)
    g = lambda i: lambda u: s[i] * (u > mu[i])
    for i in range(2):
        for j in range(2):
            for h, out in ((f, got.value), (g, got.derivative)):
                kinks = [0, mu[i]], [0, mu[j]]
                want = oracle.pair(h(i), h(j), *kinks, q[i], q[j], c[i, j])
                np.testing.assert_allclose(out[i, j], want, rtol=1e-9)
    total = jax.jit(lambda mu: jnp.sum(run(mu).value))
    step = 1e-5 * np.array([1, 0])
    slope = (total(mu + step) - total(mu - step)) / 2e-5
    np.testing.assert_allclose(jax.grad(total)(mu)[0], slope, rtol=1e-6)
