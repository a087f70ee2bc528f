"""Generate random networks and compare what the library says of each with Monte Carlo.

Run as ``python tests/generator/run.py --kind spatial --count 300 --seed 0``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
CHEAP = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""Compilation takes most of the time, and every network is compiled anew."""


def run(seeds: range, *, kind: str = "dense", illegal: float = 0.12, verbose: bool = False) -> list:
    """The verdicts on the networks of these seeds."""
    import jax
    from judge import judge

    generate = importlib.import_module({"dense": "writer", "spatial": "spatial_writer"}[kind]).generate

    verdicts = []
    for i, seed in enumerate(seeds):
        program = generate(seed, illegal)
        start = time.perf_counter()
        v = judge(program)
        verdicts.append(v)
        if verbose:
            took = time.perf_counter() - start
            print(f"{seed} {v.kind} {v.error} z={v.z:.2f} {took:.1f}s", flush=True)
        if v.kind in ("silent", "crash"):
            print(f"---- {v.kind} {v.error} (seed {seed})\n{program.source}{program.shapes}\n"
                  f"input {program.input_shapes}\n{v.detail}\n", flush=True)
        if i % 40 == 39:
            jax.clear_caches()
    return verdicts


def summary(verdicts: list) -> str:
    """A table of what became of the networks."""
    kinds = Counter(v.kind for v in verdicts)
    errors = Counter(v.error for v in verdicts if v.kind == "refused")
    read = [v for v in verdicts if v.kind == "read"]
    drawn = Counter(name for v in verdicts for name in set(v.features))
    done = Counter(name for v in read for name in set(v.features))
    primitives = sorted(set().union(*(v.primitives for v in verdicts)))
    in_read = set().union(*(v.primitives for v in read)) if read else set()
    lines = [
        f"networks            {len(verdicts)}",
        f"read and confirmed  {kinds['read']} ({kinds['read'] / len(verdicts):.0%})",
        f"refused             {kinds['refused']}",
        *(f"    {name:28s}{count}" for name, count in errors.most_common()),
        f"not compared        {kinds['not compared']}",
        f"crashes             {kinds['crash']}",
        f"silent wrong        {kinds['silent']}",
        f"worst z (read)      {max((v.z for v in read), default=0):.2f}",
        f"escalated           {sum(v.stage > 0 for v in read)}",
        "read by feature     " + ", ".join(
            f"{name} {done[name]}/{drawn[name]}" for name in sorted(drawn)),
        f"primitives          {len(primitives)} generated, {len(in_read)} in networks read",
        "    " + " ".join(primitives),
    ]
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("dense", "spatial"), default="dense")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--illegal", type=float, default=0.12, help="share of illegal blocks")
    parser.add_argument("--refused", action="store_true", help="show why networks were refused")
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", CHEAP)
    import jax

    jax.config.update("jax_enable_x64", True)
    start = time.perf_counter()
    seeds = range(options.seed, options.seed + options.count)
    verdicts = run(seeds, kind=options.kind, illegal=options.illegal, verbose=options.verbose)
    if options.refused:
        for v in verdicts:
            if v.kind == "refused":
                print(v.seed, v.error, v.detail.splitlines()[0], v.detail.splitlines()[1])
    print(summary(verdicts))
    print(f"time                {time.perf_counter() - start:.0f} s")
    return int(any(v.kind in ("silent", "crash") for v in verdicts))


if __name__ == "__main__":
    raise SystemExit(main())
