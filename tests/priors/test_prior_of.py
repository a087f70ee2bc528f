import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widelimit.errors import UnknownPriorError
from widelimit.priors import prior_of

TOLERANCE = 1e-6


def test_parameter_trees():
    def make(key):
        a, b = jax.random.split(key)
        return {
            "dense": [0.3 * jax.random.normal(a, (5, 4)), jnp.zeros(4)],
            "out": jax.random.uniform(b, (4,), minval=-2, maxval=2),
            "count": jnp.arange(3),
        }

    priors = prior_of(make)
    assert list(priors) == ["dense[0]", "dense[1]", "out"]
    assert priors["dense[0]"].std == pytest.approx(0.3, rel=TOLERANCE)
    assert priors["dense[1]"].std == 0
    assert priors["out"].std == pytest.approx(2 / math.sqrt(3), rel=TOLERANCE)
    assert priors.structs["dense[0]"].shape == (5, 4)
    assert "dense[0]: normal" in repr(priors)


def test_one_array_and_further_arguments():
    priors = prior_of(lambda key, n: jax.random.normal(key, (n,)), 3)
    assert priors["params"].std == pytest.approx(1, rel=TOLERANCE)


def test_raw_keys():
    def make(key):
        keys = jax.random.split(key, 3)
        assert keys.shape == (3, 2)  # fails for typed keys
        return [jax.random.normal(keys[i], (2, 3)) for i in range(3)]

    def strict(key):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            raise TypeError
        return make(key)

    assert [p.std for p in prior_of(strict).values()] == pytest.approx([1, 1, 1], rel=TOLERANCE)
    wrapped = prior_of(lambda key: make(jax.random.key_data(key)))
    assert len(wrapped) == 3


def test_other_keys():
    fixed = jax.random.key(7)

    def make(key):
        return {
            "closed over": jax.random.normal(fixed, (3,)),
            "seeded": jax.random.normal(jax.random.key(3), (3,)),
            "folded": jax.random.normal(jax.random.fold_in(key, 5), (3,)),
            "other implementation": jax.random.normal(jax.random.key(3, impl="rbg"), (3,)),
        }

    priors = prior_of(make)
    assert [p.std for p in priors.values()] == pytest.approx([1] * 4, rel=TOLERANCE)


def test_the_jaxpr_may_loop_and_branch_on_constants():
    def make(key):
        def layer(carry, key):
            return carry + 1, 0.5 * jax.random.normal(key, (3, 3))

        count, stack = jax.lax.scan(layer, 0, jax.random.split(key, 4))
        stack = jax.lax.cond(True, lambda s: 2 * s, lambda s: s, stack)
        return {"stack": stack, "count": count}

    assert prior_of(make)["stack"].std == pytest.approx(1, rel=TOLERANCE)


def test_mapped_constructors():
    def make(key):
        return jax.vmap(lambda k: eqx.nn.Linear(4, 5, key=k))(jax.random.split(key, 3))

    priors = prior_of(make)
    assert priors.structs["weight"].shape == (3, 5, 4)
    assert priors["weight"].std == pytest.approx(1 / math.sqrt(12), rel=TOLERANCE)
    assert priors["weight"].distribution == "uniform"


def test_jitted_constructors():
    make = jax.jit(lambda key: jnp.transpose(jax.random.normal(key, (3, 4))).reshape(2, 6))
    assert prior_of(make)["params"].std == pytest.approx(1, rel=TOLERANCE)


def test_disjoint_parts_of_one_draw_are_independent():
    def make(key):
        a, b, c = jax.random.normal(key, (3, 4))
        return a.reshape(2, 2), b, c[::2], c[1::2]

    assert len(prior_of(make)) == 4


REUSED = {
    "one key": lambda k: (jax.random.normal(k, (3,)), jax.random.uniform(k, (4,))),
    "one array": lambda k: (w := jax.random.normal(k, (3,)), 2 * w),
    "overlapping parts": lambda k: ((w := jax.random.normal(k, (3, 4)))[0], w[0, ::2]),
    "split twice": lambda k: (
        jax.random.normal(jax.random.split(k, 2)[1], (3,)),
        jax.random.normal(jax.random.split(k, 3)[1], (3,)),
    ),
    # fold_in(key, 1) and split(key)[1] are the same key with the default implementation.
    "split and folded": lambda k: (
        jax.random.normal(jax.random.split(k, 2)[1], (3,)),
        jax.random.normal(jax.random.fold_in(k, 1), (3,)),
    ),
    "in a sum": lambda k: (
        jax.random.normal(k, (3,)) + jax.random.normal(jax.random.split(k)[0], (3,)),
        jax.random.normal(k, (3,)),
    ),
}


@pytest.mark.parametrize("name", REUSED)
def test_reused_keys_are_refused(name):
    with pytest.raises(UnknownPriorError, match="same random key") as caught:
        prior_of(REUSED[name])
    assert "[0] and [1]" in caught.value.what
    assert "split" in caught.value.remedy


def test_split_and_fold_in_do_coincide():
    key = jax.random.key(11)
    split = jax.random.key_data(jax.random.split(key, 3)[1])
    assert np.array_equal(split, jax.random.key_data(jax.random.fold_in(key, 1)))


def test_errors_of_the_constructor_come_through():
    with pytest.raises(TypeError, match="nonsense"):
        prior_of(lambda key: (_ for _ in ()).throw(TypeError("nonsense")))


def test_the_error_names_the_array():
    with pytest.raises(UnknownPriorError, match=r"layers\[1\]\.w") as caught:
        prior_of(lambda key: {"layers": [{"w": jnp.ones(2)}, {"w": jnp.arange(3.0)}]})
    assert "prior=" in caught.value.remedy


def test_the_constructor_is_not_run():
    huge = prior_of(lambda key: 0.1 * jax.random.normal(key, (1 << 20, 1 << 10)))
    assert huge["params"].std == pytest.approx(0.1, rel=TOLERANCE)
