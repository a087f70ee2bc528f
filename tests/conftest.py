"""Strict numerics for every test: float64 available, warnings are errors."""

import gc

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "allow")


@pytest.fixture
def rng():
    """NumPy's generator with a fixed seed."""
    import numpy as np

    return np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file():
    """Compiled programs are let go after each file; those of a whole run would fill the memory."""
    yield
    jax.clear_caches()
    gc.collect()
