"""What the estimators' defaults were chosen by: recipes on the development tables.

    python benchmarks/tabular/defaults.py

Three-fold cross-validation of each candidate; the score is the mean negative log-likelihood of
held-out rows. Results are kept in ``defaults.jsonl`` as they come; ``defaults.md`` shows the mean
rank of each candidate, and its mean loss against the best of each table.
"""

import json
import warnings
from pathlib import Path

import methods
import numpy as np
import pandas as pd
import tables
from rich.progress import track
from run import scores_of_classification, scores_of_regression
from sklearn.model_selection import KFold, StratifiedKFold

from widelimit.estimators import WideClassifier, WideRegressor

HERE = Path(__file__).parent
CANDIDATES = {
    "relu x 1": {"network": "relu x 1"},
    "relu x 2": {"network": "relu x 2"},
    "relu x 3": {"network": "relu x 3"},
    "relu x 5": {"network": "relu x 5"},
    "erf x 2": {"network": "erf x 2"},
    "erf x 3": {"network": "erf x 3"},
    "gelu x 2": {"network": "gelu x 2"},
    "relu x 3, ntk": {"network": "relu x 3", "kind": "ntk"},
    "relu x 3, leave-one-out": {"network": "relu x 3", "learn": "leave_one_out"},
    "relu x 3, relevance": {"network": "relu x 3", "relevance": True},
    "relu x 3, nothing learned": {"network": "relu x 3", "learn": None},
}


def losses(table, options):
    regression = table.task == "regression"
    split = (KFold if regression else StratifiedKFold)(3, shuffle=True, random_state=1)
    out = []
    for train, test in split.split(table.x, table.y):
        prepare = methods.preprocess().fit(table.x.iloc[train])
        x, x_test = (np.asarray(prepare.transform(table.x.iloc[rows])) for rows in (train, test))
        model = (WideRegressor if regression else WideClassifier)(**options)
        score = scores_of_regression if regression else scores_of_classification
        out.append(score(model, x, table.y[train], x_test, table.y[test]))
    mean = lambda name: float(np.mean([r[name] for r in out]))
    return {"nll": mean("nll"), "score": mean("score"), "fit": mean("fit")}


def main():
    path = HERE / "defaults.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    done = {(r["table"], r["candidate"]) for r in map(json.loads, lines)}
    work = [(t, c) for t in tables.DEVELOPMENT for c in CANDIDATES if (t, c) not in done]
    for name, candidate in track(work, "candidates"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = losses(tables.load(name), CANDIDATES[candidate])
        with path.open("a") as file:
            file.write(json.dumps({"table": name, "candidate": candidate, **found}) + "\n")
    report(pd.DataFrame(map(json.loads, path.read_text().splitlines())))


def report(frame):
    nll = frame.pivot_table(index="table", columns="candidate", values="nll", sort=False)
    nll = nll.dropna()
    summary = pd.DataFrame({
        "mean rank": nll.rank(axis=1).mean(),
        "loss": nll.sub(nll.min(axis=1), axis=0).mean(),
        "seconds": frame.groupby("candidate")["fit"].median(),
    }).sort_values("mean rank")
    lines = ["# Candidates for the defaults", "",
             f"Mean rank and mean excess of the negative log-likelihood over {len(nll)} tables",
             f"({', '.join(nll.index)}), and median seconds to fit.", "",
             "| candidate | mean rank | excess, nats | fit, s |", "|---|--:|--:|--:|",
             *(f"| {c} | {r['mean rank']:.1f} | {r['loss']:.3f} | {r['seconds']:.1f} |"
               for c, r in summary.iterrows()), ""]
    (HERE / "defaults.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
