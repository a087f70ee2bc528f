"""Tangent kernels of random finite networks: every method against all derivatives.

Run as ``python tests/generator/tangents.py --count 100 --seed 0``. The networks are those of the other
generators at a small width, illegal blocks included, behind a readout that is drawn as well: nothing
needs a limit here.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

WIDTH, EXAMPLES = 8, 3
TOLERANCE = 1e-9
"""Of the largest entry; random networks lose digits by themselves."""
WRITERS = ("writer", "spatial_writer")


class Found(NamedTuple):
    """What became of one function."""

    seed: int
    kind: str  # agrees, refused, undefined, disagrees, crash
    readout: str
    detail: str = ""
    error: float = 0.0


def is_shape(s: Any) -> bool:
    """Whether this is the shape of an array."""
    return isinstance(s, tuple) and all(isinstance(k, int) for k in s)


def rows(leaf: Any) -> Any:
    """Positions and channels."""
    return leaf.reshape(-1, leaf.shape[-1]) if leaf.ndim else leaf.reshape(1, 1)


READOUTS: dict[str, Callable[[Any, Any], Any]] = {
    "none": lambda h, w: h,
    "average": lambda h, w: rows(h).mean(0) @ w,
    "curved average": lambda h, w: jax.nn.gelu(rows(h)).mean(0) @ w,
    "average of roots": lambda h, w: jnp.sqrt(jax.nn.relu(rows(h))).sum(0) @ w,
    "chosen": lambda h, w: jnp.where(rows(h) > 0, jnp.tanh(rows(h)), 0.0).mean(0) @ w,
    "product": lambda h, w: (rows(h) * jnp.cos(rows(h))).sum(0) @ w,
    "maximum": lambda h, w: rows(h).max(0) @ w,
    "softmax": lambda h, w: jax.nn.softmax(rows(h).mean(0) @ w),
    "curved": lambda h, w: jnp.tanh(rows(h)[0] @ w),
    "compiled": jax.jit(lambda h, w: jax.nn.silu(rows(h)).mean(0) @ w),
    "twice": lambda h, w: jnp.sin(rows(h).mean(0) @ w) * (rows(h)[-1] @ w),
    "in a loop": lambda h, w: jax.lax.scan(
        lambda c, row: (c + jnp.tanh(row), None), jnp.zeros(h.shape[-1:], h.dtype), rows(h)
    )[0] @ w,
}


def function(seed: int) -> tuple[Callable[[Any, Any], Any], Any, Any, str]:
    """A network with a readout, its parameters, its inputs, and the readout's name."""
    r, rng = random.Random(seed), np.random.default_rng(seed)
    program = importlib.import_module(r.choice(WRITERS)).generate(seed, 0.12)
    network, shapes = program.at(WIDTH)
    name = r.choice(list(READOUTS))
    outputs = r.choice((1, 2, 5, 2 * WIDTH + 3))
    draw = lambda s: jnp.asarray(rng.normal(size=s))
    x = jax.tree.map(lambda s: draw((EXAMPLES, *s)), program.input_shapes, is_leaf=is_shape)
    params = {key: draw(s) for key, s in shapes.items()}

    def of_leaf(p: Any, h: Any) -> Any:
        channels = h.shape[-1] if h.ndim else 1
        w = jnp.resize(p["readout"], (channels, outputs)) if name != "none" else None
        return READOUTS[name](h, w)

    params["readout"] = draw((3 * WIDTH, outputs))
    whole = lambda p, x: [of_leaf(p, h) for h in jax.tree.leaves(network(p, x))]
    return (jax.jit(whole) if r.random() < 0.3 else whole), params, x, name


def judged(seed: int) -> Found:
    """Compare the methods on one function."""
    import widelimit as wl
    from tangent.brute import kernel

    name = ""
    try:
        f, params, x, name = function(seed)
        expected = [np.asarray(k) for k in jax.tree.leaves(kernel(f, params, x))]
    except Exception as error:
        return Found(seed, "not written", name, repr(error)[:200])
    if not all(np.all(np.isfinite(k)) for k in expected):
        return Found(seed, "undefined", name)
    worst = 0.0
    for method in ("structured", "vector_products"):
        try:
            found = jax.tree.leaves(wl.empirical_ntk(f, params, x, method=method))
        except (wl.WideLimitError, ValueError) as error:
            return Found(seed, "refused", name, f"{method}: {error}"[:200])
        except Exception as error:
            return Found(seed, "crash", name, f"{method}: {error!r}"[:400])
        if method == "vector_products" and not all(np.all(np.isfinite(a)) for a in found):
            # Forwards an infinite slope times nothing is not a number, backwards it is nothing.
            return Found(seed, "undefined", name, "forwards")
        for a, b in zip(found, expected, strict=True):
            scale = max(float(np.abs(b).max(initial=0)), 1e-30)
            error = float(np.abs(np.asarray(a) - b).max(initial=0)) / scale
            if not error <= TOLERANCE:
                return Found(seed, "disagrees", name, f"{method}: {error:.3g}", error)
            worst = max(worst, error)
    return Found(seed, "agrees", name, error=worst)


def run(seeds: Iterable[int], *, verbose: bool = False) -> list[Found]:
    """What became of the functions of these seeds."""
    out = []
    for i, seed in enumerate(seeds):
        out.append(judged(seed))
        if verbose or out[-1].kind in ("disagrees", "crash"):
            print(*out[-1], flush=True)
        if i % 20 == 19:
            jax.clear_caches()
    return out


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    start = time.perf_counter()
    seeds = range(options.seed, options.seed + options.count)
    found = run(seeds, verbose=options.verbose)
    print(dict(Counter(f.kind for f in found)))
    print("worst error of those that agree", max((f.error for f in found), default=0.0))
    for f in found:
        if f.kind in ("refused", "not written"):
            print(f.seed, f.kind, f.detail.splitlines()[0])
    print(f"{time.perf_counter() - start:.0f} s")
    return int(any(f.kind in ("disagrees", "crash") for f in found))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    raise SystemExit(main())
