"""Sums over the taps of a window, against loops over taps and places."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from widelimit.graph.windows import Window, window_sum

windows = st.builds(
    Window,
    size=st.integers(1, 4),
    stride=st.integers(1, 3),
    low=st.integers(-2, 4),
    high=st.integers(-2, 4),
    spacing=st.integers(1, 3),
    dilation=st.integers(1, 3),
)


def entry(w, length, output, tap):
    """The entry that a tap of an output sees, or None where it sees a zero."""
    place = output * w.stride + tap * w.dilation - w.low
    if place % w.spacing or not 0 <= place // w.spacing < length:
        return None
    return place // w.spacing


def by_loops(array, axes, walks):
    shape = list(array.shape)
    for axis, w in zip(axes, walks):
        shape[axis] = w.outputs(array.shape[axis])
    out = np.zeros(shape)
    for place in itertools.product(*map(range, shape)):
        for tap in range(walks[0].size):
            seen = list(place)
            for axis, w in zip(axes, walks):
                seen[axis] = entry(w, array.shape[axis], place[axis], tap)
            if None not in seen:
                out[place] += array[tuple(seen)]
    return out


@settings(deadline=None, max_examples=60)
@given(w=windows, length=st.integers(1, 6))
def test_one_axis(w, length):
    array = np.random.default_rng(0).normal(size=(2, length))
    found = window_sum(jnp.asarray(array, jnp.float32), (1,), (w,))
    np.testing.assert_allclose(found, by_loops(array, (1,), (w,)), rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(w=windows, v=windows, lengths=st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_two_axes_move_together(w, v, lengths):
    """The windows of two sides differ in padding, not in their taps."""
    v = Window(w.size, w.stride, v.low, v.high, w.spacing, w.dilation)
    array = np.random.default_rng(0).normal(size=(lengths[0], 2, lengths[1]))
    found = window_sum(jnp.asarray(array, jnp.float32), (0, 2), (w, v))
    np.testing.assert_allclose(found, by_loops(array, (0, 2), (w, v)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("w", [Window(3, 1, 1, 1), Window(3, 2, 4, 3, 1, 3), Window(2, 1, -1, 2)])
def test_derivatives(w):
    """The sum is linear: its transpose agrees with the matrix that it is."""
    length = 5
    run = lambda x: window_sum(x, (0,), (w,))
    matrix = by_loops(np.eye(length), (0,), (w,))
    np.testing.assert_allclose(jax.jacrev(run)(jnp.ones(length)), matrix, atol=1e-6)
