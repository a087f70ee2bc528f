"""The compiled programs do no more work than a recorded table says.

Operations and bytes are counted by the compiler, so that a slower machine changes nothing. Versions
of JAX count differently. With a new one, and after a change that is meant to cost more, or less::

    python tests/limit/test_operations.py
"""

import json
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

TABLE = Path(__file__).with_name("operations.json")
MORE = 1.05
"""How much more is let pass."""

relu = jax.nn.relu
N = 64


def dense(w, h):
    return h @ w.T / math.sqrt(w.shape[1])


def conv(w, x):
    return jax.lax.conv_general_dilated(
        x[None], w / math.sqrt(math.prod(w.shape[:3])), (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]


def pool(x):
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, (2, 2, 1), (2, 2, 1), "VALID") / 4


def deep(p, x):
    for w in p[:-1]:
        x = relu(dense(w, x))
    return dense(p[-1], x)


def flattened(p, x):
    for w in p[:-1]:
        x = relu(conv(w, x))
    return dense(p[-1], x.reshape(-1))


def myrtle(p, x):
    h = pool(relu(conv(p[1], relu(conv(p[0], x)))))
    return dense(p[3], pool(relu(conv(p[2], h))).mean((0, 1)))


def residual(p, x):
    h = conv(p[0], x)
    for w in p[1:-1]:
        h = h + conv(w, relu(h))
    return dense(p[-1], relu(h).mean((0, 1)))


def attention(p, x):
    h = relu(dense(p[0], x))
    weights = jax.nn.softmax(dense(p[1], h) @ dense(p[2], h).T / N)
    return dense(p[4], relu(weights @ dense(p[3], h)).mean(0))


FILTERS, WIDE = [(3, 3, 3, N), (3, 3, N, N), (3, 3, N, N)], (N, N)
NETWORKS = {
    "dense": (deep, [(N, 16), WIDE, WIDE, (1, N)], (16,), 128),
    "convolutional, flattened": (flattened, [*FILTERS, (1, 144 * N)], (12, 12, 3), 8),
    "convolutional, pooled": (myrtle, [*FILTERS, (1, N)], (12, 12, 3), 1),
    "residual, pooled": (residual, [*FILTERS, (1, N)], (8, 8, 3), 2),
    "attention, pooled": (attention, [(N, 5), WIDE, WIDE, WIDE, (1, N)], (16, 5), 4),
}


def counted(name):
    f, shapes, shape, count = NETWORKS[name]
    kernel = wl.kernel(f, [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(count, *shape)), jnp.float32)
    program = kernel._program(jax.ShapeDtypeStruct(shape, jnp.float32))
    return program.operations(kernel.stds, [x], [x], ("nngp", "ntk"))


@pytest.mark.parametrize("name", NETWORKS)
def test_no_more_operations_than_recorded(name):
    table = json.loads(TABLE.read_text())
    if jax.__version__ not in table:
        pytest.skip(f"not recorded for JAX {jax.__version__}: run {Path(__file__).name}")
    for key, now in counted(name).items():
        before = table[jax.__version__][name][key]
        assert now <= MORE * before, f"{key}: {now:.3g}, and {before:.3g} in {TABLE.name}"


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)  # as in the tests
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    table[jax.__version__] = {name: counted(name) for name in NETWORKS}
    TABLE.write_text(json.dumps(table, indent=1) + "\n")
    sys.stdout.write(TABLE.read_text())
