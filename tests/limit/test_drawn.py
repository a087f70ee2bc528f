"""Functions of several dependent Gaussian fields, which are integrated by drawing them."""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import widelimit as wl
from widelimit.batches import example_of
from widelimit.limit.particles import normal_points

from . import networks, spatial
from .networks import OUT, N, dense, erf, relu, struct
from .sampling import assert_agree, sampled

STEPS = 3
A, B = (lambda p, x: dense(p[1], jnp.tanh(dense(p[0], x)))), (lambda p, x: dense(p[2], x))
PLAIN = [struct(N, 4), struct(N, N), struct(N, 4), struct(OUT, N)]


# ------------------------------------------------------------------------- an independent integral


def hermite(count, dims):
    """Points and weights of Gauss-Hermite quadrature over ``dims`` standard normal variables."""
    x, w = np.polynomial.hermite_e.hermegauss(count)
    points = np.stack(np.meshgrid(*[x] * dims, indexing="ij"), -1).reshape(-1, dims)
    weights = np.prod(np.stack(np.meshgrid(*[w / w.sum()] * dims, indexing="ij"), -1), -1)
    return points, weights.ravel()


def sigmoid(t):
    return 1 / (1 + np.exp(-t))


CELL = [struct(N, 4), struct(N, 4), struct(N, 4), struct(OUT, N)]


def one_step(p, x):
    """The first step of a gated recurrent unit from a state that is not zero."""
    z, r, a = (dense(w, x) for w in p[:3])
    return dense(p[3], jax.nn.sigmoid(z) * jnp.tanh(a + jax.nn.sigmoid(r) * jnp.sin(z)))


def test_one_step_against_quadrature(rng):
    """Exact moments by six-dimensional quadrature; a wrong term would be off by per cents."""
    x = rng.normal(size=(2, 4))
    points, weights = hermite(11, 6)
    gram = x @ x.T / 4
    root = np.linalg.cholesky(gram)
    pair = lambda k: (points[:, 2 * k : 2 * k + 2] @ root.T).T
    z, r, a = pair(0), pair(1), pair(2)
    gate, inner = sigmoid(z), sigmoid(r) * np.sin(z)
    value = gate * np.tanh(a + inner)
    exact = (value * weights) @ value.T

    bump = 1 - np.tanh(a + inner) ** 2
    slopes = {
        "z": gate * (1 - gate) * np.tanh(a + inner) + gate * bump * sigmoid(r) * np.cos(z),
        "r": gate * bump * sigmoid(r) * (1 - sigmoid(r)) * np.sin(z),
        "a": gate * bump,
    }
    tangent = exact + sum((s * weights) @ s.T for s in slopes.values()) * gram

    kernel = wl.kernel(one_step, CELL)
    found = kernel.both(x)
    np.testing.assert_allclose(found.nngp, exact, rtol=2e-3, atol=2e-3 * exact.max())
    np.testing.assert_allclose(found.ntk, tangent, rtol=2e-3, atol=2e-3 * tangent.max())
    fine = kernel.with_sampling(2**15).both(x)
    np.testing.assert_allclose(fine.nngp, exact, rtol=3e-4, atol=2e-4 * exact.max())
    np.testing.assert_allclose(fine.ntk, tangent, rtol=3e-4, atol=2e-4 * tangent.max())


def test_the_standard_error_is_the_error(rng):
    x = rng.normal(size=(3, 4))
    kernel = wl.kernel(one_step, CELL)
    error = kernel.sampling_error(x)
    exact = kernel.with_sampling(2**14).both(x)
    for found, truth, spread in zip(kernel.both(x), exact, error):
        z = np.abs(found - truth) / spread
        assert z.max() < 6
        assert np.all(spread < 5e-3 * np.abs(truth).max())
    finer = kernel.with_sampling(2**13).sampling_error(x, repeats=4)
    assert float(jnp.max(finer.nngp)) < 0.5 * float(jnp.max(error.nngp))


def test_points_have_the_moments_of_a_gaussian():
    points = normal_points(1024, 32, (0, 0))
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-15)
    np.testing.assert_allclose(points.T @ points / 1024, np.eye(32), atol=1e-13)
    np.testing.assert_allclose((points**4).mean(0), 3, atol=0.5)


# ------------------------------------------------------------------------- other people's cells


class Equinox(eqx.Module):
    """A recurrent cell over a sequence, and a dense layer."""

    cell: eqx.Module
    out: eqx.nn.Linear

    def __call__(self, xs):
        start = jnp.zeros(self.cell.hidden_size)
        long = isinstance(self.cell, eqx.nn.LSTMCell)
        state = (start, start) if long else start
        state, _ = jax.lax.scan(lambda h, x: (self.cell(x, h), None), state, xs)
        return self.out(state[0] if long else state)


class Flax(nnx.Module):
    """The same in Flax, step by step."""

    def __init__(self, cell, width, rngs):
        kind = getattr(nnx, cell)
        self.cell = kind(3, width, param_dtype=jnp.float64, rngs=rngs)
        self.out = nnx.Linear(width, OUT, param_dtype=jnp.float64, rngs=rngs)

    def __call__(self, xs):
        state = jnp.zeros(self.out.in_features)
        state = (state, state) if "LSTM" in type(self.cell).__name__ else state
        for x in xs:
            state, h = self.cell(state, x)
        return self.out(h)


def equinox(cell):
    def make(key):
        a, b = jax.random.split(key)
        return Equinox(getattr(eqx.nn, cell)(3, 64, key=a), eqx.nn.Linear(64, OUT, key=b))

    return make


def flax(cell):
    return lambda key: Flax(cell, 64, nnx.Rngs(key))


MODELS = {
    "equinox GRU": equinox("GRUCell"), "equinox LSTM": equinox("LSTMCell"),
    "flax GRU": flax("GRUCell"), "flax LSTM": flax("LSTMCell"),
    "flax optimized LSTM": flax("OptimizedLSTMCell"),
}


@pytest.mark.parametrize("name", [
    pytest.param(m, marks=() if m in ("equinox GRU", "flax LSTM") else pytest.mark.slow)
    for m in MODELS
])
def test_gated_cells_agree_with_sampled_networks(name, rng):
    make, x = MODELS[name], jnp.asarray(rng.normal(size=(3, STEPS, 3)))
    limit = np.asarray(wl.kernel(make(jax.random.key(0))).ntk(x))

    @jax.jit
    def tangents(key):
        model = make(key)
        if "equinox" in name:
            weights, rest = eqx.partition(model, eqx.is_array)
            call = lambda w: jax.vmap(eqx.combine(w, rest))(x)[:, 0]
        else:
            graph, weights, rest = nnx.split(model, nnx.Param, ...)
            call = lambda w: jax.vmap(nnx.merge(graph, w, rest))(x)[:, 0]
        rows = jax.tree.leaves(jax.jacrev(call)(weights))
        flat = jnp.concatenate([r.reshape(len(x), -1) for r in rows], 1)
        return flat @ flat.T

    found = np.stack([tangents(k) for k in jax.random.split(jax.random.key(1), 300)])
    error = found.std(0) / np.sqrt(len(found)) + 0.01 * limit.max()
    assert np.max(np.abs(limit - found.mean(0)) / error) < 4.5


# ------------------------------------------------------------------------- what is expected of it


def gru(p, xs):
    """A gated recurrent unit in plain JAX."""

    def step(h, x):
        z = jax.nn.sigmoid(dense(p[0], x) + dense(p[1], h))
        r = jax.nn.sigmoid(dense(p[2], x) + dense(p[3], h))
        new = jnp.tanh(dense(p[4], x) + r * dense(p[5], h))
        return (1 - z) * new + z * h, None

    return dense(p[6], jax.lax.scan(step, jnp.zeros(N), xs)[0])


GRU = [struct(N, 3), struct(N, N)] * 3 + [struct(OUT, N)]


def test_equal_sequences_have_equal_entries(rng):
    x = rng.normal(size=(3, 3, 3))
    x[2] = x[0]
    kernel = wl.kernel(gru, GRU)
    for k, error in zip(kernel.both(x), kernel.sampling_error(x, repeats=5)):
        np.testing.assert_allclose(k[0, 2], k[0, 0], rtol=1e-9)
        np.testing.assert_allclose(k[2, 2], k[0, 0], rtol=1e-9)
        # A pair and its mirror image are drawn apart.
        assert np.abs(k[2, 1] - k[0, 1]) / error[0, 1] < 8
        assert np.max(error) < 0.03 * np.max(k)


@pytest.mark.slow
def test_nearly_equal_sequences(rng):
    """The difference directions are drawn too, and do not blow up."""
    x = np.repeat(rng.normal(size=(1, 4, 3)), 4, 0)
    for k, distance in enumerate((1e-2, 1e-4, 1e-7), 1):
        x[k] += distance * rng.normal(size=(4, 3))
    for k in wl.kernel(gru, GRU).both(x):
        np.testing.assert_allclose(k, np.full((4, 4), k[0, 0]), rtol=2e-2)
        np.testing.assert_allclose(k[1:, 1:], np.full((3, 3), k[2, 2]), rtol=2e-2)
        assert np.linalg.eigvalsh(k).min() > -1e-3 * k[0, 0]


@pytest.mark.slow
def test_single_precision(rng):
    x = rng.normal(size=(3, 2, 3))
    kernel = wl.kernel(gru, [jax.ShapeDtypeStruct(s.shape, jnp.float32) for s in GRU])
    for low, high in zip(kernel.both(x.astype(np.float32)), wl.kernel(gru, GRU).both(x)):
        assert low.dtype == jnp.float32
        np.testing.assert_allclose(low, high, atol=2e-5 * float(jnp.abs(high).max()))


def test_inside_jit_and_with_a_derivative(rng):
    x, kernel = jnp.asarray(rng.normal(size=(2, 4))), wl.kernel(one_step, CELL).with_sampling(64)
    np.testing.assert_allclose(jax.jit(kernel.nngp)(x), kernel.nngp(x), rtol=1e-12)
    name = kernel.names[1]
    total = lambda s: jnp.sum(kernel.with_stds({name: s}).nngp(x))
    slope = jax.grad(total)(1.0)
    numeric = (total(1.0 + 1e-4) - total(1.0 - 1e-4)) / 2e-4
    np.testing.assert_allclose(slope, numeric, rtol=1e-5)


@pytest.mark.slow
def test_tiles_change_nothing(rng, monkeypatch):
    x, kernel = rng.normal(size=(5, 3, 3)), wl.kernel(gru, GRU)
    whole = kernel.nngp(x)
    monkeypatch.setattr(sys.modules["widelimit.kernel._program"], "TILE", 2)
    np.testing.assert_allclose(wl.kernel(gru, GRU).nngp(x), whole, rtol=1e-12)


@pytest.mark.slow
def test_nothing_is_drawn_that_has_a_formula(rng):
    """What could be integrated before stays so."""
    for row in (*networks.ROWS, *spatial.ROWS):
        kernel = wl.kernel(row.f, row.params)
        program = kernel._program(example_of(jnp.asarray(row.inputs(rng, 1))))
        assert bool(program.entangled.fields) == row.drawn, row.name


def highway(p, x):
    """Layers that are carried on or replaced, after Srivastava et al., without a layer between."""
    h = jnp.tanh(dense(p[0], x))
    for w, v in ((p[1], p[2]), (p[3], p[4])):
        gate = jax.nn.sigmoid(dense(w, h))
        h = gate * jnp.tanh(dense(v, h)) + (1 - gate) * h
    return dense(p[5], h)


def minimal(p, xs):
    """A minimal gated unit: no function of two fields, but products of dependent ones."""

    def step(h, x):
        f = jax.nn.sigmoid(dense(p[0], x) + dense(p[1], h))
        return (1 - f) * h + f * erf(dense(p[2], x) + dense(p[3], f * h)), None

    return dense(p[4], jax.lax.scan(step, jnp.zeros(N), xs)[0])


def dependent(p, x):
    """Three functions of two fields that share their weights and their inputs."""
    h = dense(p[0], x)
    s = dense(p[1], jnp.tanh(h))
    return dense(p[2], jnp.tanh(h) * jnp.sin(s + h) * jnp.cos(s))


def biased(p, x):
    """Biases that start as constants add to the tangent kernel, wherever they are."""
    a, b = dense(p[0], x), dense(p[1], x)
    h = jnp.tanh(jnp.tanh(a) * b * (1 + p[2]) + p[3])
    return dense(p[4], h + p[3])


BIASED = [struct(N, 4), struct(N, 4), struct(N), struct(N), struct(OUT, N)]


def test_constants_that_are_trained(rng):
    x = rng.normal(size=(3, 4))
    fixed = {"[2]": wl.Prior.constant(0.0), "[3]": wl.Prior.constant(0.5)}
    names = {f"[{i}]": wl.Prior(0.0, 1.0) for i in (0, 1, 4)}
    limit = wl.kernel(biased, BIASED, prior={**names, **fixed}).ntk(x)

    @jax.jit
    def tangents(key):
        draws = [jax.random.normal(k, s.shape) for k, s in zip(jax.random.split(key, 5), BIASED)]
        p = [*draws[:2], jnp.zeros(N), jnp.full(N, 0.5), draws[4]]
        rows = jax.tree.leaves(jax.jacrev(lambda p: jax.vmap(lambda t: biased(p, t)[0])(x))(p))
        flat = jnp.concatenate([r.reshape(len(x), -1) for r in rows], 1)
        return flat @ flat.T

    found = np.stack([tangents(k) for k in jax.random.split(jax.random.key(0), 400)])
    error = found.std(0) / np.sqrt(len(found)) + 0.005 * limit.max()
    assert np.max(np.abs(limit - found.mean(0)) / error) < 4


def decided(p, x):
    """Comparisons, whole numbers and what is chosen by them keep their types."""
    a, b = A(p, x), B(p, x)
    u = erf(a) + b
    parity = jnp.floor(3 * u).astype(int) % 2
    chosen = jnp.where(jnp.logical_and(u > 0, ~(relu(b) > u)), u, parity * b)
    return dense(p[3], chosen + (u > relu(b)))


def composed(p, x):
    """Constants of any sign inside, and a derivative that is stopped."""
    a, b = A(p, x), B(p, x)
    u = erf(a) + b
    return dense(p[3], jnp.logaddexp(u, b) + jnp.tanh(jax.lax.stop_gradient(u) * b + u))


def guarded(p, x):
    """Values that are not chosen need not be finite: `hypot` has one that is infinite."""
    u = erf(A(p, x)) + B(p, x)
    chosen = jnp.where(u > 0, u, jnp.where(u > -1e3, jnp.tanh(u), -jnp.inf))
    return dense(p[3], jnp.hypot(u, 1.0) + chosen)


def pooled(p, xs):
    """A drawn field beside the mean over positions of others."""
    g = jax.vmap(lambda x: jnp.tanh(erf(A(p, x)) + B(p, x)))(xs)
    return dense(p[3], (g + dense(p[1], g.mean(0))).sum(0))


OTHERS = {
    "decided": (decided, PLAIN, (4,)),
    "composed": (composed, PLAIN, (4,)),
    "guarded": (guarded, PLAIN, (4,)),
    "pooled": (pooled, PLAIN, (3, 4)),
    "dependent": (dependent, [struct(N, 4), struct(N, N), struct(OUT, N)], (4,)),
    "highway": (highway, [struct(N, 4)] + [struct(N, N)] * 4 + [struct(OUT, N)], (4,)),
    "minimal": (minimal, [struct(N, 3), struct(N, N)] * 2 + [struct(OUT, N)], (STEPS, 3)),
    "gru": (gru, GRU, (STEPS, 3)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_plain_networks_agree_with_sampled_ones(name, rng):
    f, shapes, shape = OTHERS[name]
    x = rng.normal(size=(3, *shape))
    assert_agree(wl.kernel(f, shapes).both(x), sampled(f, shapes, jnp.asarray(x)))


# ------------------------------------------------------------------------- what is refused


def test_integrals_that_are_not_finite_are_no_results(rng, monkeypatch):
    """Where the look along random lines misses a pole, the integral itself does not."""
    monkeypatch.setattr("widelimit.limit.activations.bounded_on_lines", lambda *_, **__: True)
    f = lambda p, x: dense(p[3], jnp.log(erf(A(p, x)) + B(p, x)))
    kernel, x = wl.kernel(f, PLAIN), rng.normal(size=(2, 4))
    for reading in (kernel.nngp, kernel.nngp_diagonal):
        with pytest.raises(wl.NotGaussianError, match="not finite"):
            reading(x)


def test_an_infinite_value_that_is_never_chosen_is_nothing(rng):
    """Of two independent fields, which are no drawn ones but for this."""
    f = lambda p, x: dense(p[2], jnp.where(jnp.isinf(dense(p[0], x)), jnp.inf, dense(p[1], x)))
    plain = lambda p, x: dense(p[2], dense(p[1], x))
    shapes, x = [struct(N, 4), struct(N, 4), struct(OUT, N)], rng.normal(size=(3, 4))
    found, exact = wl.kernel(f, shapes).nngp(x), wl.kernel(plain, shapes).nngp(x)
    np.testing.assert_allclose(found, exact, rtol=1e-6)


POLES = {
    "quotient": lambda a, b: jnp.tanh(a) / b,
    "logarithm": lambda a, b: jnp.log(jnp.tanh(a) + b),
    "exponential of a product": lambda a, b: jnp.exp(a * b),
    "root of a product": lambda a, b: jnp.sqrt(a * b),
}
STEEP = {
    "norm": lambda a, b: jnp.sqrt(a**2 + b**2),
    "angle": jnp.atan2,
    "root": lambda a, b: jnp.sqrt(jnp.abs(a * b)),
}


@pytest.mark.parametrize("name", POLES)
def test_functions_without_a_second_moment_are_refused(name, rng):
    f = lambda p, x: dense(p[3], POLES[name](A(p, x), B(p, x)))
    with pytest.raises(wl.NotGaussianError, match="not finite, or grows too fast") as caught:
        wl.kernel(f, PLAIN).nngp(rng.normal(size=(2, 4)))
    assert caught.value.where.file == __file__


@pytest.mark.parametrize("name", STEEP)
def test_steep_functions_are_refused_in_the_tangent_kernel_alone(name, rng):
    f = lambda p, x: dense(p[3], STEEP[name](A(p, x), B(p, x)))
    kernel, x = wl.kernel(f, PLAIN), rng.normal(size=(2, 4))
    assert np.all(np.isfinite(kernel.nngp(x)))
    with pytest.raises(wl.NotGaussianError, match="infinite somewhere"):
        kernel.ntk(x)


@pytest.mark.parametrize("kind", ["nngp", "ntk"])
def test_products_with_what_is_not_drawn_are_refused(kind, rng):
    def f(p, xs):
        g = jax.vmap(lambda x: jnp.tanh(erf(A(p, x)) + B(p, x)))(xs)
        pooled = jax.vmap(lambda x: jnp.tanh(A(p, x)))(xs).mean(0)
        return dense(p[3], g[0] + pooled * A(p, xs[0]))

    with pytest.raises(wl.NotGaussianError, match="linear map"):
        getattr(wl.kernel(f, PLAIN), kind)(rng.normal(size=(2, 3, 4)))


def test_bounded_quotients_read(rng):
    f = lambda p, x: dense(p[3], jnp.tanh(A(p, x)) / (1 + jax.nn.softplus(B(p, x))))
    x = rng.normal(size=(3, 4))
    assert_agree(wl.kernel(f, PLAIN).both(x), sampled(f, PLAIN, jnp.asarray(x)))


def test_a_jump_at_nothing_but_a_fluctuation_is_refused(rng):
    """Where both fields are zero, the sign of a mean that vanishes decides."""

    def f(p, x):
        a, b = jnp.tanh(dense(p[1], jnp.tanh(dense(p[0], x)))), dense(p[2], x)
        return dense(p[3], jnp.sign(a + b - jnp.mean(a)))

    kernel = wl.kernel(f, PLAIN)
    assert np.all(np.isfinite(kernel.nngp(rng.normal(size=(2, 4)))))
    with pytest.raises(wl.AmbiguousScaleError, match="jumps"):
        kernel.nngp(np.zeros((2, 4)))
