"""What is asked of each example alone is computed once, and tiles that are given it agree."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit.kernel import _alone
from widelimit.limit.evaluate import Evaluation

from . import networks, spatial

program = sys.modules["widelimit.kernel._program"]
ROWS = [r for r in (*networks.ROWS, *spatial.ROWS) if not r.drawn and "random" not in r.name]
QUICK = {
    *("blurred", "group_norm", "attention_causal", "attention_heads", "graph_edges"),
    *("squeeze_and_excite", "embedding", "layer_norm_scaled", "shared_weights"), "tokens_mixed",
}
"""Rows for every run of the tests; the others are slow."""


@pytest.fixture
def given(monkeypatch):
    """Counts the arrays that tiles were given; all of them are."""
    counts = []
    start = Evaluation.__init__

    def watched(self, *args, given=None, **kwargs):
        counts.append(len(given or {}))
        start(self, *args, given=given, **kwargs)

    monkeypatch.setattr(Evaluation, "__init__", watched)
    monkeypatch.setattr(_alone, "SHARE", 0.0)
    monkeypatch.setattr(program, "TILE", 2)
    return counts


def in_tiles(f, params, *batches, reading="both"):
    """The kernels in tiles, and of all pairs in a trace, where all distances are looked at."""
    evaluate = getattr(wl.kernel(f, params), reading)
    return evaluate(*batches), jax.jit(evaluate)(*batches)


@pytest.mark.parametrize("row", [
    pytest.param(r, id=r.name, marks=() if r.name in QUICK else pytest.mark.slow) for r in ROWS
])
def test_tiles_agree(given, rng, row):
    x = row.inputs(rng, 5)
    for batches in ((x,), (x[:3], x)):
        given.clear()
        for a, b in zip(*in_tiles(row.f, row.params, *batches)):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * float(jnp.abs(b).max()))
        assert max(given) > 0 or row.name not in QUICK


WIDTHS = [(3, 3, 2, 64), (3, 3, 64, 64), (64, 1)]


def pooled(p, x, first=jax.nn.relu):
    """Convolutions with an average over 2 × 2 positions between them."""
    conv = lambda w, h: jax.lax.conv_general_dilated(
        h[None], w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]
    h = first(conv(p[0] / 18**0.5, x))
    h = h.reshape(2, 2, 2, 2, -1).mean((1, 3))
    return jax.nn.relu(conv(p[1] / 576**0.5, h)).mean((0, 1)) @ p[2] / 8


SHAPES = [jax.ShapeDtypeStruct(s, jnp.float64) for s in WIDTHS]


def test_computed_once_for_each_example(given, rng, monkeypatch):
    x = rng.normal(size=(7, 4, 4, 2))
    counted = []
    compute = _alone.Alone.compute
    monkeypatch.setattr(_alone.Alone, "compute", lambda self, ev, count: (
        counted.append(count), compute(self, ev, count))[1])
    found, expected = in_tiles(pooled, SHAPES, x)
    assert counted == [2]  # one program, compiled once
    assert max(given) > 0
    np.testing.assert_allclose(found.ntk, expected.ntk, rtol=1e-12)
    np.testing.assert_allclose(found.ntk, found.ntk.T, rtol=1e-14)


def dense(p, x):
    """Vectors, whose near duplicates are looked at again."""
    h = jax.nn.relu(x @ p[0] / 5**0.5 + 0.1 * p[1])
    return jax.nn.relu(h @ p[2] / 8) @ p[3] / 8


VECTORS = [jax.ShapeDtypeStruct(s, jnp.float64) for s in ((5, 64), (64,), (64, 64), (64, 1))]


def test_near_inputs_are_looked_at_again(given, rng):
    x = rng.normal(size=(5, 5))
    x[3] = x[0] + 1e-8 * x[1]
    found, expected = in_tiles(dense, VECTORS, x)
    assert max(given) > 0
    np.testing.assert_allclose(found.ntk, expected.ntk, rtol=1e-12)


def test_close_tiles_are_not_computed_twice(given, rng, monkeypatch):
    x = np.concatenate([rng.normal(size=(3, 5))] * 4)
    once, called = program.Program._once, []

    def watched(self, key, run):
        found = once(self, key, run)
        return lambda *x: (called.append(key), found(*x))[1]

    monkeypatch.setattr(program.Program, "_once", watched)
    found, expected = in_tiles(dense, VECTORS, x)
    kinds = ("nngp", "ntk")
    quick, careful = (called.count((kinds, how, True)) for how in (False, True))
    assert quick + careful < 2 * 21
    assert careful > quick > 1
    # For each tile of rows once, though most tiles are looked at.
    assert called.count((kinds, True, "alone")) == 6
    np.testing.assert_allclose(found.ntk, expected.ntk, rtol=1e-12)
    # A product alone would leave half of the digits.
    np.testing.assert_allclose(found.ntk[0, 3], found.ntk[0, 0], rtol=1e-12)


def test_empty_variables_are_looked_at_in_every_tile(given, rng):
    """A step of nothing is one value, and not half of one and half of the other."""
    step = lambda p, x: pooled(p, x, lambda h: jnp.where(h >= 0, 1.0, 0.0))
    x = rng.normal(size=(5, 4, 4, 2))
    x[2] = 0
    found, expected = in_tiles(step, SHAPES, x, reading="nngp")
    assert max(given) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_empty_variables_of_one_side_only(given, rng):
    """Weights between positions by steps, which no pair of examples asks for."""

    def attending(p, x):
        h = jnp.where(x @ p[0] >= 0, 1.0, 0.0)
        return ((h @ h.T / 64) @ jax.nn.relu(x @ p[1])).mean(0) @ p[2] / 8

    x = rng.normal(size=(5, 3, 4))
    x[2, 1] = 0
    shapes = [jax.ShapeDtypeStruct(s, jnp.float64) for s in ((4, 64), (4, 64), (64, 1))]
    found, expected = in_tiles(attending, shapes, x, reading="nngp")
    assert max(given) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_small_tiles_only():
    share = _alone.Alone({("moment",): lambda ev: None}, None, 0.5)
    assert share.worthwhile(2)
    assert not share.worthwhile(64)
    assert not _alone.Alone({}, None, 0.5).worthwhile(2)
