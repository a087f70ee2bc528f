"""Finite networks beside their infinite-width kernels, on Fashion-MNIST.

    python benchmarks/regimes/run.py compute --data /usr/share/datasets/fashion-mnist
    python benchmarks/regimes/run.py report

After Lee et al., Finite versus infinite neural networks: an empirical study, 2020, in small. Three
networks; for each, kernels with and without regularisation, and trained networks with one thing
changed at a time. Every result is appended to ``results.jsonl`` as it comes and not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import data
import jax
import numpy as np
from descent import STEPS, Trained, accuracy, critical_rate, train
from limits import Regression, grams
from limits import rows as kernel_rows
from networks import WIDTHS, network
from report import write
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

RESULTS = Path(__file__).parent / "results.jsonl"
DRAWS, MEMBERS = 4, 3
SMALL = 0.5
"""The small learning rate, as a share of the one at which the linearised network diverges."""
LARGE = (2.0, 4.0)
DECAYS = (1e-5, 1e-4)
"""Weight decays, as shares of the kernel's largest eigenvalue over the number of examples."""
COMPARED = ("dense", "convolutional")
"""Networks whose kernels are whitened and compared with outputs; the pooled one takes long."""


def conditions() -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Names of what is trained, the number of networks, and what differs from the plain one."""
    plain = {"parameterization": "ntk", "rate": SMALL, "decay": 0.0, "centred": False,
             "whitened": False}
    yield "plain", MEMBERS, plain
    yield "centred", MEMBERS, {**plain, "centred": True}
    for rate in LARGE:
        yield f"rate × {rate / SMALL:g}", 1, {**plain, "rate": rate}
    for decay in DECAYS:
        yield f"decay {decay:g}", 1, {**plain, "decay": decay}
    yield "standard parameterization", 1, {**plain, "parameterization": "standard"}
    yield "centred, whitened", 1, {**plain, "centred": True, "whitened": True}


def trained(
    name: str, draw: data.Draw, member: int, seed: int, critical: float, how: dict[str, Any]
) -> tuple[Trained | None, float]:
    """One network trained under a condition, and η/n times its steps: the time of its flow."""
    model = network(name, how["parameterization"], jax.random.key(1000 * seed + member))
    rate = how["rate"] * critical
    decay = how["decay"] * 2 / critical
    out = train(model, draw, name, rate, seed, decay=decay, centred=how["centred"])
    return out, rate * STEPS[name] / len(draw.train.x)


def compute(folder: Path, names: list[str], seeds: list[int]) -> None:
    """Compute what is missing."""
    have = {(r["network"], r["draw"], r["method"]) for r in recorded()}
    plan = list(conditions())
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress, open(RESULTS, "a") as file:
        bar = progress.add_task("kernels", total=len(seeds) * len(names) * (len(plan) + 1))
        every = data.draws(folder, DRAWS)
        for seed in seeds:
            draw = every[seed]
            versions = {False: draw, True: data.whitened(draw)}
            for name in names:
                for row in of_network(name, seed, versions, have, plan):
                    if row:
                        row = {"network": name, "width": WIDTHS[name], "draw": seed, **row}
                        file.write(json.dumps(row) + "\n")
                        file.flush()
                        text = f"{name}, {row['method']}: {row['score']}"
                        progress.update(bar, description=text)
                    else:
                        progress.advance(bar)


def of_network(
    name: str, seed: int, versions: dict[bool, data.Draw], have: set, plan: list
) -> Iterator[dict[str, Any] | None]:
    """Results of one network on one draw; None after each group of them."""
    draw, reference = versions[False], None
    scored = (name, seed, "NTK, ridge") in have
    missing = [p for p in plan if (name, seed, p[0]) not in have]
    if not scored or (missing and name in COMPARED):
        found = grams(name, draw)
        if not scored:
            yield from kernel_rows(draw, found)
        if name in COMPARED:
            reference = Regression(found["ntk"], draw)
            if not scored:
                white = versions[True]
                for row in kernel_rows(white, grams(name, white)):
                    yield {**row, "method": row["method"] + ", whitened"}
    yield None
    for label, members, how in plan:
        if (name, seed, label) not in have:
            yield from of_condition(name, seed, versions[how["whitened"]], reference, label,
                                    members, how)
        yield None


def of_condition(
    name: str, seed: int, draw: data.Draw, reference: Any, label: str, members: int,
    how: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Results of a condition: the mean over networks, and their ensemble."""
    begun, runs, flow = time.perf_counter(), [], 0.0
    first = network(name, how["parameterization"], jax.random.key(1000 * seed))
    critical = critical_rate(first, draw.train.x)
    for member in range(members):
        out, flow = trained(name, draw, member, seed, critical, how)
        if out is None:
            yield {"method": label, "score": None, "diverged": True}
            return
        runs.append(out)
    labels = draw.test.labels
    seconds = time.perf_counter() - begun
    comparable = how["parameterization"] == "ntk" and not how["whitened"] and reference
    limit = reference.flow(flow)[len(draw.validation.x) :] if comparable else None
    alone = {
        "method": label, "score": float(np.mean([accuracy(r.best, labels) for r in runs])),
        "validation": float(np.mean([r.validation for r in runs])),
        "fitted": float(np.mean([r.fitted for r in runs])),
        "steps": float(np.mean([r.steps for r in runs])), "seconds": seconds / members,
    }
    if limit is not None:
        alone["distance"] = float(np.mean([distance(r.last, limit) for r in runs]))
    yield alone
    if members > 1:
        best, last = (np.mean([getattr(r, k) for r in runs], 0) for k in ("best", "last"))
        row = {"method": f"{label}, ensemble", "score": accuracy(best, labels)}
        yield row if limit is None else {**row, "distance": distance(last, limit)}


def distance(outputs: np.ndarray, limit: np.ndarray) -> float:
    """Root mean square difference from the infinite network, as a share of its outputs."""
    return float(np.sqrt(np.mean((outputs - limit) ** 2) / np.mean(limit**2)))


def recorded() -> list[dict[str, Any]]:
    """All results so far."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if (
        RESULTS.exists()) else []


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("compute", "report"))
    parser.add_argument("--data", type=Path, default=data.FOLDER)
    parser.add_argument("--networks", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--draws", nargs="+", type=int, default=list(range(DRAWS)))
    a = parser.parse_args()
    if a.what == "compute":
        compute(a.data, a.networks, a.draws)
    write(recorded())


if __name__ == "__main__":
    main()
