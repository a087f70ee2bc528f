"""Inverse cosine and sine against those of NumPy in extended precision."""

import jax
import numpy as np
import pytest

from widelimit.duals._arccos import arccos_of_one_minus, arcsin


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_to_a_few_roundings(rng, dtype):
    near = 10 ** rng.uniform(-30, 0, 3000)
    gap = np.concatenate([rng.uniform(0, 1, 3000), near, [0.25, 0.5, 1]]).astype(dtype)
    exact = 2 * np.arcsin(np.sqrt(gap.astype(np.longdouble) / 2))
    eps = np.finfo(dtype).eps
    found = np.asarray(jax.jit(arccos_of_one_minus)(gap))
    assert np.max(np.abs(found / exact - 1)) <= 2 * eps
    z = np.concatenate([gap, -gap])
    z = z[np.abs(z) < 1]
    found = np.asarray(jax.jit(arcsin)(z))
    assert np.max(np.abs(found / np.arcsin(z.astype(np.longdouble)) - 1)) <= 4 * eps


def test_no_angle_at_all():
    assert float(arccos_of_one_minus(np.zeros(()))) == 0
