import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

nnx = pytest.importorskip("flax.nnx")

import widelimit as wl  # noqa: E402
from widelimit.errors import BatchStatisticsError, RandomnessError, UnknownPriorError  # noqa: E402
from widelimit.models import describe  # noqa: E402
from widelimit.priors import Prior, prior_of  # noqa: E402

ONE, ZERO = Prior.constant(1.0), Prior.constant(0.0)


def rngs(key=0):
    return nnx.Rngs(params=key)


# A constructor, and the standard deviation of each random variable by name.
LAYERS = {
    "linear": (lambda r: nnx.Linear(8, 30, rngs=r), {"kernel": 8**-0.5}),
    "general": (
        lambda r: nnx.LinearGeneral((4, 5), (3, 2), axis=(0, 1), rngs=r),
        {"kernel": 20**-0.5},
    ),
    "einsum": (lambda r: nnx.Einsum("ab,bc->ac", (8, 9), (9,), rngs=r), {"kernel": 8**-0.5}),
    "conv": (
        lambda r: nnx.Conv(4, 6, (3, 2), feature_group_count=2, rngs=r),
        {"kernel": 12**-0.5},
    ),
    "conv transpose": (lambda r: nnx.ConvTranspose(4, 6, (3, 2), rngs=r), {"kernel": 24**-0.5}),
    "embed": (lambda r: nnx.Embed(40, 25, rngs=r), {"embedding": 1 / 5}),
    "lora": (lambda r: nnx.LoRA(8, 3, 9, rngs=r), {"lora_a": 0.5}),
    "gru": (
        lambda r: nnx.GRUCell(4, 9, rngs=r),
        {"dense_i.kernel": 1 / 2, "dense_h.kernel": 27**-0.5},
    ),
    "lstm": (
        lambda r: nnx.LSTMCell(4, 9, rngs=r),
        {f"i{g}.kernel": 1 / 2 for g in ("i", "f_", "g", "o")}
        | {f"h{g}.kernel": 1 / 3 for g in "ifgo"},
    ),
    "attention": (
        lambda r: nnx.MultiHeadAttention(2, 8, 12, decode=False, rngs=r),
        {f"{n}.kernel": 8**-0.5 for n in ("query", "key", "value")} | {"out.kernel": 12**-0.5},
    ),
    "layer norm": (lambda r: nnx.LayerNorm(5, rngs=r), {}),
    "rms norm": (lambda r: nnx.RMSNorm(5, rngs=r), {}),
    "group norm": (lambda r: nnx.GroupNorm(6, 3, rngs=r), {}),
    "batch norm": (lambda r: nnx.BatchNorm(6, use_running_average=True, rngs=r), {}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_have_the_priors_of_their_initializers(name):
    make, stds = LAYERS[name]
    # Recurrent layers of two Flax versions are named differently.
    model = make(rngs())
    priors = dict(zip((d := describe_module(model)).names, d.priors))
    assert set(stds) <= set(priors)
    read = prior_of(lambda key: make(rngs(key)))
    for path, prior in priors.items():
        if path in stds:
            assert prior.std == pytest.approx(stds[path], rel=1e-12)
            assert read[path].std == pytest.approx(stds[path], rel=1e-6)
            assert prior.mean == 0
        else:
            assert prior == (ONE if path.endswith("scale") else ZERO)
            assert read[path] == prior
    assert d.library == "flax"


def describe_module(model):
    """Cells are called with a carry, so describe them as the parameters of a function."""
    return describe(lambda m, x: m(*x), model)


class Net(nnx.Module):
    def __init__(self, rngs, **options):
        layers = [nnx.Linear(3, 40, rngs=rngs, **options)]
        self.inner = nnx.List(layers) if hasattr(nnx, "List") else layers
        self.norm = nnx.BatchNorm(40, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(40, 2, rngs=rngs, **options)

    def __call__(self, x, shift=0.0):
        return self.out(self.drop(nnx.relu(self.norm(self.inner[0](x))))) + shift


@pytest.fixture
def net():
    model = Net(nnx.Rngs(0))
    model.eval()
    return model


def test_apply_equals_the_model(net):
    d = describe(net)
    assert d.names[:2] == ("inner[0].bias", "inner[0].kernel")
    x = jnp.array([0.1, 0.2, -0.4])
    assert jnp.allclose(d.apply(d.values, x), net(x))
    assert jnp.allclose(d.apply(d.values, (x, 1.0)), net(x, 1.0))
    assert jnp.allclose(jax.jit(d.apply)(list(d.values), {"x": x}), net(x), atol=1e-6)
    gradient = jax.grad(lambda arrays: d.apply(arrays, x).sum())(list(d.values))
    assert [g.shape for g in gradient] == [a.shape for a in d.arrays]


def test_stored_statistics_are_constants(net):
    nnx.update(net.norm, {"mean": jnp.full(40, 0.3)})
    d = describe(net)
    assert "norm.mean" not in d.names
    assert jnp.allclose(d.apply(d.values, jnp.ones(3)), net(jnp.ones(3)))


def test_training_mode_is_refused(net):
    net.norm.use_running_average = False
    with pytest.raises(BatchStatisticsError, match=r"norm is an nnx\.BatchNorm") as caught:
        describe(net)
    assert "model.eval()" in caught.value.remedy
    net.norm.use_running_average, net.drop.deterministic = True, False
    with pytest.raises(RandomnessError, match="drop applies dropout") as caught:
        describe(net)
    assert "model.eval()" in caught.value.remedy


def test_initializers_are_never_guessed():
    he = nnx.initializers.he_normal()

    def make(key):
        return nnx.Linear(30, 40, kernel_init=he, rngs=nnx.Rngs(key))

    model = make(0)
    if hasattr(model, "kernel_init"):
        assert describe(model).priors[1].std == pytest.approx(math.sqrt(2 / 30))
    else:
        with pytest.raises(UnknownPriorError, match="kernel is not a draw") as caught:
            describe(model)
        assert "prior_of" in caught.value.remedy
    priors = describe(model, prior=prior_of(make)).priors
    assert priors[1].std == pytest.approx(math.sqrt(2 / 30), rel=1e-6)


def test_abstract_models_without_initializers_are_refused():
    def make():
        return nnx.Linear(3, 4, rngs=nnx.Rngs(0))

    model = nnx.eval_shape(make)
    if hasattr(model, "kernel_init"):
        pytest.skip("this Flax keeps initializers")
    with pytest.raises(UnknownPriorError, match="is unknown"):
        describe(model)
    assert describe(model, prior=prior_of(lambda key: nnx.Linear(3, 4, rngs=nnx.Rngs(key))))


def test_shared_variables_are_one_parameter():
    class Tied(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(4, 4, rngs=rngs)
            self.second = nnx.Linear(4, 4, use_bias=False, rngs=rngs)
            self.second.kernel = self.first.kernel

        def __call__(self, x):
            return self.second(nnx.relu(self.first(x)))

    d = describe(model := Tied(nnx.Rngs(0)))
    assert d.names == ("first.bias", "first.kernel")
    assert jnp.allclose(d.apply(d.values, jnp.ones(4)), model(jnp.ones(4)))


def test_stacked_layers():
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(key):
        return nnx.Linear(8, 30, rngs=nnx.Rngs(key))

    model = make(jax.random.split(jax.random.key(0), 3))
    d = describe(lambda m, x: x, model)
    assert d.arrays[1].shape == (3, 8, 30)
    assert d.priors[1].std == pytest.approx(8**-0.5)


def test_own_parameters_have_unknown_priors():
    class Own(nnx.Module):
        def __init__(self, rngs):
            self.w = nnx.Param(jax.random.normal(rngs.params(), (3,)))
            self.constant = nnx.Variable(jnp.ones(3))

        def __call__(self, x):
            return self.w * x + self.constant

    model = Own(nnx.Rngs(0))
    with pytest.raises(UnknownPriorError, match="w is unknown") as caught:
        describe(model)
    assert "Own holds this array itself" in caught.value.why
    assert "prior_of" in caught.value.remedy
    for prior in (1.0, {"w": 1.0}, prior_of(lambda key: Own(nnx.Rngs(key)))):
        d = describe(model, prior=prior)
        assert d.names == ("w",)
        assert d.priors[0].std == pytest.approx(1)
    assert jnp.allclose(d.apply([jnp.zeros(3)], jnp.ones(3)), 1)


class Recurrent(nnx.Module):
    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.SimpleCell(5, 64, rngs=rngs))
        self.readout = nnx.Linear(64, 1, rngs=rngs)

    def __call__(self, x):
        return self.readout(self.rnn(x[None])[0, -1])[0]


def test_a_recurrent_network_with_its_own_counter_of_random_numbers(rng):
    kernel = wl.kernel(Recurrent(nnx.Rngs(0)))
    names = {name.split(".", 2)[-1]: prior.std for name, prior in kernel.priors.items()}

    def elman(p, xs):
        h = jnp.zeros(64)
        for x in xs:
            h = jnp.tanh(x @ p["in"] + p["bias"] + h @ p["again"])
        return h @ p["out"]

    params = {
        "in": jnp.zeros((5, 64)), "bias": jnp.zeros(64), "again": jnp.zeros((64, 64)),
        "out": jnp.zeros(64),
    }
    prior = {"in": names["dense_i.kernel"], "again": 1 / 8, "bias": 0.0, "out": 1 / 8}
    x = rng.normal(size=(3, 4, 5))
    written_out = wl.kernel(elman, params, prior=prior).nngp(x)
    assert np.allclose(kernel.nngp(x), written_out, rtol=1e-6)
