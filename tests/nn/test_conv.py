"""The convolutional layer computes its formula, and its limit is that of the plain convolution."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn
from widelimit.models import describe
from widelimit.priors import prior_of

KEY = jax.random.key(3)


def by_hand(w, x, strides, dilation, pads, groups, circular):
    """The convolution as sums over explicit positions; ``pads`` is (before, after) per axis."""
    *window, per_group, out = w.shape
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, window)]
    size = [(n + sum(p) - r) // s + 1 for n, p, r, s in zip(x.shape, pads, reach, strides)]
    y = np.zeros((*size, out))
    for p in itertools.product(*map(range, size)):
        for o in itertools.product(*map(range, window)):
            at = [s * i + d * j - before for i, j, s, d, (before, _) in zip(
                p, o, strides, dilation, pads)]
            if circular:
                at = [a % n for a, n in zip(at, x.shape)]
            elif not all(0 <= a < n for a, n in zip(at, x.shape)):
                continue
            for i in range(out):
                first = i // (out // groups) * per_group
                y[(*p, i)] += w[(*o, slice(None), i)] @ x[tuple(at)][first: first + per_group]
    return y


CASES = {
    "line": ((5,), (3,), {}),
    "plane": ((5, 4), (3, 2), {"strides": (2, 1)}),
    "box": ((3, 4, 2), (2, 3, 1), {"padding": "VALID"}),
    "four axes": ((2, 3, 2, 2), (2, 2, 1, 2), {"padding": "VALID"}),
    "dilated": ((7, 6), (3, 2), {"dilation": (2, 3), "padding": "VALID"}),
    "explicit": ((4, 4), (3, 3), {"padding": ((2, 0), (0, 1)), "strides": 2}),
    "circular": ((5, 4), (3, 3), {"padding": "circular"}),
    "circular, even, strided": ((6, 5), (4, 2), {"padding": "CIRCULAR", "strides": (2, 1)}),
    "circular, dilated": ((7, 6), (3, 2), {"padding": "CIRCULAR", "dilation": 2}),
    "groups": ((4, 3), (2, 2), {"groups": 2, "padding": "VALID"}),
    "depthwise": ((4, 3), (3, 3), {"groups": 4, "bias_std": 0.3}),
}


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
@pytest.mark.parametrize("name", CASES)
def test_convolution_is_its_formula(name, parameterization, rng):
    space, window, options = CASES[name]
    layer = nn.Conv(4, 8, window, weight_std=1.3, parameterization=parameterization, key=KEY,
                    **options)
    x = rng.normal(size=(*space, 4))
    padding, strides, dilation = layer.padding, layer.strides, layer.dilation
    if isinstance(padding, str):
        padding = [(0, 0)] * len(space)
        if layer.padding != "VALID":
            for k, (n, w) in enumerate(zip(space, window)):
                total = max((-(-n // strides[k]) - 1) * strides[k] + dilation[k] * (w - 1) + 1 - n,
                            0)
                padding[k] = (total // 2, total - total // 2)
    w = np.asarray(layer.weight)
    expected = by_hand(w, x, strides, dilation, padding, layer.groups,
                       layer.padding == "CIRCULAR")
    if parameterization == "ntk":
        expected = expected * 1.3 / math.sqrt(math.prod(window) * 4 / layer.groups)
    if layer.bias is not None:
        expected = expected + np.asarray(layer.bias) * (0.3 if parameterization == "ntk" else 1)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_the_stated_prior_is_the_one_drawn_from(parameterization):
    make = lambda key: nn.Conv(6, 8, (2, 3), groups=2, weight_std=1.5, bias_std=0.2,
                               parameterization=parameterization, key=key)
    stated, read = describe(make(KEY)), prior_of(make)
    expected = [1, 1] if parameterization == "ntk" else [1.5 / math.sqrt(18), 0.2]
    assert [p.std for p in stated.priors] == pytest.approx(expected)
    assert [read[n].std for n in stated.names] == pytest.approx(expected, rel=1e-6)


def test_parameterizations_share_the_nngp_but_not_the_ntk(rng):
    x = rng.normal(size=(2, 3, 3, 2))
    make = lambda p: nn.Sequential([
        nn.Conv(2, 64, weight_std=1.2, bias_std=0.3, parameterization=p, key=KEY), jax.nn.relu,
        nn.flatten, nn.Linear(9 * 64, 4, parameterization=p, key=KEY),
    ])
    ntk, standard = (wl.kernel(make(p)).both(x) for p in ("ntk", "standard"))
    np.testing.assert_allclose(ntk.nngp, standard.nngp, rtol=1e-6)
    assert float(jnp.abs(standard.ntk / ntk.ntk - 1).min()) > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 3}, "3 groups do not divide 4 and 8"),
        ({"strides": (1, 2, 3)}, "strides has one entry for each of 2"),
        ({"dilation": (1,)}, "dilation has one entry"),
        ({"padding": "REFLECT"}, "padding is one of SAME, VALID, CIRCULAR"),
        ({"padding": ((1, 1),)}, "one pair for each of 2"),
        ({"window": (0, 3)}, "sizes are at least 1"),
        ({"parameterization": "mup"}, "'ntk' or 'standard'"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        nn.Conv(4, 8, key=KEY, **options)


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4, 4), (4, 4, 3)])
def test_inputs_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="2 spatial axes and 4 channels last"):
        nn.Conv(4, 8, key=KEY)(jnp.ones(shape))


def test_pooling_norms_and_dense_layers_at_positions(rng):
    x = rng.normal(size=(4, 6, 5))
    pooled = x.reshape(2, 2, 3, 2, 5).mean((1, 3))
    np.testing.assert_allclose(nn.AvgPool((2, 2))(x), pooled, rtol=1e-12)
    sliding = (x[:-1] + x[1:])[:, ::2] / 2
    np.testing.assert_allclose(nn.AvgPool((2, 1), (1, 2))(x), sliding, rtol=1e-12)
    np.testing.assert_allclose(nn.global_average(x), x.mean((0, 1)), rtol=1e-12)
    norm = nn.Positionwise(eqx.nn.LayerNorm(5))(x)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(norm, expected, rtol=1e-9, atol=1e-12)
    linear = nn.Linear(5, 3, bias_std=0.1, key=KEY)
    np.testing.assert_allclose(linear(x)[1, 2], linear(x[1, 2]), rtol=1e-12)
