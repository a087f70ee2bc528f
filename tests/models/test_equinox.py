import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit.errors import (
    BatchStatisticsError,
    RandomnessError,
    UnknownPriorError,
    WideLimitError,
)
from widelimit.models import describe
from widelimit.priors import Prior, prior_of

KEY = jax.random.key(0)

# A constructor, and the bound of its uniform initialisation.
UNIFORM = {
    "linear": (lambda k: eqx.nn.Linear(64, 300, key=k), 1 / 8),
    "scalar linear": (lambda k: eqx.nn.Linear("scalar", 300, key=k), 1.0),
    "conv": (lambda k: eqx.nn.Conv2d(8, 60, (3, 2), groups=2, key=k), 1 / math.sqrt(24)),
    "conv 1d": (lambda k: eqx.nn.Conv1d(8, 60, 3, key=k), 1 / math.sqrt(24)),
    "conv transpose": (
        lambda k: eqx.nn.ConvTranspose2d(8, 60, 3, groups=2, key=k),
        1 / 6,
    ),
    "gru": (lambda k: eqx.nn.GRUCell(30, 25, key=k), 1 / 5),
    "lstm": (lambda k: eqx.nn.LSTMCell(30, 25, key=k), 1 / 5),
    "attention": (lambda k: eqx.nn.MultiheadAttention(4, 64, key=k), 1 / 8),
    "stacked": (
        lambda k: eqx.filter_vmap(lambda k: eqx.nn.Linear(16, 50, key=k))(jax.random.split(k, 3)),
        1 / 4,
    ),
}


@pytest.mark.parametrize("name", UNIFORM)
def test_layers_have_their_documented_priors(name):
    make, bound = UNIFORM[name]
    d = describe(make(KEY))
    assert d.library == "equinox"
    read = prior_of(make)
    assert list(read) == list(d.names)
    for prior, path, value in zip(d.priors, d.names, d.values):
        assert prior.mean == 0
        assert prior.std == pytest.approx(bound / math.sqrt(3), rel=1e-14)
        assert prior.distribution == "uniform"
        assert read[path].std == pytest.approx(prior.std, rel=1e-6)
        # Five standard errors of a uniform's variance: its kurtosis is 9/5.
        error = 5 * math.sqrt(0.8 / value.size)
        assert float(value.var()) == pytest.approx(prior.std**2, rel=error)


CONSTANT = {
    "layer norm": eqx.nn.LayerNorm((3, 4)),
    "rms norm": eqx.nn.RMSNorm(4),
    "group norm": eqx.nn.GroupNorm(2, 4),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_normalisations_start_at_constants(name):
    d = describe(CONSTANT[name])
    expected = {"weight": Prior.constant(1.0), "bias": Prior.constant(0.0)}
    assert list(d.priors) == [expected[n] for n in d.names]


def test_embedding_and_prelu():
    d = describe(eqx.nn.Embedding(50, 60, key=KEY))
    assert d.priors == (Prior(0.0, 1.0),)
    assert jnp.array_equal(d.apply(d.values, jnp.array(3)), d.values[0][3])
    assert describe(eqx.nn.PReLU(0.1)).priors[0].mean == pytest.approx(0.1)
    with pytest.raises(UnknownPriorError, match="negative_slope"):
        describe(eqx.nn.PReLU(jnp.array([0.1, 0.2])))


@pytest.mark.parametrize("scan", [False, True])
def test_mlp(scan):
    try:
        model = eqx.nn.MLP(3, 2, 16, 3, activation=jax.nn.gelu, scan=scan, key=KEY)
    except TypeError:
        pytest.skip("this Equinox has no scanned MLP")
    d = describe(model)
    assert d.names[:2] == ("layers[0].weight", "layers[0].bias")
    x = jnp.array([0.3, 0.1, -0.5])
    assert jnp.array_equal(d.apply(d.values, x), model(x))
    half = [jnp.asarray(v, jnp.float16) for v in d.values]
    assert d.apply(half, x.astype(jnp.float16)).dtype == jnp.float16


def test_learnt_activations():
    model = eqx.nn.MLP(3, 2, 4, 2, activation=eqx.nn.PReLU(), key=KEY)
    d = describe(model)
    prior = dict(zip(d.names, d.priors))["activation.negative_slope"]
    assert (prior.mean, prior.std) == (0.25, 0.0)


class Own(eqx.Module):
    scale: jax.Array
    inner: list[eqx.nn.Linear]
    note: str = eqx.field(static=True, default="x")
    table: np.ndarray = eqx.field(default_factory=lambda: np.ones(3))

    def __init__(self, key):
        self.scale = jnp.full(4, 0.5)
        self.inner = [eqx.nn.Linear(4, 4, key=k) for k in jax.random.split(key, 2)]
        self.table = np.ones(4)

    def __call__(self, x, y=0.0):
        return self.inner[1](self.inner[0](x) * self.scale) * self.table + y


class Stating(Own):
    def __widelimit_prior__(self):
        return {"scale": Prior(0.5, 0.1), "inner": Prior(0.0, 0.7)}


def test_arrays_of_unknown_origin_are_refused():
    model = {"a": eqx.nn.Sequential([Own(KEY)])}["a"]
    with pytest.raises(UnknownPriorError, match=r"layers\[0\]\.scale") as caught:
        describe(model)
    assert "Own holds this array itself" in caught.value.why
    for way in ("prior=", "prior_of", "__widelimit_prior__"):
        assert way in caught.value.remedy


def test_ways_to_give_a_prior():
    model = Own(KEY)
    documented = 0.5 / math.sqrt(3)
    for given, scale in [
        ({"scale": 0.2}, 0.2),
        (lambda name, struct: 0.2 if name == "scale" else None, 0.2),
        (prior_of(Own), 0.0),
    ]:
        priors = dict(zip((d := describe(model, prior=given)).names, d.priors))
        assert priors["scale"].std == pytest.approx(scale)
        assert priors["inner[1].weight"].std == pytest.approx(documented, rel=1e-6)
    prefix = eqx.tree_at(lambda m: (m.scale, m.inner), model, (Prior(0.0, 0.2), Prior(0.0, 0.3)))
    assert [p.std for p in describe(model, prior=prefix).priors] == [0.2] + [0.3] * 4


def test_a_module_states_its_own_prior():
    priors = dict(zip((d := describe(Stating(KEY))).names, d.priors))
    assert priors["scale"] == Prior(0.5, 0.1)
    assert priors["inner[0].weight"] == Prior(0.0, 0.7)


def test_several_inputs():
    model = Own(KEY)
    d = describe(model, prior={"scale": 1.0})
    x = jnp.arange(4.0)
    assert jnp.array_equal(d.apply(d.values, (x, 2.0)), model(x, 2.0))
    assert jnp.array_equal(d.apply(d.values, {"x": x, "y": 2.0}), model(x, 2.0))


def test_a_function_of_a_module():
    model = eqx.nn.Linear(3, 2, key=KEY)
    d = describe(lambda m, x: jax.vmap(m)(x).sum(0), model)
    assert d.priors[0].std == pytest.approx(1 / 3)
    assert d.apply(d.values, jnp.ones((5, 3))).shape == (2,)
    mixed = describe(lambda p, x: p["m"](x) * p["s"], {"m": model, "s": jnp.ones(2)})
    assert [p.std for p in mixed.priors] == pytest.approx([1 / 3, 1 / 3, 1])


def test_wrapped_modules():
    model = eqx.nn.Linear(3, 2, key=KEY)
    x = jnp.ones(3)
    d = describe(eqx.filter_jit(model), prior=1.0)
    assert jnp.allclose(d.apply(d.values, x), model(x))
    with pytest.raises(ValueError, match="holds no floating-point arrays"):
        describe(jax.tree_util.Partial(model))  # to JAX, the function itself is static
    d = describe(jax.tree_util.Partial(lambda m, x: m(x), model))
    assert [p.std for p in d.priors] == pytest.approx([1 / 3, 1 / 3])


def test_shared_layers():
    class Tied(eqx.Module):
        shared: eqx.nn.Shared

        def __init__(self, key):
            a, b = (eqx.nn.Linear(4, 4, key=k) for k in jax.random.split(key))
            self.shared = eqx.nn.Shared((a, b), lambda p: p[1].weight, lambda p: p[0].weight)

        def __call__(self, x):
            a, b = self.shared()
            return b(a(x))

    d = describe(model := Tied(KEY))
    assert len(d.arrays) == 3
    assert jnp.array_equal(d.apply(d.values, jnp.ones(4)), model(jnp.ones(4)))


def test_one_array_in_two_places_is_refused():
    layer = eqx.nn.Linear(4, 4, key=KEY)
    with pytest.raises(UnknownPriorError, match="one and the same array") as caught:
        describe(eqx.nn.Sequential([layer, layer]))
    assert "layers[0].weight and layers[1].weight" in caught.value.what
    assert "eqx.nn.Shared" in caught.value.remedy


@pytest.mark.parametrize(
    "change",
    [
        lambda w: 2 * w,
        lambda w: 0.8 * w,
        lambda w: 0 * w,
        lambda w: w + 0.02,
        lambda w: w.at[0, 0].set(jnp.nan),
        lambda w: w.at[0, 0].set(0.2),
    ],
)
def test_values_can_refute_the_documented_prior(change):
    model = eqx.nn.Linear(100, 50, key=KEY)
    changed = eqx.tree_at(lambda m: m.weight, model, change(model.weight))
    with pytest.raises(UnknownPriorError, match="weight is not a draw") as caught:
        describe(changed)
    assert "prior_of" in caught.value.remedy
    assert describe(changed, prior="documented").priors == describe(model).priors
    assert describe(changed, prior={"weight": 3.0}).priors[0].std == 3


def test_trained_constants_are_refused():
    model = eqx.tree_at(lambda m: m.bias, eqx.nn.LayerNorm(4), jnp.full(4, 0.1))
    with pytest.raises(UnknownPriorError, match="bias is not a draw"):
        describe(model)


def test_genuine_draws_are_not_refuted():
    for seed in range(200):
        describe(eqx.nn.Linear(5, 4, key=jax.random.key(seed)))


def test_abstract_modules():
    model = eqx.filter_eval_shape(eqx.nn.MLP, 3, 2, 8, 1, key=KEY)
    d = describe(model)
    assert [p.std for p in d.priors][:1] == pytest.approx([1 / 3])
    assert d.apply([jnp.ones(a.shape) for a in d.arrays], jnp.ones(3)).shape == (2,)


def test_dropout():
    model = eqx.nn.Sequential([eqx.nn.Linear(3, 3, key=KEY), eqx.nn.Dropout(0.5)])
    with pytest.raises(RandomnessError, match=r"layers\[1\]") as caught:
        describe(model)
    assert "inference_mode" in caught.value.remedy
    d = describe(eqx.nn.inference_mode(model))
    assert jnp.array_equal(d.apply(d.values, jnp.ones(3)), model.layers[0](jnp.ones(3)))
    describe(eqx.nn.Sequential([eqx.nn.LayerNorm(3), eqx.nn.Dropout(0.0)]))


def test_batch_norm():
    model, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="batch")
    for given in (model, (model, state)):
        with pytest.raises(BatchStatisticsError, match="the model is an eqx") as caught:
            describe(given)
        assert "inference_mode" in caught.value.remedy
    model = eqx.nn.inference_mode(model)
    with pytest.raises(WideLimitError, match="no state was given") as caught:
        describe(model)
    assert "(model, state)" in caught.value.remedy
    d = describe((model, state))
    assert d.names == ("weight", "bias")
    x = jnp.arange(3.0)
    assert jnp.array_equal(d.apply(d.values, x), model(x, state)[0])


def test_weights_that_are_not_independent_are_refused():
    linear = eqx.nn.Linear(3, 3, key=KEY)
    with pytest.raises(UnknownPriorError, match="g is unknown"):
        describe(eqx.nn.WeightNorm(linear))
    model = eqx.nn.make_with_state(eqx.nn.SpectralNorm)(linear, "weight", key=KEY)
    with pytest.raises(UnknownPriorError, match="singular value"):
        describe(model)


class Rotary(eqx.Module):
    """Tokens turned by angles that are an array of the module."""

    angles: jax.Array
    embed: jax.Array
    readout: jax.Array

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.angles = jnp.outer(jnp.arange(5.0), jnp.asarray([1.0, 0.3]))
        self.embed = jax.random.normal(a, (3, 4, 64))
        self.readout = jax.random.normal(b, (4, 64))

    def __call__(self, x):
        h = jnp.einsum("td,dkc->tkc", x, self.embed)
        one, two = h[:, :2], h[:, 2:]
        cos, sin = jnp.cos(self.angles)[..., None], jnp.sin(self.angles)[..., None]
        turned = jnp.concatenate([one * cos - two * sin, one * sin + two * cos], 1)
        return jnp.einsum("tkc,kc->", jnp.tanh(turned), self.readout) / 16


def test_a_table_is_fixed():
    model = Rotary(KEY)
    with pytest.raises(UnknownPriorError, match="'fixed'"):
        describe(model)
    with pytest.raises(UnknownPriorError, match="'fixed'"):
        prior_of(Rotary)
    given = {"angles": "fixed", "embed": 1.0, "readout": 1.0}
    d = describe(model, prior=given)
    assert d.names == ("embed", "readout")
    read = describe(model, prior=prior_of(Rotary, given={"angles": "fixed"}))
    assert read.names == d.names
    assert "angles: fixed" in repr(prior_of(Rotary, given={"angles": "fixed"}))
    x = jax.random.normal(KEY, (3, 5, 3))

    def written_out(p, x):
        return eqx.tree_at(lambda m: (m.embed, m.readout), model, (p["embed"], p["readout"]))(x)

    params = {"embed": model.embed, "readout": model.readout}
    kernels = wl.kernel(model, prior=given).both(x)
    for ours, plain in zip(kernels, wl.kernel(written_out, params).both(x)):
        np.testing.assert_allclose(ours, plain, rtol=1e-12)
    unturned = eqx.tree_at(lambda m: m.angles, model, 0 * model.angles)
    assert not np.allclose(kernels.ntk, wl.kernel(unturned, prior=given).ntk(x), rtol=1e-3)


def test_a_fixed_array_needs_its_values():
    abstract = jax.eval_shape(Rotary, KEY)
    with pytest.raises(ValueError, match="needs its values"):
        describe(abstract, prior={"angles": "fixed", "embed": 1.0, "readout": 1.0})
    with pytest.raises(ValueError, match="is given 'fixd'"):
        describe(Rotary(KEY), prior={"angles": "fixd", "embed": 1.0, "readout": 1.0})
    with pytest.raises(ValueError, match="nothing is random"):
        describe(Rotary(KEY), prior=lambda name, struct: "fixed")


class Stated(Rotary):
    """States its arrays itself."""

    def __widelimit_prior__(self):
        return {"angles": "fixed", "embed": 1.0, "readout": Prior(0.0, 1.0)}


def test_a_module_states_that_an_array_is_fixed():
    d = describe(Stated(KEY))
    assert d.names == ("embed", "readout")
    assert d.priors == (Prior(0.0, 1.0), Prior(0.0, 1.0))


def test_given_priors_do_not_hide_that_two_arrays_are_one_draw():
    def make(key):
        return {"a": jax.random.normal(key, (5, 4)), "b": 0.5 * jax.random.normal(key, (5, 4))}

    with pytest.raises(UnknownPriorError, match="same random key"):
        prior_of(make, given={"a": 2.0})
    assert prior_of(make, given={"a": "fixed"})["b"].std == pytest.approx(0.5, rel=1e-6)


class Normalised(eqx.Module):
    """Channels first, as Equinox has them."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    readout: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(3, 64, 3, padding=1, use_bias=False, key=a)
        self.norm = eqx.nn.GroupNorm(2, 64, channelwise_affine=False)
        self.readout = eqx.nn.Linear(64, 1, use_bias=False, key=b)

    def __call__(self, x):
        return self.readout(jax.nn.relu(self.norm(self.conv(x))).mean((1, 2)))[0]


def test_groups_of_channels_first_are_those_of_channels_last(rng):
    def channels_last(p, x):
        layout = ("NHWC", "HWIO", "NHWC")
        x = x.transpose(1, 2, 0)[None]
        h = jax.lax.conv_general_dilated(x, p["conv"], (1, 1), "SAME", dimension_numbers=layout)
        h = h[0].reshape(3, 3, 2, 32)
        h = h - h.mean((0, 1, 3), keepdims=True)
        h = h * jax.lax.rsqrt((h**2).mean((0, 1, 3), keepdims=True) + 1e-5)
        return jax.nn.relu(h.reshape(3, 3, 64)).mean((0, 1)) @ p["readout"]

    arrays = {"conv": jnp.zeros((3, 3, 3, 64)), "readout": jnp.zeros(64)}
    prior = {"conv": (27 * 3) ** -0.5, "readout": (64 * 3) ** -0.5}
    x = rng.normal(size=(3, 3, 3, 3))
    expected = wl.kernel(channels_last, arrays, prior=prior).both(x)
    for one, other in zip(wl.kernel(Normalised(KEY)).both(x), expected):
        np.testing.assert_allclose(one, other, rtol=1e-6)
