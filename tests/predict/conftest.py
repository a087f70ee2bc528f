"""One network and one small data set for all tests of predictions."""

import jax
import jax.numpy as jnp
import pytest

import widelimit as wl
from predict.oracles import network, shapes


@pytest.fixture(scope="session")
def kernel():
    return wl.kernel(network, shapes())


@pytest.fixture(scope="session")
def single():
    """The same kernel for inputs in float32."""
    return wl.kernel(network, shapes(dtype=jnp.float32))


@pytest.fixture(scope="session")
def light():
    """A kernel that compiles in no time: linear in its inputs, with a bias."""
    s = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float64)
    return wl.kernel(lambda p, v: p[0] @ v + p[1], [s(3, 4), s(3)])


@pytest.fixture
def data(rng):
    return rng.normal(size=(12, 4)), rng.normal(size=(12, 3)), rng.normal(size=(5, 4))
