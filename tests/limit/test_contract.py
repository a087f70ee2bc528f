"""Every row of the table agrees with sampled networks, in both readings."""

import warnings
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

from . import networks, spatial
from .sampling import assert_agree, flat, sampled

ROWS = (*networks.ROWS, *spatial.ROWS)
SAMPLED = {
    *("conv_depthwise", "post_activation_image", "attention_causal", "graph_edges", "embedding"),
    *(r.name for r in networks.ROWS if r.name not in ("shifted_tokens", "shifted_bias")),
}
"""Rows compared with samples in every run of the tests; the others are slow."""


@pytest.mark.parametrize("row", [
    pytest.param(r, id=r.name, marks=() if r.name in SAMPLED else pytest.mark.slow) for r in ROWS
])
def test_agrees_with_sampled_networks(row, rng):
    x = row.inputs(rng)
    limit = wl.kernel(row.f, row.params).both(x)
    assert_agree(limit, sampled(row.f, row.params, jnp.asarray(x)))


SINGLE = 2e-5
"""What is allowed of single precision, in units of a kernel's largest entry."""
REPEATED = 1e-4
"""The same where one example has equal positions: an angle is the root of what was rounded."""
REPEATING = {"written"}
IN_SINGLE = {"gelu", "padded_reflect", "attention_random_identity", "graph_edges"}
"""Compared with double precision in every run of the tests; the others are slow."""

QUICK = {
    *("gelu", "relu_plus_identity", "raw_input_residual", "concatenate", "bilinear", "where_gate"),
    *("conv_spread_input", "padded_reflect", "attention_random_identity", "embedding"),
    *("layer_norm_scaled", "shared_weights", "rnn_last", "tokens_mixed", "heads", "shifted_gate"),
}
"""One row of every kind for every run of the tests; the others are slow."""


@pytest.mark.parametrize("row", [
    pytest.param(r, id=r.name, marks=() if r.name in QUICK else pytest.mark.slow) for r in ROWS
])
def test_readings_are_consistent(row, rng):
    """Cross and symmetric calls, diagonals and both() give the same numbers; Grams are PSD."""
    x = row.inputs(rng, 4)
    kernel = wl.kernel(row.f, row.params)
    nngp, ntk = kernel.both(x)
    np.testing.assert_allclose(kernel.nngp(x), nngp, rtol=1e-10)
    drawn = kernel.sampling_error(x, repeats=2).ntk.max() > 0 if "random" in row.name else False
    assert drawn or not row.drawn or kernel.sampling_error(x, repeats=2).ntk.max() > 0
    if drawn or row.drawn:
        return  # The same integrals drawn for other pairs differ by their sampling error.
    cross = kernel.both(x[:2], x)
    for whole, part in zip((nngp, ntk), cross):
        scale = float(jnp.abs(whole).max())
        np.testing.assert_allclose(part, whole[:2], atol=2e-7 * scale)
    for whole, diagonal in ((nngp, kernel.nngp_diagonal(x)), (ntk, kernel.ntk_diagonal(x))):
        flat_whole = flat(whole)
        np.testing.assert_allclose(np.diag(flat_whole), np.ravel(diagonal), rtol=1e-9, atol=1e-12)
        assert np.linalg.eigvalsh(flat_whole).min() >= -1e-12 * np.linalg.norm(flat_whole)


@contextmanager
def single_precision():
    jax.config.update("jax_enable_x64", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", True)


@pytest.mark.parametrize("row", [
    pytest.param(r, id=r.name, marks=() if r.name in IN_SINGLE else pytest.mark.slow) for r in ROWS
])
def test_single_precision(row, rng):
    """As near to double precision as its digits allow, which a wrong order of sums would miss."""
    x = row.inputs(rng)
    low = [jax.ShapeDtypeStruct(s.shape, jnp.float32) for s in row.params]
    single = x if row.vocabulary else x.astype(np.float32)
    same = np.asarray(single, x.dtype)  # the same numbers in both
    exactly = [np.asarray(k) for k in wl.kernel(row.f, row.params).both(same)]
    allowed = REPEATED if row.name in REPEATING else SINGLE
    with single_precision():  # constants in a network's code too
        for found, exact in zip(wl.kernel(row.f, low).both(single), exactly):
            assert found.dtype == jnp.float32
            scale = np.abs(exact).max()
            np.testing.assert_allclose(found, exact, atol=allowed * scale, rtol=0)


def test_no_warnings_while_reading(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wl.kernel(ROWS[0].f, ROWS[0].params).both(ROWS[0].inputs(rng))
