import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widelimit import nn
from widelimit.models import describe
from widelimit.priors import prior_of

KEY = jax.random.key(2)


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_linear_computes_what_it_documents(parameterization):
    layer = nn.Linear(
        9, 4, parameterization=parameterization, weight_std=1.5, bias_std=0.2, key=KEY
    )
    x = jnp.arange(9.0)
    d = describe(layer)
    if parameterization == "ntk":
        assert [p.std for p in d.priors] == [1, 1]
        expected = 1.5 / 3 * (layer.weight @ x) + 0.2 * layer.bias
    else:
        assert [p.std for p in d.priors] == pytest.approx([0.5, 0.2])
        expected = layer.weight @ x + layer.bias
    assert jnp.allclose(layer(x), expected)
    assert jnp.array_equal(d.apply(d.values, x), layer(x))


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
@pytest.mark.parametrize("bias_std", [None, 0.0, 0.3])
def test_the_stated_prior_is_the_one_drawn_from(parameterization, bias_std):
    def make(key):
        return nn.Linear(
            16, 40, parameterization=parameterization, weight_std=2, bias_std=bias_std, key=key
        )

    stated, read = describe(make(KEY)), prior_of(make)
    assert tuple(read) == stated.names
    assert len(read) == (1 if bias_std is None else 2)
    for name, prior in zip(stated.names, stated.priors):
        assert (prior.mean, prior.std) == pytest.approx((0, read[name].std), rel=1e-6)


def test_both_parameterizations_have_the_same_output_variance():
    x = jnp.ones(50)
    for parameterization in ("ntk", "standard"):
        layer = nn.Linear(
            50,
            20000,
            parameterization=parameterization,
            weight_std=1.5,
            bias_std=0.5,
            key=KEY,
        )
        assert float(layer(x).var()) == pytest.approx(1.5**2 + 0.25, rel=0.05)


NETWORKS = {
    "mlp": (nn.mlp, 3),
    "normalised": (nn.normalised_mlp, 3),
    "residual": (nn.residual_mlp, 4),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_ready_made_networks(name, parameterization):
    build, layers = NETWORKS[name]

    def make(key):
        return build(
            5,
            2,
            30,
            2,
            activation=jnp.tanh,
            parameterization=parameterization,
            weight_std=1.2,
            bias_std=0.1,
            key=key,
        )

    d = describe(eqx.filter_eval_shape(make, KEY))
    x = np.linspace(-1, 1, 5)
    arrays = [np.linspace(-1, 1, math.prod(a.shape)).reshape(a.shape) for a in d.arrays]
    model = d.unflatten(arrays)
    assert model(x).shape == (2,)
    assert jnp.array_equal(d.apply(arrays, x), model(x))
    random = [p.std for p in d.priors if p.distribution == "normal"]
    assert len(random) == 2 * layers
    if parameterization == "standard":
        assert random[0] == pytest.approx(1.2 / math.sqrt(5))
        assert random[2] == pytest.approx(1.2 / math.sqrt(30))
    read = prior_of(make)
    assert [read[n].std for n in d.names] == pytest.approx([p.std for p in d.priors], rel=1e-6)


def test_normalised_networks_contain_layer_norms():
    model = nn.normalised_mlp(5, 2, 8, 2, key=KEY)
    assert sum(isinstance(layer, eqx.nn.LayerNorm) for layer in model.layers) == 2


def test_residual_network_formula():
    model = nn.residual_mlp(3, 2, 6, 1, branch_scale=0.5, key=KEY)
    stem, block, act, out = model.layers
    x = jnp.array([1.0, -1.0, 0.5])
    h = stem(x)
    h = h + 0.5 * block.branch.layers[1](act(h))
    assert jnp.allclose(model(x), out(act(h)))


def test_depth_zero_is_linear():
    model = nn.mlp(3, 2, 8, 0, key=KEY)
    assert len(model) == 1
    assert jnp.allclose(model(2 * jnp.ones(3)), 2 * model(jnp.ones(3)))
    assert model[0] is model.layers[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameterization": "mup"}, "'ntk' or 'standard'"),
        ({"weight_std": -1.0}, "at least 0"),
        ({"bias_std": -1.0}, "at least 0"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        nn.Linear(3, 4, key=KEY, **options)
    with pytest.raises(ValueError, match="sizes are at least 1"):
        nn.Linear(0, 4, key=KEY)
    with pytest.raises(ValueError, match="depth is at least 0"):
        nn.mlp(3, 2, 8, -1, key=KEY)
