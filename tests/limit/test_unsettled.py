"""Functions that jump or bend where only the fluctuation of a mean is left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

from .networks import OUT, N, struct
from .sampling import assert_agree, sampled
from .spatial import conv

SHAPES = [struct(3, 3, 3, N), struct(N), struct(OUT, 16 * N)]


def network(activation, *, bias=False):
    def f(p, x):
        h = conv(p[0], x)
        h = (h - h.mean()) / jnp.sqrt(h.var() + 1e-5)
        h = h + 0.0 * p[1] if not bias else h + p[1]
        return p[2] @ activation(h).reshape(-1) / np.sqrt(h.size)

    return f


def inputs(rng, *, empty):
    x = rng.normal(size=(2, 4, 4, 3))
    if empty:
        x[:, 2:] = 0  # the last row sees nothing but zeros
    return x


def kernel(activation, std):
    prior = {"[0]": wl.Prior(0.0, 1.0), "[1]": wl.Prior(0.0, std), "[2]": wl.Prior(0.0, 1.0)}
    return wl.kernel(network(activation, bias=True), SHAPES, prior=prior)


@pytest.mark.parametrize("kind", ["nngp", "ntk", "nngp_diagonal", "ntk_diagonal"])
def test_a_jump_at_an_empty_background_is_refused(kind, rng):
    with pytest.raises(wl.AmbiguousScaleError, match="jumps") as caught:
        getattr(kernel(jnp.sign, 0.0), kind)(inputs(rng, empty=True))
    assert caught.value.where.file == __file__


def test_a_kink_is_refused_in_the_tangent_kernel_alone(rng):
    k, x = kernel(jax.nn.relu, 0.0), inputs(rng, empty=True)
    assert np.all(np.isfinite(k.nngp(x)))
    with pytest.raises(wl.AmbiguousScaleError, match="bends"):
        k.ntk(x)
    with pytest.raises(wl.AmbiguousScaleError, match="bends"):
        k.ntk(inputs(rng, empty=False), x)


def test_not_a_number_where_nothing_can_be_raised(rng):
    ntk = jax.jit(kernel(jax.nn.relu, 0.0).ntk)
    assert np.all(np.isnan(ntk(inputs(rng, empty=True))))
    assert np.all(np.isfinite(ntk(inputs(rng, empty=False))))


@pytest.mark.parametrize(("activation", "std", "empty"), [
    (jnp.sign, 0.0, False), (jnp.sign, 0.5, True), (jax.nn.relu, 0.5, True),
    (jax.lax.erf, 0.0, True),
], ids=["nothing empty", "a random bias", "relu with a random bias", "smooth"])
def test_everything_else_reads(activation, std, empty, rng):
    assert np.all(np.isfinite(kernel(activation, std).ntk(inputs(rng, empty=empty))))


@pytest.mark.slow
def test_a_kink_without_a_trained_bias_agrees_with_sampled_networks(rng):
    x = inputs(rng, empty=True)
    f = network(jax.nn.relu)
    limit = wl.kernel(f, SHAPES).both(x)
    assert_agree(limit, sampled(f, SHAPES, jnp.asarray(x)))
