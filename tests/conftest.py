"""Strict numerics for every test: float64 available, warnings are errors."""

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "allow")


@pytest.fixture
def rng():
    """NumPy's generator with a fixed seed."""
    import numpy as np

    return np.random.default_rng(0)
