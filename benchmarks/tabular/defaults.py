"""What the estimators' defaults were chosen by: recipes on the development tables.

    python benchmarks/tabular/defaults.py

Three-fold cross-validation of each candidate; the score is the mean negative log-likelihood of
held-out rows. Results are kept in ``defaults.jsonl`` as they come, and ``defaults.md`` shows them.
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
    "relu x 2, relevance": {"network": "relu x 2", "relevance": True},
    "relu x 3, nothing learned": {"network": "relu x 3", "learn": None},
}
REFERENCE = "relu x 3"


def losses(table, options):
    regression = table.task == "regression"
    split = (KFold if regression else StratifiedKFold)(3, shuffle=True, random_state=1)
    out = []
    for train, test in split.split(table.x, table.y):
        prepare = methods.preprocess().fit(table.x.iloc[train])
        x, x_test = (np.asarray(prepare.transform(table.x.iloc[rows])) for rows in (train, test))
        model = (WideRegressor if regression else WideClassifier)(
            **{"relevance": False, **options}
        )
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
    nll = frame.pivot_table(index="candidate", columns="table", values="nll", sort=False)
    excess = nll.sub(nll.loc[REFERENCE], axis=1)
    order = excess.mean(axis=1).sort_values().index
    best = nll.min()
    cell = lambda c, t: "" if np.isnan(v := nll.loc[c, t]) else (
        f"**{v:.3f}**" if v <= best[t] else f"{v:.3f}"
    )
    lines = [
        "# Candidates for the defaults", "",
        "Negative log-likelihood of held-out rows, three-fold cross-validation, on the development",
        "tables; the best of each column in bold, an empty cell was not computed. `excess` is the",
        f"mean difference from `{REFERENCE}`, in nats, over the tables that both have.", "",
        "| candidate | excess | " + " | ".join(nll.columns) + " |",
        "|---|--:|" + "--:|" * nll.shape[1],
        *(f"| {c} | {excess.loc[c].mean():+.3f} | " + " | ".join(cell(c, t) for t in nll.columns)
          + " |" for c in order), "",
    ]
    (HERE / "defaults.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
