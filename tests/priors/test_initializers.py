import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import initializers as init

from widelimit.errors import UnknownPriorError
from widelimit.priors import Prior, of_initializer
from widelimit.priors._prior_of import of_initializer_with_support

SHAPE = (6, 10)
# jax.nn.initializers with their documented means and standard deviations on a (6, 10) array.
EXACT = {
    "zeros": (init.zeros, 0.0, 0.0),
    "ones": (init.ones, 1.0, 0.0),
    "constant": (init.constant(-1.5), -1.5, 0.0),
    "uniform": (init.uniform(0.3), 0.15, 0.3 / math.sqrt(12)),
    "normal": (init.normal(0.7), 0.0, 0.7),
    "normal of zero": (init.normal(0.0), 0.0, 0.0),
    "truncated_normal": (init.truncated_normal(0.5), 0.0, 0.5 * 0.87962566103423978),
    "lecun_normal": (init.lecun_normal(), 0.0, math.sqrt(1 / 6)),
    "lecun_uniform": (init.lecun_uniform(), 0.0, math.sqrt(1 / 6)),
    "he_normal": (init.he_normal(), 0.0, math.sqrt(2 / 6)),
    "he_uniform": (init.he_uniform(), 0.0, math.sqrt(2 / 6)),
    "glorot_normal": (init.glorot_normal(), 0.0, math.sqrt(1 / 8)),
    "glorot_uniform": (init.glorot_uniform(), 0.0, math.sqrt(1 / 8)),
    "scaling out": (init.variance_scaling(3.0, "fan_out", "normal"), 0.0, math.sqrt(0.3)),
    "scaling axes": (
        init.variance_scaling(1.0, "fan_in", "normal", in_axis=1, out_axis=0),
        0.0,
        math.sqrt(0.1),
    ),
    "orthogonal": (init.orthogonal(), 0.0, math.sqrt(1 / 10)),
    "orthogonal scaled": (init.orthogonal(2.0, column_axis=0), 0.0, 2 * math.sqrt(1 / 10)),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initializers_are_read_exactly(name, dtype):
    make, mean, std = EXACT[name]
    prior = of_initializer(make, SHAPE, dtype)
    assert prior.mean == pytest.approx(mean, rel=1e-12, abs=1e-15)
    assert prior.std == pytest.approx(std, rel=1e-12, abs=0)
    assert (prior.std == 0) == (prior.distribution == "constant")


@pytest.mark.parametrize("name", EXACT)
def test_initializers_agree_with_samples(name):
    make = EXACT[name][0]
    prior, (low, high) = of_initializer_with_support(make, (120, 160), jnp.float32)
    draw = np.asarray(make(jax.random.key(3), (120, 160), jnp.float32), float)
    error = 5 / math.sqrt(draw.size)
    # Fourth moments of all of these are at most Gaussian.
    assert abs(draw.mean() - prior.mean) <= error * prior.std + 1e-7 * abs(prior.mean)
    assert abs(draw.std() / prior.std - 1 if prior.std else draw.std()) <= error
    assert low - 1e-6 <= draw.min() <= draw.max() <= high + 1e-6


DISTRIBUTIONS = {
    "bernoulli": (lambda k, s, d: jax.random.bernoulli(k, 0.3, s).astype(d), 0.3, 0.21**0.5),
    "rademacher": (jax.random.rademacher, 0.0, 1.0),
    "laplace": (jax.random.laplace, 0.0, math.sqrt(2)),
    "gumbel": (jax.random.gumbel, 0.5772156649015329, math.pi / math.sqrt(6)),
    "logistic": (jax.random.logistic, 0.0, math.pi / math.sqrt(3)),
    "exponential": (jax.random.exponential, 1.0, 1.0),
    "half normal": (
        lambda k, s, d: jnp.abs(jax.random.normal(k, s, d)),
        math.sqrt(2 / math.pi),
        math.sqrt(1 - 2 / math.pi),
    ),
    "log-normal": (
        lambda k, s, d: jnp.exp(0.5 * jax.random.normal(k, s, d)),
        math.exp(0.125),
        math.sqrt((math.exp(0.25) - 1) * math.exp(0.25)),
    ),
    "one-sided": (
        lambda k, s, d: jax.random.truncated_normal(k, 0.0, 100.0, s, d),
        math.sqrt(2 / math.pi),
        math.sqrt(1 - 2 / math.pi),
    ),
    "not truncated": (lambda k, s, d: jax.random.truncated_normal(k, -50, 50, s, d), 0.0, 1.0),
    "shifted": (lambda k, s, d: 3.0 - 2 * jax.random.uniform(k, s, d, -1, 2), 2.0, math.sqrt(3)),
    "clipped": (
        lambda k, s, d: jnp.clip(jax.random.uniform(k, s, d), 0.0, 0.5),
        0.375,
        math.sqrt(1 / 24 + 1 / 8 - 0.375**2),
    ),
    "sum": (
        lambda k, s, d: (
            jax.random.normal(k, s, d) - jax.random.uniform(jax.random.split(k)[0], s, d)
        ),
        -0.5,
        math.sqrt(1 + 1 / 12),
    ),
    "product": (
        lambda k, s, d: (
            jax.random.normal(k, s, d) * jax.random.uniform(jax.random.split(k)[0], s, d)
        ),
        0.0,
        math.sqrt(1 / 3),
    ),
    "choice": (
        lambda k, s, d: jnp.where(jax.random.uniform(k, s, d) < 0.25, 3.0, -1.0).astype(d),
        0.0,
        math.sqrt(3),
    ),
    "discretised": (
        lambda k, s, d: jax.random.uniform(k, s, d, 0, 4).astype("int32").astype(d) + 0.5,
        2.0,
        math.sqrt(5 / 4),
    ),
    "squared": (lambda k, s, d: jax.random.normal(k, s, d) ** 2, 1.0, math.sqrt(2)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_other_distributions(name, dtype):
    make, mean, std = DISTRIBUTIONS[name]
    prior = of_initializer(make, (4,), dtype)
    # Samplers step inside the ends of the uniform by about one float32 or float64 spacing.
    assert prior.mean == pytest.approx(mean, rel=1e-9, abs=1e-9)
    assert prior.std == pytest.approx(std, rel=1e-8)


def test_half_precision():
    assert of_initializer(init.he_normal(), (8, 8), jnp.bfloat16).std == pytest.approx(0.5)
    # An array made in half precision whatever is asked for.
    prior = of_initializer(lambda k, s, _: jax.random.normal(k, s, jnp.float16), (8,), "float16")
    assert prior.std == pytest.approx(1, rel=1e-3)


REFUSED = {
    "eye": (lambda k, s, d: jnp.eye(3, dtype=d), "differ from one another"),
    "delta orthogonal": (lambda k, s, d: init.delta_orthogonal()(k, (3, 3, 4, 8), d), "scatter"),
    "cauchy": (jax.random.cauchy, "no finite variance"),
    "gamma": (lambda k, s, d: jax.random.gamma(k, 2.0, s, d), "random_gamma"),
    "matmul": (lambda k, s, d: (w := jax.random.normal(k, (3, 3), d)) @ w.T, "dot_general"),
    "repeated": (lambda k, s, d: jnp.broadcast_to(jax.random.normal(k, (), d), (3,)), "several"),
    "gathered twice": (
        lambda k, s, d: jax.random.normal(k, (3,), d)[jnp.array([0, 1, 1])],
        "several",
    ),
    "doubled": (
        lambda k, s, d: jnp.concatenate([w := jax.random.normal(k, (3,), d), w]),
        "several",
    ),
    "same key": (
        lambda k, s, d: jnp.concatenate(
            [jax.random.normal(k, (3,), d), jax.random.normal(k, (4,), d)]
        ),
        "same key",
    ),
    "unequal scales": (
        lambda k, s, d: jax.random.normal(k, (3,), d) * jnp.arange(3, dtype=d),
        "differ by a constant factor",
    ),
    "unequal parts": (
        lambda k, s, d: jnp.concatenate([jnp.ones(3, d), jax.random.normal(k, (3,), d)]),
        "different distributions",
    ),
    "with its transpose": (
        lambda k, s, d: (w := jax.random.normal(k, (3, 3), d)) + w.T,
        "same random key",
    ),
    "with itself again": (
        lambda k, s, d: jax.random.normal(k, (3,), d) + jax.random.uniform(k, (3,), d),
        "same random key",
    ),
    "unsigned factor": (
        lambda k, s, d: jnp.linalg.qr(jax.random.normal(k, (5, 3), d))[0],
        "signs",
    ),
    "integer division": (
        lambda k, s, d: jax.lax.div(
            jax.random.bernoulli(k, 0.5, (3,)).astype("int32") * 7, jnp.int32(2)
        ).astype(d),
        "`div`",
    ),
    "unsigned integers": (
        lambda k, s, d: (-jax.random.bernoulli(k, 0.5, (3,)).astype("uint32")).astype(d),
        "convert_element_type",
    ),
    "bitwise": (
        lambda k, s, d: (jax.random.bernoulli(k, 0.5, (3,)).astype("int32") | 4).astype(d),
        "`or`",
    ),
    "choice of three": (
        lambda k, s, d: jax.lax.select_n(
            jax.random.bernoulli(k, 0.5, (3,)).astype("int32"),
            *(jnp.full(3, c, d) for c in (1, 2, 3)),
        ),
        "select_n",
    ),
    "key words": (lambda k, s, d: jax.random.key_data(k).astype(d), "random key"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_and_named(name):
    make, cause = REFUSED[name]
    with pytest.raises(UnknownPriorError, match=cause) as caught:
        of_initializer(make, SHAPE, jnp.float32)
    assert caught.value.remedy
    assert "the array" in caught.value.what


def test_prior_constructors():
    assert Prior.uniform(-1.0, 3.0) == Prior(1.0, 4 / math.sqrt(12), "uniform")
    assert Prior.constant(2.0) == Prior(2.0, 0.0, "constant")
    assert Prior.normal(0.5) == Prior(0.0, 0.5, "normal")
    assert jax.tree.leaves(Prior(1.0, 2.0)) == [1.0, 2.0]
