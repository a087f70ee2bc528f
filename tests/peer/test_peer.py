"""Every network against the kernels that neural-tangents 0.6.5 computes for it.

``reference.npz`` is written by ``benchmarks/peers/reference.py``: for each network the NNGP and
the NTK, in float64, of k(x1, x1) and k(x1, x2) side by side.
"""

from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

import widelimit as wl
from peers.networks import NETWORKS, plain
from widelimit.priors import Prior

REFERENCE = Path(__file__).parent / "reference.npz"
KERNELS = ("nngp", "ntk")

TOLERANCE = {"float64": 1e-10, "float32": 2e-5}
# Errors are relative to the entry, plus this fraction of the largest. In float32 an entry far below
# the largest cannot be better than the product of inputs it came from.
FLOOR = {"float64": 1e-3, "float32": 1e-1}

# The reference takes square roots of q q' - k**2, which loses half the digits where k(x, x) meets
# its own variance, layer by layer: it is not a reference for more than eight digits there.
DIAGONAL_TOLERANCE = 1e-7


# One or two of every family for every run of the tests; the rest, and float32, are slow.
QUICK = {
    *("relu-depth-1", "relu-depth-3", "erf-depth-2", "relu-bias-depth-1", "linear-depth-3"),
    *("leaky-relu", "abs", "sigmoid-like", "sin-affine", "cos", "rbf", "gelu", "exp", "gaussian"),
    *("sign", "exp-normalized", "hermite-2", "monomial-3", "rectified-monomial-2"),
    *("polynomial-cubic", "tanh", "relu-graded-scales", "residual", "residual-projected"),
    *("glu", "bilinear", "product-of-activations", "concat-unequal-widths", "concat-input"),
    *("layernorm-relu", "layernorm-gated", "standard-relu", "standard-erf-bias"),
}


def cases():
    for name in NETWORKS:
        for dtype in TOLERANCE:
            quick = name in QUICK and dtype == "float64"
            yield pytest.param(name, dtype, marks=() if quick else pytest.mark.slow)


@cache
def reference():
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


@pytest.fixture
def precision(dtype):
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", dtype == "float64")
    yield
    jax.config.update("jax_enable_x64", before)


def build(network):
    f, shapes, stds = plain(network)
    if all(std == 1.0 for std in jax.tree.leaves(stds)):
        return wl.kernel(f, shapes)
    return wl.kernel(f, shapes, prior=jax.tree.map(lambda std: Prior(0.0, std), stds))


def relative_error(ours, theirs):
    scale = np.abs(theirs) + FLOOR[str(ours.dtype)] * np.nanmax(np.abs(theirs))
    return np.abs(ours.astype(np.float64) - theirs) / scale


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize(("name", "dtype"), list(cases()))
def test_kernels_agree_with_the_reference(name, dtype):
    network = NETWORKS[name]
    x1, x2 = (reference()[x].astype(dtype) for x in ("x1", "x2"))
    n = len(x1)
    kernel = build(network)

    square = kernel.both(x1)
    cross = kernel.both(x1, x2)

    tolerance = TOLERANCE[dtype]
    for which, theirs, *ours in zip(KERNELS, reference()[name], square, cross):
        ours = np.concatenate([np.reshape(k, (n, -1)) for k in ours], axis=1)
        assert ours.dtype == dtype
        assert np.isfinite(ours).all()
        error = relative_error(ours, theirs)
        diagonal = error[range(n), range(n)]
        error[range(n), range(n)] = 0.0
        assert error.max() <= tolerance, f"{which}: worst entry {worst(error, ours, theirs)}"
        if network.diagonal:
            assert diagonal.max() <= max(tolerance, DIAGONAL_TOLERANCE), f"{which}, diagonal"


def worst(error, ours, theirs):
    i, j = np.unravel_index(error.argmax(), error.shape)
    return f"({i}, {j}): {ours[i, j]!r} against {theirs[i, j]!r}, relative error {error[i, j]:.1e}"


def test_every_reference_kernel_has_its_network():
    assert set(reference()) == {*NETWORKS, "x1", "x2"}
