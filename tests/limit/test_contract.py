"""Every row of the table agrees with sampled networks, in both readings."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from oracle.numeric import run

from .networks import ROWS, Row

DRAWS = 48


def sampled(row: Row, x, draws=DRAWS):
    """Means over draws and channels of the finite kernels, with standard errors."""
    rng = np.random.default_rng(7)

    def one(p):
        y, pull = jax.vjp(lambda q: jax.vmap(lambda t: row.f(q, t))(x), p)
        flat = y.reshape(-1, y.shape[-1])
        nngp = flat @ flat.T / y.shape[-1]
        # The tangent kernel of two output channels: rows of the Jacobian, one per channel.
        total = 0.0
        for channel in range(2):
            seeds = jnp.zeros((flat.shape[0], *flat.shape)).at[
                jnp.arange(flat.shape[0]), jnp.arange(flat.shape[0]), channel
            ].set(1.0)
            rows = jax.vmap(lambda s: pull(s.reshape(y.shape))[0])(seeds)
            total += sum(
                jnp.einsum("ap,bp->ab", r.reshape(len(r), -1), r.reshape(len(r), -1))
                for r in rows
            )
        return nngp, total / 2

    program = jax.make_jaxpr(one)(row.params)
    samples = [run(program, *(rng.normal(size=s.shape) for s in row.params)) for _ in range(draws)]
    stats = lambda k: (np.mean(k, 0), np.std(k, 0, ddof=1) / np.sqrt(draws))
    return tuple(stats(np.stack(k)) for k in zip(*samples))


def flat(kernel_matrix):
    k = np.asarray(kernel_matrix)
    half = (k.ndim - 2) // 2
    order = (0, *range(2, 2 + half), 1, *range(2 + half, 2 + 2 * half))
    size = int(np.prod([k.shape[i] for i in (0, *range(2, 2 + half))]))
    return k.transpose(order).reshape(size, size)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_agrees_with_sampled_networks(row, rng):
    x = row.inputs(rng)
    kernel = wl.kernel(row.f, row.params)
    limit = kernel.both(x)
    for name, ours, (mean, error) in zip(("nngp", "ntk"), limit, sampled(row, jnp.asarray(x))):
        ours = flat(ours)
        scale = np.abs(ours).max()
        # 4.5 standard errors for sampling, 6 % of the largest entry for the O(1/width) bias.
        excess = np.abs(ours - mean) - 4.5 * error - 0.06 * scale
        assert excess.max() <= 0, (name, row.name, np.abs(ours - mean).max() / scale)
        assert np.median(np.abs(ours - mean) / (error + 0.02 * scale)) < 2.5, (name, row.name)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_readings_are_consistent(row, rng):
    """Cross and symmetric calls, diagonals and both() give the same numbers; Grams are PSD."""
    x = row.inputs(rng, 4)
    kernel = wl.kernel(row.f, row.params)
    nngp, ntk = kernel.both(x)
    np.testing.assert_allclose(kernel.nngp(x), nngp, rtol=1e-10)
    cross = kernel.both(x[:2], x)
    for whole, part in zip((nngp, ntk), cross):
        scale = float(jnp.abs(whole).max())
        np.testing.assert_allclose(part, whole[:2], atol=2e-7 * scale)
    for whole, diagonal in ((nngp, kernel.nngp_diagonal(x)), (ntk, kernel.ntk_diagonal(x))):
        flat_whole = flat(whole)
        np.testing.assert_allclose(np.diag(flat_whole), np.ravel(diagonal), rtol=1e-9, atol=1e-12)
        assert np.linalg.eigvalsh(flat_whole).min() >= -1e-12 * np.linalg.norm(flat_whole)


def test_no_warnings_while_reading(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wl.kernel(ROWS[0].f, ROWS[0].params).both(ROWS[0].inputs(rng))
