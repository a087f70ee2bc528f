"""Operation counts of the three methods on dense networks, as exponents in N, O and width.

    python benchmarks/finite/slopes.py

Nothing is run: operations are counted in the traced program, with loops multiplied out. Each
exponent is the slope of log(count) between the two largest of a row of doublings, the other sizes
being fixed. The theory is Novak et al. 2022, table 1, for L hidden layers of width W.
"""

import math
import sys
from pathlib import Path

import jax

import widelimit as wl
from widelimit.tangent._problem import problem

sys.path.insert(0, str(Path(__file__).parent))
from workloads import dense

THEORY = {
    "jacobian": "N² L O² W²",
    "vector_products": "N² L O W²",
    "structured": "N² L O² W + N L O W²",
}
ROWS = {
    "N": [(n, 8, 64) for n in (64, 128, 256, 512)],
    "O": [(64, o, 1024) for o in (16, 32, 64, 128)],
    "W": [(8, 8, w) for w in (512, 1024, 2048, 4096)],
}


def count(method, n, o, w):
    """Floating-point operations of one kernel."""
    workload = dense(w, o, n=n)
    shapes = [jax.ShapeDtypeStruct(s, "float32") for s in workload.shapes]
    x = jax.ShapeDtypeStruct((n, *workload.example), "float32")
    p = jax.tree.map(lambda s: jax.numpy.zeros(s.shape, s.dtype), shapes)
    read = problem(workload.f, p, jax.ShapeDtypeStruct(workload.example, "float32"))
    axes = wl.tangent._ntk.output_axes(read, (), ())[0]
    program = wl.tangent._ntk.Program(read, 0, axes, method, 1 << 40, apart=False)
    return program.estimate(read.arrays, x, x).flops


def main():
    print("| method | theory | N | O | W | operations at N=8, O=8, W=4096 |")
    print("|---|---|--:|--:|--:|--:|")
    for method, theory in THEORY.items():
        slopes = []
        for sizes in ROWS.values():
            counts = [count(method, *s) for s in sizes[-2:]]
            slopes.append(math.log2(counts[1] / counts[0]))
        total = count(method, 8, 8, 4096)
        print(f"| {method} | {theory} | " + " | ".join(f"{s:.2f}" for s in slopes)
              + f" | {total:.2g} |", flush=True)


if __name__ == "__main__":
    main()
