"""Compare the estimators with the usual methods on real tables, by repeated cross-validation.

    python benchmarks/tabular/run.py [--set evaluation] [--only TABLE] [--methods NAME ...]

Every result of a table, method and fold is appended to ``results.jsonl`` as it comes, and not
computed again: the run can be interrupted, and continued. ``report.py`` makes the tables and the
figure from it. Times are of the processor: run it on one core (``taskset -c 0``) to compare them.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import methods
import numpy as np
import tables
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy.stats import norm
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold
from sklearn.preprocessing import StandardScaler

from widelimit.predict import expected_calibration_error, negative_log_likelihood

HERE = Path(__file__).parent
FOLDS, REPEATS, SMALL = 5, 2, 1000
LEVELS = (0.5, 0.9, 0.95)


def scores_of_regression(model, x, y, x_test, y_test):
    """Fit on standardised targets; scores are in those units."""
    scale = StandardScaler().fit(y[:, None])
    y, y_test = (scale.transform(v[:, None])[:, 0] for v in (y, y_test))
    begun = time.process_time()
    model.fit(x, y)
    fitted = time.process_time()
    mean, std = model.predict(x_test, return_std=True)
    error = y_test - mean
    return {
        "score": float(np.sqrt(np.mean(error**2))),
        "nll": float(-np.mean(norm.logpdf(error, scale=std))),
        "coverage": [
            float(np.mean(np.abs(error) < norm.ppf(0.5 + p / 2) * std)) for p in LEVELS
        ],
        "fit": fitted - begun,
        "predict": time.process_time() - fitted,
    }


def scores_of_classification(model, x, y, x_test, y_test):
    """Accuracy, likelihood and calibration of the probabilities; classes unseen count as 1e-12."""
    begun = time.process_time()
    model.fit(x, y)
    fitted = time.process_time()
    found = model.predict_proba(x_test)
    done = time.process_time()
    classes = np.unique(np.concatenate([model.classes_, y_test]))
    proba = np.full((len(x_test), len(classes)), 1e-12)
    proba[:, np.searchsorted(classes, model.classes_)] = np.maximum(found, 1e-12)
    proba /= proba.sum(1, keepdims=True)
    labels = np.searchsorted(classes, y_test)
    return {
        "score": float(np.mean(np.argmax(proba, 1) != labels)),
        "nll": negative_log_likelihood(proba, labels),
        "calibration": expected_calibration_error(proba, labels),
        "fit": fitted - begun,
        "predict": done - fitted,
    }


def folds(table):
    """The same folds for every method: all repeats of small tables, one of large ones."""
    kind = RepeatedKFold if table.task == "regression" else RepeatedStratifiedKFold
    repeats = REPEATS if len(table.y) <= SMALL else 1
    return kind(n_splits=FOLDS, n_repeats=repeats, random_state=0).split(table.x, table.y)


def one(table, name, fold, train, test):
    """The scores of one method on one fold."""
    prepare = methods.preprocess().fit(table.x.iloc[train])
    x, x_test = (np.asarray(prepare.transform(table.x.iloc[rows])) for rows in (train, test))
    regression = table.task == "regression"
    models = (methods.regressors if regression else methods.classifiers)(fold, x.shape[1])
    score = scores_of_regression if regression else scores_of_classification
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = score(models[name], x, table.y[train], x_test, table.y[test])
    return {"table": table.name, "task": table.task, "method": name, "fold": fold, **result}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=("evaluation", "development"), default="evaluation")
    parser.add_argument("--only", nargs="*", help="tables")
    parser.add_argument("--methods", nargs="*", help="methods")
    parser.add_argument("--folds", type=int, default=FOLDS * REPEATS, help="at most so many")
    parser.add_argument("--output", type=Path, default=HERE / "results.jsonl")
    arguments = parser.parse_args()
    done = set()
    if arguments.output.exists():
        lines = arguments.output.read_text().splitlines()
        done = {(r["table"], r["method"], r["fold"]) for r in map(json.loads, lines)}
    names = tables.EVALUATION if arguments.set == "evaluation" else tables.DEVELOPMENT
    names = [n for n in names if not arguments.only or n in arguments.only]
    work = []
    for table in map(tables.load, names):
        known = (methods.regressors if table.task == "regression" else methods.classifiers)(0, 1)
        wanted = [m for m in known if not arguments.methods or m in arguments.methods]
        splits = list(enumerate(folds(table)))[: arguments.folds]
        work += [
            (table, m, k, *split)
            for k, split in splits for m in wanted if (table.name, m, k) not in done
        ]
    columns = (
        *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns) as bar, arguments.output.open("a") as file:
        task = bar.add_task("fits", total=len(work), now="")
        for table, method, fold, train, test in sorted(work, key=lambda w: (w[2], len(w[0].y))):
            bar.update(task, now=f"{table.name}, {method}")
            result = one(table, method, fold, train, test)
            file.write(json.dumps(result) + "\n")
            file.flush()
            bar.advance(task)


if __name__ == "__main__":
    main()
