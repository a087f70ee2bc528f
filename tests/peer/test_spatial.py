"""Networks over positions against the kernels that neural-tangents 0.6.5 computes for them.

``spatial.npz`` is written by ``benchmarks/peers/reference.py --spatial``: for each network the NNGP
and the NTK, in float64, of k(x1, x1) and k(x1, x2) side by side.
"""

from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

import widelimit as wl
from peers import spatial

REFERENCE = Path(__file__).parent / "spatial.npz"

TOLERANCE = 1e-9
# The reference takes square roots of q q' - k**2, which loses half the digits at each position that
# meets itself; pooling then mixes those into every entry of k(x, x).
SAME_INPUT = 2e-9
"""Errors are relative to the largest entry of the kernel."""

QUICK = {
    *("flatten", "pooled", "strides, pooled", "circular", "average pooling, pooled", "transposed"),
    *("local, pooled", "attention", "attention, identity, 1/sqrt", "graph", "dense prediction"),
}


def cases():
    for name in spatial.NETWORKS:
        yield pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)


@cache
def reference():
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


def ours(network, x1, x2):
    f, shapes = spatial.plain(network)
    kernel = wl.kernel(f, shapes)
    square, cross = kernel.both(x1), kernel.both(x1, x2)
    return np.stack([np.concatenate(pair, axis=1) for pair in zip(square, cross)])


@pytest.mark.filterwarnings("ignore::widelimit.NarrowWidthWarning")
@pytest.mark.parametrize("name", list(cases()))
def test_kernels_agree_with_the_reference(name):
    assert jax.config.read("jax_enable_x64")
    network = spatial.NETWORKS[name]
    rng = np.random.default_rng(20)
    x1, x2 = rng.normal(size=(3, *network.input)), rng.normal(size=(2, *network.input))
    found, theirs = ours(network, x1, x2), reference()[name]
    rank = (theirs.ndim - 3) // 2
    if rank:  # The reference has each position axis beside its partner of the other input.
        order = [3 + 2 * k for k in range(rank)] + [4 + 2 * k for k in range(rank)]
        theirs = np.transpose(theirs, (0, 1, 2, *order))
    assert found.shape == theirs.shape
    for kernel, expected in zip(found, theirs):
        error = np.abs(kernel - expected) / np.max(np.abs(expected))
        assert np.max(error[:, 3:]) < TOLERANCE
        assert np.max(error[:, :3]) < SAME_INPUT
