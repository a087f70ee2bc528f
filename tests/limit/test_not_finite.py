"""Kernels that are infinite or undefined are errors that name the line and the examples."""

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit.errors import NotGaussianError

WIDTH = 256
SHAPES = [jax.ShapeDtypeStruct((WIDTH, 3), float), jax.ShapeDtypeStruct((1, WIDTH), float)]


def by_a_vanishing_mean(p, x):
    h = p[0] @ x / np.sqrt(3)
    h = h / jnp.mean(jax.scipy.special.erf(h))  # here
    return p[1] @ h / np.sqrt(WIDTH)


def by_the_norm_of_the_input(p, x):
    h = p[0] @ (x / jnp.linalg.norm(x))  # here
    return p[1] @ jax.nn.relu(h) / np.sqrt(WIDTH)


def beyond_single_precision(p, x):
    h = jax.nn.relu(p[0] @ x)
    return p[1] @ (1e15 * h) / np.sqrt(WIDTH)  # here


def line_of(f):
    lines, first = inspect.getsourcelines(f)
    return first + next(k for k, text in enumerate(lines) if "# here" in text)


READINGS = ["nngp", "ntk", "both", "nngp_diagonal", "ntk_diagonal"]


@pytest.mark.parametrize("reading", READINGS)
def test_division_by_what_vanishes(reading):
    kernel = wl.kernel(by_a_vanishing_mean, SHAPES)
    with pytest.raises(NotGaussianError, match="examples 0 and 0 is not finite") as caught:
        getattr(kernel, reading)(jnp.eye(3))
    assert caught.value.where.file == __file__
    assert caught.value.where.line == line_of(by_a_vanishing_mean)


@pytest.mark.parametrize("reading", READINGS)
def test_one_example(reading):
    kernel = wl.kernel(by_the_norm_of_the_input, SHAPES)
    x = jnp.eye(3).at[1].set(0)
    pair = "1 and 1" if "diagonal" in reading else "1 and 0"
    with pytest.raises(NotGaussianError, match=f"examples {pair} is not finite") as caught:
        getattr(kernel, reading)(x)
    assert caught.value.where.line == line_of(by_the_norm_of_the_input)


def test_the_other_batch(monkeypatch):
    kernel = wl.kernel(by_the_norm_of_the_input, SHAPES)
    x = jnp.eye(3)
    y = jnp.ones((9, 3)).at[7].set(0)
    with pytest.raises(NotGaussianError, match="examples 0 and 7 "):
        kernel.nngp(x, y)
    monkeypatch.setattr(importlib.import_module("widelimit.kernel._program"), "TILE", 2)
    with pytest.raises(NotGaussianError, match="examples 0 and 7 "):
        kernel.nngp(x, y)
    assert np.all(np.isfinite(kernel.nngp(x, y[:7])))


def test_numbers_beyond_their_type():
    kernel = wl.kernel(beyond_single_precision, SHAPES)
    with pytest.raises(NotGaussianError, match="beyond the range") as caught:
        kernel.nngp(1e5 * jnp.eye(3, dtype=jnp.float32))
    assert caught.value.where.line == line_of(beyond_single_precision)
    assert np.all(np.isfinite(kernel.nngp(1e5 * jnp.eye(3, dtype=jnp.float64))))


def test_large_examples_alone():
    """Beside small ones large inputs overflow with themselves only."""
    kernel = wl.kernel(beyond_single_precision, SHAPES)
    x = jnp.asarray([[1e-5, 0, 0], [1e-5, 1e-5, 0], [1e5, 0, 0]], jnp.float32)
    assert np.all(np.isfinite(kernel.nngp(x[:2])))
    with pytest.raises(NotGaussianError, match="examples 2 and 2 "):
        kernel.nngp(x)


def test_inside_of_a_program_nothing_is_raised():
    kernel = wl.kernel(by_the_norm_of_the_input, SHAPES)
    found = jax.jit(kernel.nngp)(jnp.eye(3).at[1].set(0))
    np.testing.assert_array_equal(
        np.isfinite(found), [[True, False, True], [False, False, False], [True, False, True]]
    )
