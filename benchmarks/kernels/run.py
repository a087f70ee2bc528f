"""Time NNGP and NTK together against the reference library, on the same inputs, alternating.

    python benchmarks/kernels/run.py --peer PEER/bin/python

Each library works in a fresh process per row, so that peak memory is its own. The rows say what a
first call costs (reading the network and compiling included), the median of the calls after it,
and the largest relative error of each library against the reference library in float64. Writes
``results.md`` and ``results.json``; exits with 1 if our kernels disagree with the reference.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from workloads import SPATIAL, WORKLOADS  # noqa: E402

TOLERANCE = {"float64": 1e-10, "float32": 2e-5}
# An entry far below the largest cannot be better than the product of inputs it came from.
FLOOR = {"float64": 1e-3, "float32": 1e-1}
DIAGONAL_TOLERANCE = 1e-7  # the reference loses half its digits on the diagonal of k(x, x)


class Worker:
    """A library at work in a process of its own."""

    def __init__(self, python, **spec):
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()

    def ask(self, do, **arguments):
        with suppress(BrokenPipeError):
            print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the worker ended with {self.process.wait()}")
        return json.loads(answer)


def measure(peer, spec, repeats, folder):
    """Time one row; returns its numbers. The kernels stay behind in ``folder``."""
    pythons = {"ours": sys.executable, "peer": peer}
    row = dict(spec)
    with ExitStack() as stack:
        workers = {
            library: stack.enter_context(Worker(python, library=library, **spec))
            for library, python in pythons.items()
        }
        times = {library: [] for library in workers}
        for library, worker in workers.items():
            row[f"{library}_start"] = worker.ask("memory")
            row[f"{library}_first"] = worker.ask("call")
            worker.ask("call")
        for _ in range(repeats):
            for library, worker in workers.items():
                times[library].append(worker.ask("call"))
        for library, worker in workers.items():
            row[library] = statistics.median(times[library])
            row[f"{library}_times"] = times[library]
            row[f"{library}_memory"] = worker.ask("memory")
            worker.ask("save", to=str(folder / f"{library}-{spec['dtype']}.npy"))
    for limit in ("gemm", "copy"):
        with Worker(sys.executable, library=limit, **spec) as worker:
            row[limit] = statistics.median([worker.ask("call") for _ in range(repeats + 1)][1:])
    row["ratio"] = row["peer"] / row["ours"]
    return row


def errors(ours, theirs, square):
    """Largest relative error off the diagonal of k(x, x) and on it, over both kernels."""
    off = on = 0.0
    for a, b in zip(ours, theirs):
        error = np.abs(a - b) / (np.abs(b) + FLOOR[str(a.dtype)] * np.abs(b).max())
        if square:
            on = max(on, np.diagonal(error).max())
            np.fill_diagonal(error, 0)
        off = max(off, error.max())
    return float(off), float(on)


def compare(row, folder):
    """Add the errors against the reference in float64, and say which of ours are too large."""
    truth = next(p for p in (folder / "peer-float64.npy", folder / "own-float64.npy") if p.exists())
    for library in ("ours", "peer"):
        kernels = [
            np.load(path, mmap_mode="r")
            for path in (folder / f"{library}-{row['dtype']}.npy", truth)
        ]
        row[f"{library}_error"], row[f"{library}_diagonal"] = errors(*kernels, row["square"])
    tolerance = TOLERANCE[row["dtype"]]
    row["agrees"] = row["ours_error"] <= tolerance and row["ours_diagonal"] <= max(
        tolerance, DIAGONAL_TOLERANCE
    )


def save_own(spec, folder):
    """Our own float64 kernels: the truth where the reference integrates numerically."""
    with Worker(sys.executable, library="ours", **spec | {"dtype": "float64"}) as worker:
        worker.ask("call")
        worker.ask("save", to=str(folder / "own-float64.npy"))


def rows(workloads, peer, repeats, quick, only, skip):
    for name, workload in workloads.items():
        if only not in name or (skip and skip in name):
            continue
        for n in (min(workload.sizes[0], 200),) if quick else workload.sizes:
            for square in (False, True) if workload.square else (False,):
                with tempfile.TemporaryDirectory() as folder:
                    for dtype in workload.dtypes:  # float64 first: it is the reference
                        spec = {"workload": name, "n": n}
                        spec |= {"dtype": dtype, "square": square}
                        print(name, n, dtype, "k(x, x)" if square else "k(x1, x2)", flush=True)
                        try:
                            if "float64" not in workload.dtypes:
                                save_own(spec, Path(folder))
                            row = measure(peer, spec, repeats, Path(folder))
                            compare(row, Path(folder))
                        except RuntimeError as error:
                            row = {**spec, "failed": str(error), "agrees": False}
                        yield row


HEADER = """# Kernels against neural-tangents 0.6.5

NNGP and NTK together, on {machine} with {cores} cores: medians of {repeats} alternating calls, on
inputs of width 784 where the network is dense. *Ratio* is the reference's time divided by ours.
*First call* includes reading the network and compiling. *Error* is the largest elementwise error
against the reference in float64, off the diagonal of k(x, x) and on it, relative to the entry plus
a floor of 1e-3 (float64) or 1e-1 (float32) of the largest; on the diagonal even the float64
reference has only half its digits. For tanh, which the reference integrates numerically, the
float32 row is compared with our float64 kernels instead, and those with the reference in the row
below. *Peak memory* is that of the whole process, and in brackets what is above JAX with the
inputs. *Limit* is the matrix product of the inputs alone, and reading one kernel and writing two.

| network | n | kernel | dtype | ours, ms | reference, ms | ratio \
| first call, s (ours / reference) | peak memory, MB (ours / reference) \
| error (ours / reference) | limit, ms (product + copy) |
|---|--:|---|---|--:|--:|--:|--:|--:|--:|--:|
"""


def accuracy(row, library):
    off, on = row[f"{library}_error"], row[f"{library}_diagonal"]
    return f"{off:.0e}, {on:.0e}" if row["square"] else f"{off:.0e}"


def memory(row, library):
    peak = row[f"{library}_memory"]
    return f"{peak:.0f} ({peak - row[f'{library}_start']:.0f})"


def table(results, repeats):
    lines = []
    for r in results:
        which = "k(x, x)" if r["square"] else "k(x1, x2)"
        start = f"| {r['workload']} | {r['n']} | {which} | {r['dtype']} |"
        if "failed" in r:
            lines.append(f"{start} failed: {r['failed']} | | | | | | |\n")
            continue
        lines.append(
            f"{start} {1e3 * r['ours']:.1f} | {1e3 * r['peer']:.1f} | {r['ratio']:.2f} "
            f"| {r['ours_first']:.1f} / {r['peer_first']:.1f} "
            f"| {memory(r, 'ours')} / {memory(r, 'peer')} "
            f"| {accuracy(r, 'ours')} / {accuracy(r, 'peer')}{'' if r['agrees'] else ' **!**'} "
            f"| {1e3 * r['gemm']:.1f} + {1e3 * r['copy']:.1f} |\n"
        )
    machine = platform.machine()
    return HEADER.format(machine=machine, cores=os.cpu_count(), repeats=repeats) + "".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="the Python of the reference's environment")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose network contains this text")
    parser.add_argument("--skip", default="", help="rows whose network does not contain this text")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--set", choices=("dense", "spatial"), default="dense")
    parser.add_argument("--output", type=Path, help="without a suffix")
    arguments = parser.parse_args()

    results = []
    spatial = arguments.set == "spatial"
    output = arguments.output or HERE / ("spatial" if spatial else "results")
    for row in rows(
        SPATIAL if spatial else WORKLOADS, arguments.peer, arguments.repeats, arguments.quick,
        arguments.only, arguments.skip,
    ):
        results.append(row)
        output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        output.with_suffix(".md").write_text(table(results, arguments.repeats))
    wrong = [row for row in results if not row["agrees"]]
    for row in wrong:
        print("disagrees or failed:", {k: v for k, v in row.items() if "times" not in k})
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
