"""Deep kernels as series in the angle of two inputs, against the recursion and the layers."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit.kernel import _angle
from widelimit.kernel._angle import Lengths, Series

FEATURES = 6


def directions(rng, n, square=1.7):
    x = rng.normal(size=(n, FEATURES))
    return jnp.asarray(x * np.sqrt(square / np.sum(x * x, 1, keepdims=True)))


@pytest.fixture
def batches(rng):
    return directions(rng, 12), directions(rng, 9)


@pytest.fixture
def used(monkeypatch):
    """Counts the series that were fitted and taken; small batches take them too."""
    taken = []
    fitted = Series.fitted.__func__

    def watched(cls, *args, **kwargs):
        found = fitted(cls, *args, **kwargs)
        taken.append(found)
        return found

    monkeypatch.setattr(_angle, "WORK", 0)
    monkeypatch.setattr(Series, "fitted", classmethod(watched))
    return taken


def layers(monkeypatch, network, *x):
    """The kernels without any series."""
    with monkeypatch.context() as patch:
        patch.setattr(_angle, "WORK", np.inf)
        return wl.kernel(network).both(*x)


def mlp(depth, bias=None, **how):
    return wl.nn.mlp(FEATURES, 1, 64, depth, bias_std=bias, key=jax.random.key(0),
                     **{"weight_std": 2**0.5, **how})


def recursion(depth, x, y, bias=0.0):
    """The ReLU network's kernels, layer by layer in closed form (Cho and Saul; Jacot et al.)."""
    norms = [np.sum(a * a, 1) * 2 / FEATURES + bias**2 for a in (x, y)]
    k = 2 * x @ y.T / FEATURES + bias**2
    t = k.copy()
    for _ in range(depth):
        size = np.sqrt(np.outer(*norms))
        angle = np.arccos(np.clip(k / size, -1, 1))
        k = size * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi + bias**2
        t = k + t * (np.pi - angle) / np.pi
        norms = [q + bias**2 for q in norms]
    return k, t


@pytest.mark.parametrize("depth", [5, 20])
@pytest.mark.parametrize("bias", [None, 0.3])
def test_recursion(used, batches, depth, bias):
    x, y = map(np.asarray, batches)
    found = wl.kernel(mlp(depth, bias)).both(x, y)
    nngp, ntk = recursion(depth, x, y, bias or 0.0)
    assert used[0] is not None
    # The last layer has its own weight variance.
    ratio = found.nngp / nngp
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=2e-12)
    np.testing.assert_allclose(found.ntk / ntk, ratio[0, 0], rtol=2e-12)


def erf(x):
    return jax.scipy.special.erf(x)


NETWORKS = {
    "relu": lambda: mlp(6, 0.2),
    "erf": lambda: mlp(6, 0.2, activation=erf, weight_std=1.3),
    "leaky": lambda: mlp(7, activation=lambda x: jnp.where(x > 0, x, 0.1 * x)),
    "residual": lambda: wl.nn.residual_mlp(FEATURES, 1, 64, 6, key=jax.random.key(0)),
}


@pytest.mark.parametrize(
    ("name", "symmetric"), [(name, False) for name in NETWORKS] + [("relu", True)]
)
def test_layers(used, batches, monkeypatch, name, symmetric):
    network = NETWORKS[name]()
    x = batches[:1] if symmetric else batches
    found, expected = wl.kernel(network).both(*x), layers(monkeypatch, network, *x)
    assert len(used) == 1
    assert used[0] is not None
    for kind in ("nngp", "ntk"):
        a, b = getattr(found, kind), getattr(expected, kind)
        np.testing.assert_allclose(a, b, rtol=3e-12, atol=3e-12 * float(jnp.abs(b).max()))
        if symmetric:
            np.testing.assert_array_equal(a, a.T)


def test_single_precision(used, batches, monkeypatch):
    network = mlp(12, 0.2)
    exact = layers(monkeypatch, network, *batches)
    jax.config.update("jax_enable_x64", False)
    try:
        found = wl.kernel(network).both(*(np.asarray(b, np.float32) for b in batches))
    finally:
        jax.config.update("jax_enable_x64", True)
    assert used[0] is not None
    assert found.ntk.dtype == jnp.float32
    np.testing.assert_allclose(found.ntk, exact.ntk, rtol=5e-6)


@pytest.mark.parametrize("depth", [3, 4, 30])
def test_powers_where_they_cancel_little(used, batches, depth):
    x, y = map(np.asarray, batches)
    found = wl.kernel(mlp(depth)).both(x, y)
    assert used[0].powers == (depth < 30)
    ratio = found.ntk / recursion(depth, x, y)[1]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=3e-12)


@pytest.mark.parametrize("rows", [4, 7, 12, 13])
def test_symmetric_products_in_strips_and_tiles(used, monkeypatch, rng, rows):
    """Tiles whose last rows do not count, and products of which half is mirrored."""
    monkeypatch.setattr(importlib.import_module("widelimit.limit.angle"), "STRIP", 2)
    x = directions(rng, rows) * jnp.asarray(rng.uniform(0.5, 2, size=(rows, 1)))
    expected = layers(monkeypatch, mlp(3), x)
    for tile in (4, 64):
        monkeypatch.setattr(importlib.import_module("widelimit.kernel._program"), "TILE", tile)
        monkeypatch.setattr(_angle, "TILE", tile)
        found = wl.kernel(mlp(3)).both(x)
        assert used[-1].powers
        for kind in ("nngp", "ntk"):
            a, b = getattr(found, kind), getattr(expected, kind)
            np.testing.assert_allclose(a, b, rtol=1e-12)
            np.testing.assert_array_equal(a, a.T)


def test_lengths_matter_as_a_power(used, batches, monkeypatch, rng):
    """Without biases ReLU networks are homogeneous: any lengths."""
    x, y = (b * jnp.asarray(rng.uniform(0.2, 5, size=(len(b), 1))) for b in batches)
    found, expected = wl.kernel(mlp(8)).both(x, y), layers(monkeypatch, mlp(8), x, y)
    assert used[0].degrees == (1, 1)
    np.testing.assert_allclose(found.nngp, expected.nngp, rtol=1e-12)
    np.testing.assert_allclose(found.ntk, expected.ntk, rtol=1e-12)


def test_lengths_that_matter_otherwise_are_left_to_the_layers(used, batches, monkeypatch, rng):
    x, y = (b * jnp.asarray(rng.uniform(0.2, 5, size=(len(b), 1))) for b in batches)
    for network, tried in ((mlp(6, 0.2), []), (mlp(6, activation=erf), [None])):
        kernel = wl.kernel(network)
        found, expected = kernel.both(x, y), layers(monkeypatch, network, x, y)
        assert used == tried
        np.testing.assert_array_equal(found.ntk, expected.ntk)
        kernel.both(x, y)
        assert used == tried


def test_near_inputs_keep_their_digits(used, batches, monkeypatch):
    x, _ = batches
    steps = jnp.asarray([0.0, 1e-9, 1e-6, 1e-4])[:, None]
    y = x[:4] + steps * x[4:8]
    network = mlp(6)
    found, expected = wl.kernel(network).both(x, y), layers(monkeypatch, network, x, y)
    assert used[0] is not None
    np.testing.assert_allclose(found.ntk, expected.ntk, rtol=2e-12)
    double = jnp.concatenate([x, x])
    found, expected = wl.kernel(network).both(double), layers(monkeypatch, network, double)
    np.testing.assert_allclose(found.ntk, expected.ntk, rtol=2e-12)


def test_opposite_inputs_and_zeros_are_left_to_the_layers(used, batches, monkeypatch):
    x, _ = batches
    network = mlp(6)
    y = jnp.concatenate([-x[3:5], x[5:6]])
    found, expected = wl.kernel(network).both(x, y), layers(monkeypatch, network, x, y)
    assert used[0] is not None
    np.testing.assert_array_equal(found.ntk, expected.ntk)
    zero = x.at[0].set(0)
    assert np.all(np.asarray(wl.kernel(network).ntk(zero)[0]) == 0)
    assert len(used) == 1


def test_opposite_inputs_in_a_large_tile(used, batches, monkeypatch):
    program = importlib.import_module("widelimit.kernel._program")
    x, y = batches
    x, y = jnp.concatenate([x, -y[:2]]), y
    expected = layers(monkeypatch, mlp(6), x, y)
    monkeypatch.setattr(program, "TILE", 4)
    found = wl.kernel(mlp(6)).both(x, y)
    assert len(used) == 1
    np.testing.assert_allclose(found.ntk, expected.ntk, rtol=1e-13)


def test_priors_belong_to_the_series(used, batches):
    one = wl.kernel(mlp(6)).ntk(*batches)
    other = wl.kernel(mlp(6, weight_std=1.1)).ntk(*batches)
    assert not np.allclose(one, other)
    both = wl.kernel(mlp(6)).both(*batches)
    np.testing.assert_allclose(both.ntk, one, rtol=1e-12)


def test_a_series_is_fitted_once(used, batches):
    """The same inputs and priors have the same series; other lengths and priors their own."""
    kernel = wl.kernel(mlp(5))
    first = kernel.both(*batches)
    again = kernel.both(*batches)
    assert len(used) == 1
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    kernel.both(*(2 * x for x in batches))
    assert len(used) == 2
    np.testing.assert_allclose(kernel.nngp(*batches), first.nngp, rtol=1e-12)
    assert len(used) == 3  # of the NNGP alone
    wider = kernel.with_stds({kernel.names[0]: 3.0}).both(*batches)
    assert len(used) == 4
    assert not np.allclose(wider.nngp, first.nngp)


def test_many_fits_are_compiled(used, batches, monkeypatch):
    """What is fitted often goes through a compiled program, to the same kernels."""
    monkeypatch.setattr(_angle, "PLAIN", 2)
    monkeypatch.setattr(_angle, "KNOWN", 1)
    kernel = wl.kernel(mlp(5))
    scales = [1.0, 1.5, 2.0, 1.0]
    found = [kernel.both(*(s * x for x in batches)) for s in scales]
    assert len(used) == len(scales)
    for s, k in zip(scales, found):
        nngp, ntk = recursion(5, *(np.asarray(s * x) for x in batches))
        np.testing.assert_allclose(k.nngp, nngp, rtol=1e-11)
        np.testing.assert_allclose(k.ntk, ntk, rtol=1e-11)


def several(p, x):
    for w in p:
        x = jax.nn.relu(x @ w)
    return x


WIDTHS = [(FEATURES, 64), *[(64, 64)] * 6]
OTHERWISE = {
    "some features": lambda p, x: several(p, x[:4]),
    "weighted features": lambda p, x: several(p, x * jnp.arange(1.0, FEATURES + 1)),
    "skip from a function of the input": lambda p, x: several(p[:-1], x) @ p[-1] * jnp.sin(x[0]),
    "shallow": lambda p, x: several(p[:2], x),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_other_uses_of_the_input(used, batches, monkeypatch, name):
    f = OTHERWISE[name]
    shapes = [(4, 64), *WIDTHS[1:]] if name == "some features" else WIDTHS
    priors = [jax.ShapeDtypeStruct(s, jnp.float64) for s in shapes]
    scale = lambda p: [w * (2 / len(w)) ** 0.5 for w in p]
    network = lambda p, x: f(scale(p), x)
    found = wl.kernel(network, priors).ntk(*batches)
    assert not used
    with monkeypatch.context() as patch:
        patch.setattr(_angle, "WORK", np.inf)
        expected = wl.kernel(network, priors).ntk(*batches)
    np.testing.assert_array_equal(found, expected)


def test_inside_of_a_program_layers_are_evaluated(used, batches):
    kernel = wl.kernel(mlp(6))
    inside = jax.jit(lambda x, y: kernel.ntk(x, y))(*batches)
    assert not used
    np.testing.assert_allclose(inside, kernel.ntk(*batches), rtol=1e-12)
    assert len(used) == 1


def test_a_slow_series_is_not_used():
    wild = lambda a, b: [np.abs(a @ b.T) ** 0.5]
    assert Series.fitted(wild, 3, 1.0, 8, equal=True) is None
    smooth = lambda a, b: [np.exp(a @ b.T)]
    assert Series.fitted(smooth, 3, 1.0, 8, equal=True).coefficients.shape[1] <= 48
    assert Series.fitted(smooth, 3, 1.0, 8, equal=False) is None
    square = lambda a, b: [(a @ b.T) ** 2]
    assert Series.fitted(square, 3, 1.0, 8, equal=False).degrees == (2,)
    broken = lambda a, b: [np.full((1, len(b)), np.nan)]
    assert Series.fitted(broken, 3, 1.0, 8, equal=True) is None


def test_what_happens_near_angle_zero_only():
    """A peak narrower than the distance of the points, as of frequencies of 1e5."""
    peak = lambda a, b: [np.exp(-np.sum((a[:, None] - b[None]) ** 2, -1) * 1e10) + a @ b.T]
    assert Series.fitted(peak, 3, 1.0, 8, equal=True) is None
    assert Series.fitted(peak, 3, 1.0, 4, equal=True) is None


def test_high_frequencies(used, batches, monkeypatch):
    x, _ = batches

    def network(p, x):
        h = x @ p[0] * 1e5
        for w in p[1:]:
            h = jnp.cos(h) @ w / 8
        return h

    shapes = [(FEATURES, 64), *[(64, 64)] * 6]
    priors = [jax.ShapeDtypeStruct(s, jnp.float64) for s in shapes]
    found = wl.kernel(network, priors).nngp(x)
    with monkeypatch.context() as patch:
        patch.setattr(_angle, "WORK", np.inf)
        expected = wl.kernel(network, priors).nngp(x)
    assert used == [None]
    np.testing.assert_array_equal(found, expected)


def test_lengths():
    x = np.array([[3.0, 4.0], [5.0, 0.0]])
    assert Lengths.of(x) == Lengths(25.0, 25.0)
    assert Lengths.of(x, 1.1 * x).equal(np.float64) is False
    assert Lengths.of(np.zeros((1, 2))) is None
