"""Tables and a critical-difference figure from ``results.jsonl``.

    python benchmarks/tabular/report.py [--without METHOD ...]

Writes ``results.md`` and ``ranks.png``. Ranks are of each method's mean over folds on each table.
Two methods whose mean ranks differ by less than the critical difference (Nemenyi's test, Demšar
2006, at 5 %) are joined by a bar.
"""

import argparse
import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import methods
import numpy as np
import pandas as pd
from scipy.stats import friedmanchisquare, studentized_range

HERE = Path(__file__).parent
MEASURES = {
    "regression": {"score": "RMSE, in units of the spread", "nll": "negative log-likelihood"},
    "classification": {
        "score": "error rate", "nll": "negative log-likelihood", "calibration": "calibration error",
    },
}


def read():
    lines = (HERE / "results.jsonl").read_text().splitlines()
    return pd.DataFrame(map(json.loads, lines))


def complete(frame, task, without):
    """Only folds of the task that every method has finished, but for those left out."""
    known = (methods.regressors if task == "regression" else methods.classifiers)(0, 1)
    known = set(known) - set(without)
    frame = frame[(frame.task == task) & frame.method.isin(known)]
    return frame[frame.groupby(["table", "fold"])["method"].transform("nunique") == len(known)]


def means(frame, measure):
    """One row per table, one column per method."""
    return frame.pivot_table(index="table", columns="method", values=measure, sort=False)


def extent(frame):
    """What was compared, in words."""
    folds = frame.groupby("table", sort=False)["fold"].nunique()
    few, many = folds.min(), folds.max()
    each = f"{few}" if few == many else f"{few} to {many}"
    word = "folds" if many > 1 else "fold"
    return f"{len(folds)} tables, {each} {word} of each: {', '.join(folds.index)}."


def critical_difference(count, tables):
    """Nemenyi: q sqrt(k (k + 1) / (6 N)) with q of the studentised range over sqrt(2)."""
    q = studentized_range.ppf(0.95, count, np.inf) / np.sqrt(2)
    return q * np.sqrt(count * (count + 1) / (6 * tables))


def markdown(wide, title):
    ranks = wide.rank(axis=1).mean().sort_values()
    wide = wide[ranks.index]
    best = wide.min(axis=1)
    lines = ["| table | " + " | ".join(wide.columns) + " |", "|---|" + "--:|" * wide.shape[1]]
    for name, row in wide.iterrows():
        cells = [f"**{v:.3f}**" if v <= best[name] else f"{v:.3f}" for v in row]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| *mean rank* | " + " | ".join(f"*{r:.2f}*" for r in ranks) + " |")
    gap = critical_difference(wide.shape[1], len(wide))
    test = friedmanchisquare(*(wide[c] for c in wide)) if len(wide) > 2 else None
    p = f"; Friedman's test p = {test.pvalue:.1e}" if test is not None else ""
    return [f"### {title}", "", *lines, "", f"Critical difference of mean ranks {gap:.2f}{p}.", ""]


def diagram(ax, wide, title):
    """Methods on a line by mean rank; bars join those that cannot be told apart."""
    ranks = wide.rank(axis=1).mean().sort_values()
    gap = critical_difference(wide.shape[1], len(wide))
    half = (len(ranks) + 1) // 2
    ax.set(xlim=(-1.2, len(ranks) + 2.2), xticks=range(1, len(ranks) + 1))
    ax.set(ylim=(-half - 1.4, 1.2), title=title, yticks=[])
    ax.spines[:].set_visible(False)
    ax.xaxis.tick_top()
    for k, (name, rank) in enumerate(ranks.items()):
        left = k < half
        depth = -(k + 1) if left else -(len(ranks) - k)
        edge = 0.5 if left else len(ranks) + 0.5
        color = "#b3402a" if name.startswith("wide") else "#333333"
        ax.plot([rank, rank, edge], [1, depth - 0.8, depth - 0.8], color=color, lw=1)
        ax.text(edge + (-0.08 if left else 0.08), depth - 0.8, f"{name} {rank:.1f}",
                ha="right" if left else "left", va="center", color=color, fontsize=9)
    level, values, last = 0.55, ranks.to_numpy(), -1
    for i in range(len(values)):
        j = int(np.searchsorted(values, values[i] + gap, side="right")) - 1
        if j > i and j > last:
            ax.plot([values[i] - 0.05, values[j] + 0.05], [level] * 2, color="#888888", lw=4)
            level, last = level - 0.3, j
    ax.plot([0.5, len(ranks) + 0.5], [1, 1], color="black", lw=0.8)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without", nargs="*", default=(), help="methods left out")
    without = parser.parse_args().without
    frame = read()
    out = [
        "# Estimators on real tables", "",
        "Five-fold cross-validation, with the same folds, preprocessing and number of settings",
        "tried for every method (`methods.py`); the best of each row in bold. At most 2000 rows a",
        "table. Shown are the folds that every method has finished; `run.py` continues where it",
        "stopped. One fold of a table tells little of that table: look at the mean ranks. That the",
        "shares of the classes are calibrated best is no merit: they say the same of every row.",
        "",
        *(f"Not compared for want of time: {m}.\n" for m in without),
    ]
    figures = []
    for task, measures in MEASURES.items():
        part = complete(frame, task, without)
        if part.empty:
            continue
        out += [f"## {task.capitalize()}", "", extent(part), ""]
        for measure, title in measures.items():
            wide = means(part, measure)
            if len(wide):
                out += markdown(wide, title)
                figures.append((wide, f"{task}: {title}"))
        if task == "regression":
            cover = np.stack(part["coverage"])
            part = part.assign(**{f"{p}": cover[:, i] for i, p in enumerate(("50", "90", "95"))})
            table = part.groupby("method", sort=False)[["50", "90", "95"]].mean() * 100
            out += ["### Coverage of 50, 90 and 95 % intervals", "", "| method | 50 | 90 | 95 |",
                    "|---|--:|--:|--:|",
                    *(f"| {m} | {a:.0f} | {b:.0f} | {c:.0f} |" for m, (a, b, c) in
                      zip(table.index, table.to_numpy())), ""]
        seconds = part.groupby("method", sort=False)["fit"].median()
        out += ["### Median seconds to fit, tuning included", "",
                "| " + " | ".join(seconds.index) + " |", "|" + "--:|" * len(seconds),
                "| " + " | ".join(f"{s:.2f}" for s in seconds) + " |", ""]
    fig, axes = plt.subplots(len(figures), 1, figsize=(8, 2.6 * len(figures)), squeeze=False)
    for ax, (wide, title) in zip(axes[:, 0], figures):
        diagram(ax, wide, title)
    fig.tight_layout()
    fig.savefig(HERE / "ranks.png", dpi=140)
    out += ["![mean ranks](ranks.png)", ""]
    (HERE / "results.md").write_text("\n".join(out))


if __name__ == "__main__":
    main()
