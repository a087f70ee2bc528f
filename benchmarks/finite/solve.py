"""Solve (T + λ) v = g by conjugate gradients without T, and with the dense matrix.

    python benchmarks/finite/solve.py

The shape of a step of natural gradient in variational Monte Carlo: 20 thousand parameters, 2,000
samples, one output. Prints residuals, the difference of the solutions, times and memory.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np

import widelimit as wl


def amplitude(p, spins):
    """A logarithmic amplitude: a network of the spins of a chain."""
    h = jnp.tanh(p["w1"] @ spins + p["b1"])
    h = h + jnp.tanh(p["w2"] @ h)
    return p["v"] @ jnp.log(jnp.cosh(p["w3"] @ h))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--damping", type=float, default=1e-3, help="over the mean eigenvalue")
    a = parser.parse_args()
    jax.config.update("jax_enable_x64", a.dtype == "float64")
    rng = np.random.default_rng(0)
    width, spins = 80, 64
    shapes = {"w1": (width, spins), "b1": (width,), "w2": (width, width), "w3": (100, width),
              "v": (100,)}
    p = {k: jnp.asarray(rng.normal(size=s) / np.sqrt(s[-1]), a.dtype) for k, s in shapes.items()}
    x = jnp.asarray(rng.choice([-1.0, 1.0], size=(a.samples, spins)), a.dtype)
    g = jnp.asarray(rng.normal(size=a.samples), a.dtype)
    print(f"{sum(v.size for v in p.values()):,} parameters, {a.samples} samples, {a.dtype}")

    begun = time.perf_counter()
    k = np.asarray(wl.empirical_ntk(amplitude, p, x))
    damping = a.damping * float(np.trace(k)) / a.samples
    dense = np.linalg.solve(k + damping * np.eye(a.samples), np.asarray(g, np.float64))
    seconds = time.perf_counter() - begun
    print(f"dense: {seconds:.2f} s with compiling, matrix {k.nbytes / 1e6:.0f} MB")

    system = wl.ntk_operator(amplitude, p, x, damping=damping, batch_size=500)
    rtol = 1e-10 if a.dtype == "float64" else 1e-4

    @jax.jit
    def solve(g):
        found = lx.linear_solve(system, g, lx.CG(rtol, rtol, max_steps=5000))
        return found.value, found.stats["num_steps"]

    compiled = solve.lower(g).compile()
    begun = time.perf_counter()
    v, steps = jax.block_until_ready(compiled(g))
    seconds = time.perf_counter() - begun
    residual = np.linalg.norm(k @ np.asarray(v) + damping * np.asarray(v) - g) / np.linalg.norm(g)
    difference = np.linalg.norm(v - dense) / np.linalg.norm(dense)
    print(f"conjugate gradients: {int(steps)} steps, {seconds:.2f} s, residual {residual:.1e}, "
          f"difference from the dense solution {difference:.1e}, temporary memory "
          f"{compiled.memory_analysis().temp_size_in_bytes / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
