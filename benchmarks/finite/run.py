"""Time tangent kernels of finite networks, side by side with neural-tangents and the usual recipe.

    python benchmarks/finite/run.py --peer PEER/bin/python

Each library works in a process of its own for each network; calls alternate. Writes
``results.md``, ending with ``notes.md``, and ``results.json``; exits with 1 if kernels disagree.
"""

import argparse
import json
import os
import platform
import select
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
METHODS = ("structured", "jacobian", "vector_products")
TOLERANCE = 2e-4  # float32; relative to the largest entry
BOUND = 2e9  # bytes of Jacobians beyond which a method is not even started


class Gone(Exception):
    """A worker ended, or took too long."""


class Worker:
    """A library at work in a process of its own."""

    def __init__(self, python, **spec):
        self.log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115  (closed with the process)
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), json.dumps(spec)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(2)
        self.process.kill()
        self.process.wait()

    def ask(self, do, patience=300.0, **arguments):
        with suppress(BrokenPipeError):
            print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
        if not select.select([self.process.stdout], [], [], patience)[0]:
            raise Gone(f"no answer after {patience:.0f} s")
        answer = self.process.stdout.readline()
        if not answer:
            self.log.seek(0)
            lines = [line for line in self.log.read().splitlines() if line.strip()]
            said = next((line for line in reversed(lines) if "Error" in line), "ended")
            raise Gone("out of memory" if "xhausted" in said or "alloc" in said or "Memory" in said
                       else said[:80])
        return json.loads(answer)


class Library:
    """A library's methods on one network; a process that ends is started again without the rest."""

    def __init__(self, name, python, workload, patience):
        self.name, self.python, self.workload, self.patience = name, python, workload, patience
        self.worker = None

    def ask(self, do, method, **arguments):
        if self.worker is None:
            spec = {"library": self.name, "workload": self.workload, "gigabytes": 40.0}
            self.worker = Worker(self.python, **spec)
        try:
            return self.worker.ask(do, self.patience, method=method, **arguments)
        except Gone:
            self.close()
            raise

    def close(self):
        if self.worker is not None:
            self.worker.__exit__()
        self.worker = None


def measure(name, workload, peer, repeats, patience, folder):
    row = {"workload": name, "n": workload.n, "outputs": workload.outputs,
           "parameters": workload.parameters, "seconds": {}, "first": {}, "memory": {}, "flops": {},
           "failed": {}, "times": {}, "error": {}}
    jacobians = 2 * 4.0 * workload.n * workload.outputs * workload.parameters
    libraries = dict.fromkeys(("ours", "eager", "recipe"), sys.executable)
    libraries |= {"peer": peer} if peer else {}
    methods = {"ours": (*METHODS, "auto"), "peer": METHODS}
    methods |= {"eager": ("auto",), "recipe": ("jacobian",)}
    running = {k: Library(k, python, name, patience) for k, python in libraries.items()}
    try:
        good = []
        for library, worker in running.items():
            for method in methods[library]:
                key = f"{library} {method}"
                if method == "jacobian" and jacobians > BOUND:
                    row["failed"][key] = f"its Jacobians take {jacobians / 1e9:.0f} GB"
                    continue
                try:
                    row["first"][key] = worker.ask("call", method)
                    if worker.ask("call", method) > patience / 4:
                        row["failed"][key] = f"more than {patience / 4:.0f} s"
                        continue
                    good.append((key, worker, method))
                except Gone as error:
                    row["failed"][key] = str(error)
        times = {key: [] for key, _, _ in good}
        begun = time.monotonic()
        for _ in range(repeats):
            for key, worker, method in good:
                times[key].append(worker.ask("call", method))
            if time.monotonic() - begun > patience:
                break
        for key, worker, method in good:
            row["times"][key] = times[key]
            row["seconds"][key] = statistics.median(times[key])
            row["memory"][key] = worker.ask("memory", method)
            if method != "auto":
                with suppress(Gone):
                    row["flops"][key] = worker.ask("flops", method)
            worker.ask("save", method, to=str(folder / f"{key}.npy"))
    finally:
        for worker in running.values():
            worker.close()
    truth = None
    for key in sorted(row["seconds"], key=lambda k: "recipe" not in k):
        kernel = np.load(folder / f"{key}.npy", mmap_mode="r")
        truth = kernel if truth is None else truth
        row["error"][key] = float(np.abs(kernel - truth).max() / np.abs(truth).max())
    row["agrees"] = all(e <= TOLERANCE for e in row["error"].values())
    return row


def best(row, library):
    found = {k: s for k, s in row["seconds"].items() if k.startswith(library) and "auto" not in k}
    return min(found, key=found.get) if found else None


def ms(seconds):
    return f"{1e3 * seconds:.{2 if seconds < 1e-3 else 1}f}"


def cell(row, key):
    return "—" if key is None else f"{ms(row['seconds'][key])} ({key.split()[1]})"


HEADER = """# Tangent kernels of finite networks against neural-tangents 0.6.5

T(x1, x2) with all pairs of outputs, float32, on {machine} with {cores} cores (load average
{load} at the end): medians of {repeats} alternating calls, each library in a process of its own;
`results.json` has all of them. Everything is inside of `jax.jit` but *eager*, which is our `auto`
called from Python, with its checks. *Best of three* is the fastest of structured derivatives,
Jacobian contraction and vector products. *Recipe* is `jax.jacrev` under `jax.vmap`, contracted leaf
by leaf. *Memory* is the peak resident memory during one call above that
before it, after compilation; 0 is less than can be seen. Ratios are the other's time over that of
our `auto`; above 1 ours is faster.

| network | n | parameters | ours: auto, ms | eager | auto / best of our three \
| reference: best of three, ms | ratio | recipe, ms | ratio \
| memory, MB (auto / reference / recipe) |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"""


def ratio(a, b):
    return "—" if a is None or not b else f"{a / b:.2f}"


def table(results, repeats):
    load = ", ".join(f"{a:.1f}" for a in os.getloadavg())
    lines = [HEADER.format(machine=platform.machine(), cores=os.cpu_count(), repeats=repeats,
                           load=load)]
    for r in results:
        s, m = r["seconds"], r["memory"]
        auto, eager = s.get("ours auto"), s.get("eager auto")
        own, theirs = best(r, "ours"), best(r, "peer")
        recipe = s.get("recipe jacobian")
        memory = lambda k, m=m: f"{m[k]:.0f}" if k in m else "—"
        lines.append(
            f"| {r['workload']} | {r['n']} | {r['parameters']:,} "
            f"| {'—' if auto is None else ms(auto)} "
            f"| {'—' if eager is None else ms(eager)} "
            f"| {ratio(auto, s.get(own))} ({(own or '— —').split()[1]}) "
            f"| {cell(r, theirs)} | {ratio(s.get(theirs), auto)} "
            f"| {'—' if recipe is None else ms(recipe)} | {ratio(recipe, auto)} "
            f"| {memory('ours auto')} / {memory(theirs)} / {memory('recipe jacobian')} "
            f"{'' if r['agrees'] else '**disagrees**'}|\n"
        )
    lines.append("\n## Every method\n\nMilliseconds; the compiler's operation count in brackets.\n")
    lines.append("\n")
    keys = [f"{who} {m}" for who in ("ours", "peer") for m in METHODS]
    lines.append("| network | " + " | ".join(keys) + " |\n|---" + "|--:" * len(keys) + "|\n")
    for r in results:
        cells = [
            f"{ms(r['seconds'][k])} [{r['flops'].get(k, 0):.1e}]" if k in r["seconds"]
            else r["failed"].get(k, "—") for k in keys
        ]
        lines.append(f"| {r['workload']} | " + " | ".join(cells) + " |\n")
    return "".join(lines) + "\n" + (HERE / "notes.md").read_text()


def main():
    from workloads import WORKLOADS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default="", help="the Python of the reference's environment")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds for one call")
    parser.add_argument("--only", default="", help="networks whose name contains this text")
    parser.add_argument("--report", action="store_true", help="rewrite the tables")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="without a suffix")
    a = parser.parse_args()
    results = []
    if a.report:
        results = json.loads(a.output.with_suffix(".json").read_text())
        for row in results:
            row["seconds"] = {key: statistics.median(times) for key, times in row["times"].items()}
        a.output.with_suffix(".md").write_text(table(results, a.repeats))
        return
    for name, make in WORKLOADS.items():
        if a.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = measure(name, make(), a.peer, a.repeats, a.patience, Path(folder))
        print(name, {k: f"{1e3 * s:.1f}" for k, s in row["seconds"].items()}, row["failed"],
              "ok" if row["agrees"] else row["error"], flush=True)
        results.append(row)
        a.output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        a.output.with_suffix(".md").write_text(table(results, a.repeats))
    raise SystemExit(0 if all(r["agrees"] for r in results) else 1)


if __name__ == "__main__":
    main()
