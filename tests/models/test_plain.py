import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widelimit.errors import UnknownPriorError
from widelimit.models import describe, sample
from widelimit.priors import Prior, prior_of

PARAMS = {
    "layers": [{"w": jnp.ones((4, 3)), "b": jnp.zeros(4)}, {"w": jnp.ones((2, 4)), "b": None}],
    "index": jnp.array([1, 0]),
    "scale": 2.0,
}


def network(params, x):
    first, second = params["layers"]
    h = jnp.tanh(first["w"] @ x + first["b"])
    return params["scale"] * (second["w"] @ h)[params["index"]]


def test_default_is_standard_normal_and_trainable():
    d = describe(network, PARAMS)
    assert d.names == ("layers[0].b", "layers[0].w", "layers[1].w")
    assert [a.shape for a in d.arrays] == [(4,), (4, 3), (2, 4)]
    assert d.priors == (Prior(),) * 3
    assert d.trainable == (True,) * 3
    assert d.library == "params"


def test_apply_equals_the_function():
    d = describe(network, PARAMS)
    x = jnp.array([0.1, -0.2, 0.3])
    assert jnp.array_equal(d.apply(list(d.values), x), network(PARAMS, x))
    arrays = sample(d, jax.random.key(0))
    tree = {**PARAMS, "layers": [{"w": arrays[1], "b": arrays[0]}, {"w": arrays[2]}]}
    assert jnp.array_equal(jax.jit(d.apply)(arrays, x), jax.jit(network)(tree, x))
    assert jax.tree.structure(d.unflatten(arrays)) == jax.tree.structure(PARAMS)


def test_abstract_parameters_and_structured_inputs():
    params = jax.ShapeDtypeStruct((3,), jnp.float32)
    d = describe(lambda w, x: w @ x["a"] + x["b"], params)
    assert d.names == ("params",)
    assert d.apply([jnp.ones(3)], {"a": jnp.arange(3.0), "b": 1.0}) == 4


def test_numpy_parameters_are_parameters():
    assert describe(lambda w, x: w @ x, np.ones((2, 3))).names == ("params",)


@pytest.mark.parametrize(
    ("prior", "stds"),
    [
        (0.5, [0.5, 0.5, 0.5]),
        (Prior(0.0, 2.0), [2, 2, 2]),
        ({"layers": [0.1, 0.2]}, [0.1, 0.1, 0.2]),
        ({"layers": [{"w": 0.1, "b": Prior(0.0, 3.0)}, None]}, [3, 0.1, 1]),
        ({"layers[0]": 0.1, "layers[1].w": 0.4}, [0.1, 0.1, 0.4]),
        ({"layers[0].w": 0}, [1, 0, 1]),
        (lambda name, struct: 0.3 if name.endswith("w") and struct.shape[0] == 4 else None,
         [1, 0.3, 1]),
        (lambda name, struct: Prior.uniform(-(3**0.5), 3**0.5), [1, 1, 1]),
        (jnp.asarray(0.5), [0.5, 0.5, 0.5]),
    ],
)  # fmt: skip
def test_priors_can_be_given_in_many_ways(prior, stds):
    d = describe(network, PARAMS, prior=prior)
    assert [float(p.std) for p in d.priors] == pytest.approx(stds)


def test_a_prefix_tree_may_hold_traced_scales():
    def loss(std):
        d = describe(network, PARAMS, prior={"layers": [Prior(0.0, std), None]})
        return d.priors[1].std ** 2

    assert jax.grad(loss)(3.0) == 6


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        (False, [False] * 3),
        ({"layers": [True, False]}, [True, True, False]),
        ({"layers[0].b": False}, [False, True, True]),
        (lambda name, struct: len(struct.shape) == 2, [False, True, True]),
    ],
)
def test_freezing(trainable, expected):
    assert list(describe(network, PARAMS, trainable=trainable).trainable) == expected


def test_a_constructor_gives_the_priors():
    def make(key):
        a, b = jax.random.split(key)
        return {
            "layers": [
                {"w": 0.5 * jax.random.normal(a, (4, 3)), "b": jnp.zeros(4)},
                {"w": 0.2 * jax.random.normal(b, (2, 4)), "b": None},
            ]
        }

    priors = prior_of(make)
    assert [p.std for p in describe(network, PARAMS, prior=priors).priors] == pytest.approx(
        [0, 0.5, 0.2]
    )
    with pytest.raises(ValueError, match="another model: its w has shape"):
        describe(lambda p, x: x, {"w": jnp.ones(3)}, prior=prior_of(lambda k: {"w": jnp.ones(2)}))
    with pytest.raises(ValueError, match="lacks v, and has w"):
        describe(lambda p, x: x, {"v": jnp.ones(3)}, prior=prior_of(lambda k: {"w": jnp.ones(3)}))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"no parameter is called 'layer'.*layers\[0\]\.b"):
        describe(network, PARAMS, prior={"layer": 0.5})
    with pytest.raises(ValueError, match="no parameter is called"):
        describe(network, PARAMS, trainable={"bias": False})
    with pytest.raises(ValueError, match="at least 0"):
        describe(network, PARAMS, prior=-1.0)
    with pytest.raises(ValueError, match="returned 'x'"):
        describe(network, PARAMS, prior=lambda name, struct: "x")
    with pytest.raises(ValueError, match="documented"):
        describe(network, PARAMS, prior="default")
    with pytest.raises(TypeError, match="needs its parameters"):
        describe(lambda x: x)
    with pytest.raises(TypeError, match="int is not a function"):
        describe(3)
    with pytest.raises(TypeError, match="expected a function"):
        describe(3, PARAMS)
    with pytest.raises(ValueError, match="int32 array is a constant"):
        describe(network, {"w": jnp.ones(3), "n": jax.ShapeDtypeStruct((), jnp.int32)})
    with pytest.raises(UnknownPriorError, match="w is complex"):
        describe(network, {"w": jnp.ones(3, jnp.complex64)})


def test_sampling_follows_the_priors():
    shapes = {"a": jnp.zeros((200, 300)), "b": jnp.zeros(3)}
    given = {"a": Prior(1.0, 0.5), "b": Prior.constant(2.0)}
    d = describe(lambda p, x: x, shapes, prior=given)
    a, b = sample(d, jax.random.key(1))
    assert a.dtype == shapes["a"].dtype
    assert float(a.mean()) == pytest.approx(1, abs=0.02)
    assert float(a.std()) == pytest.approx(0.5, rel=0.02)
    assert jnp.array_equal(b, jnp.full(3, 2.0))
    assert sample(d, jax.random.key(1), jnp.float16)[0].dtype == jnp.float16
