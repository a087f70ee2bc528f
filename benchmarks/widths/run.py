"""Sampled finite networks against their limit, for networks the reference library refuses.

    python benchmarks/widths/run.py [NAME]

One row per network: the exponent with which a single network's deviation falls with the width
(-1/2 by the central limit theorem), and the relative deviation of the mean over draws at the widest
networks and extrapolated to infinite width. Writes ``results.md``.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import widelimit as wl

N, OUT = 32, 1
relu, gelu, silu = jax.nn.relu, jax.nn.gelu, jax.nn.silu


def dense(w, h):
    return w @ h / jnp.sqrt(h.size)


def norm(h, scale, offset):
    return (h - h.mean()) / jnp.sqrt(h.var() + 1e-5) * scale + offset


def layer_norm_after_relu(p, x):
    return dense(p[2], gelu(dense(p[1], norm(relu(dense(p[0], x)), p[3], p[4]))))


def swiglu(p, x):
    h = relu(dense(p[0], x))
    return dense(p[2], silu(dense(p[1], h)) * dense(p[3], h))


def identity_plus_relu(p, x):
    h = dense(p[0], x)
    return dense(p[2], relu(h) + h * jnp.tanh(h))


def shared_weights(p, x):
    h = dense(p[0], x)
    for _ in range(3):
        h = dense(p[1], jnp.tanh(h)) + 0.3 * dense(p[0], x)
    return dense(p[2], jnp.sin(h))


def recurrent(p, xs):
    def step(h, x):
        h = jnp.tanh(dense(p[1], h) + dense(p[0], x))
        return h, h

    return dense(p[2], jax.lax.scan(step, jnp.zeros(p[1].shape[0]), xs)[1].mean(0))


def concatenated_with_the_input(p, x):
    h = jnp.concatenate([silu(dense(p[0], x)), x])
    return dense(p[1], h)


DRAWS = {"SwiGLU": 30_000}
"""Where the default number of draws leaves the verdict open."""

SQUARE, WIDE = (N, N), (N,)
NETWORKS = {
    "LayerNorm after ReLU, with scale and offset": (
        layer_norm_after_relu, ((N, 3), SQUARE, (OUT, N), WIDE, WIDE), (3,)),
    "SwiGLU": (swiglu, ((N, 3), SQUARE, (OUT, N), SQUARE), (3,)),
    "relu(h) + h tanh(h)": (identity_plus_relu, ((N, 3), SQUARE, (OUT, N)), (3,)),
    "one matrix in three layers": (shared_weights, ((N, 3), SQUARE, (OUT, N)), (3,)),
    "recurrence, pooled over time": (recurrent, ((N, 3), SQUARE, (OUT, N)), (4, 3)),
    "concatenation with the input": (concatenated_with_the_input, ((N, 3), (OUT, N + 3)), (3,)),
}
MAKE = {"concatenation with the input": lambda n: ((n, 3), (OUT, n + 3))}
"""Where doubling every large size would not fit the code: the shapes at a width."""


def structs(shapes):
    return [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]


def widened(name, f):
    shapes = MAKE.get(name)
    return shapes and (lambda times: (f, structs(shapes(round(times * N)))))


def main(only=""):
    lines = [
        "# Finite networks against the limit", "",
        "Networks that neural-tangents 0.6.5 refuses or has no layer for, sampled",
        f"at widths {N} to {8 * N}. *Slope* is the exponent of one deviation in the width;",
        "*deviation* is that of the mean over draws, relative, with its standard error.", "",
        "| network | kernel | slope | deviation at the widest | extrapolated | verdict |",
        "|---|---|--:|--:|--:|---|",
    ]
    rng = np.random.default_rng(0)
    for name, (f, shapes, shape) in NETWORKS.items():
        if only not in name:
            continue
        x = jnp.asarray(rng.normal(size=(3, *shape)), jnp.float32)
        report = wl.verify(
            f, structs(shapes), x, draws=DRAWS.get(name), make=widened(name, f), progress=False
        )
        for kind in ("nngp", "ntk"):
            conclusion = getattr(report, kind)
            widest = getattr(report.rows[-1], kind)
            lines.append(
                f"| {name} | {kind.upper()} | {conclusion.slope:.2f} | "
                f"{widest.error:.4f} ± {widest.standard_error:.4f} | "
                f"{conclusion.remaining:.4f} ± {conclusion.standard_error:.4f} | "
                f"{conclusion.verdict} |"
            )
            print(lines[-1], flush=True)
    if only:
        return
    Path(__file__).with_name("results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
