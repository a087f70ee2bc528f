"""Which moments are computed: of all pairs of positions only where something asks for them."""

import re

import jax
import numpy as np
import pytest

import widelimit as wl

from .networks import OUT, N, dense, relu, struct
from .spatial import BODY, conv, top


def layouts(f, shapes, shape):
    """The layout of each source, from the bottom up, and what a pair takes."""
    kernel = wl.kernel(f, [struct(*s) for s in shapes])
    text = kernel.describe(np.zeros((2, *shape)))
    head, *lines = text.split("\n\n")[0].splitlines()
    start, end = head.index("layout"), head.index("bytes/pair")
    found = [line[start:end].strip() for line in lines if " source " in line]
    (amount, unit), = re.findall(r"takes at most ([\d.e+]+) (\w+);", text)
    pair = float(amount) * {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    return found, pair


def pooled(h):
    return jax.lax.reduce_window(h, 0.0, jax.lax.add, (2, 2, 1), (2, 2, 1), "VALID") / 4


def flat(p, x):
    return dense(p[2], relu(conv(p[1], relu(conv(p[0], x)))).reshape(-1))


def early(p, x):
    return dense(p[2], relu(conv(p[1], pooled(relu(conv(p[0], x))))).reshape(-1))


@pytest.mark.parametrize(("f", "readout", "found"), [
    (lambda p, x: top(p[2], relu(conv(p[1], relu(conv(p[0], x))))), (OUT, N), ["full", "full"]),
    (flat, (OUT, 64 * N), ["tied", "tied"]),
    (early, (OUT, 16 * N), ["full", "tied"]),
], ids=["pooled", "flat", "pooled early"])
def test_full_blocks_only_below_a_pooling(f, readout, found):
    kinds, _ = layouts(f, (*BODY[:2], readout), (8, 8, 3))
    assert kinds[:2] == found


@pytest.mark.parametrize(("f", "size", "power"), [
    (flat, lambda side: side**2, 2), (lambda p, x: top(p[2], relu(conv(p[0], x))), lambda _: 1, 4),
], ids=["flat", "pooled"])
def test_memory_of_a_pair_grows_with_the_positions_asked_for(f, size, power):
    need = [
        layouts(f, (*BODY[:2], (OUT, size(side) * N)), (side, side, 3))[1] for side in (8, 16)
    ]
    assert need[1] / need[0] == pytest.approx(2**power, rel=0.05)


def test_a_graph_prints_as_a_table():
    kernel = wl.kernel(flat, [struct(*s) for s in (*BODY[:2], (OUT, 16 * N))])
    graph = kernel.graph(np.zeros((1, 4, 4, 3)))
    assert "source" in str(graph) and "spatial.py:" in str(graph)
    assert len(repr(graph)) < 80


@pytest.mark.parametrize("mask", [
    lambda there, h: jax.numpy.where(there[:, None], h, 0.0),
    lambda there, h: jax.lax.select(jax.numpy.broadcast_to(there[:, None], h.shape), h,
                                      jax.numpy.zeros_like(h)),
    lambda there, h: jax.numpy.where(there[:, None] & (jax.numpy.arange(N) >= 0), h, 0.0),
    lambda there, h: h * jax.numpy.broadcast_to(there[:, None], h.shape).astype(h.dtype),
], ids=["where", "select", "and", "times"])
def test_a_mask_is_held_once_for_all_channels(mask, rng):
    def masked(keep):
        def f(p, x):
            there = jax.numpy.arange(5) < x["length"]
            h = keep(there, x["tokens"] @ p[0] / np.sqrt(3) + p[3])
            h = keep(there, relu(h) @ p[1] / np.sqrt(N))
            return relu(h).sum(0) @ p[2] / np.sqrt(N)

        return wl.kernel(f, [struct(3, N), struct(N, N), struct(N, OUT), struct(N)])

    x = {"tokens": rng.normal(size=(3, 5, 3)), "length": np.array([5, 2, 0])}
    plain = masked(lambda there, h: there[:, None] * h)
    ours, expected = masked(mask).both(x), plain.both(x)
    for one, other in zip(ours, expected):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    describe = lambda kernel: re.findall(r"takes at most [\d.]+ \w+", kernel.describe(x))
    assert describe(masked(mask)) == describe(plain)


def masked_mean(p, x):
    h = relu(x["tokens"] @ p[0] / np.sqrt(3) + p[3])
    h = jax.numpy.where(x["length"] > 0, h / x["length"], 0.0)
    return relu(h @ p[1] / np.sqrt(N)).sum(0) @ p[2] / np.sqrt(N)


def safe_mean(p, x):
    h = relu(x["tokens"] @ p[0] / np.sqrt(3) + p[3])
    h = h * (x["length"] > 0) / jax.numpy.maximum(x["length"], 1)
    return relu(h @ p[1] / np.sqrt(N)).sum(0) @ p[2] / np.sqrt(N)


def test_a_mask_leaves_nothing_of_what_is_not_finite(rng):
    shapes = [struct(3, N), struct(N, N), struct(N, OUT), struct(N)]
    x = {"tokens": rng.normal(size=(3, 5, 3)), "length": np.array([5, 2, 0])}
    ours, expected = (wl.kernel(f, shapes).both(x) for f in (masked_mean, safe_mean))
    for one, other in zip(ours, expected):
        assert np.all(np.isfinite(other)) and np.max(other) > 0.01
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_both_kernels_of_an_input_with_itself_belong_together(rng):
    """A height and an angle from two roundings of the same small gap are off by its square root."""
    def f(p, x):
        h = relu(x @ p[0] / np.sqrt(3) + p[3])
        return relu(h @ p[1] / np.sqrt(N)) @ p[2] / np.sqrt(N)

    kernel = wl.kernel(f, [struct(3, N), struct(N, N), struct(N, OUT), struct(N)])
    x = rng.normal(size=(6, 5, 3))
    both, nngp, ntk = kernel.both(x), kernel.nngp_diagonal(x), kernel.ntk_diagonal(x)
    np.testing.assert_allclose(np.einsum("aaii->ai", both.nngp), nngp, rtol=1e-13)
    np.testing.assert_allclose(np.einsum("aaii->ai", both.ntk), ntk, rtol=1e-12)
