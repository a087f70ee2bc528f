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
