"""What the network is compared with: simple and strong predictors of scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import KFold, cross_val_predict

from widelimit.cli.tabular.model import Prediction
from widelimit.cli.tabular.target import Task

_TREES, _INNER = 200, 3

REGRESSORS: dict[str, Callable[[int], Any]] = {
    "mean": lambda _: DummyRegressor(),
    "ridge regression": lambda _: RidgeCV(np.logspace(-3, 4, 15)),
    "gradient boosting": lambda seed: HistGradientBoostingRegressor(random_state=seed),
    "random forest": lambda seed: RandomForestRegressor(_TREES, oob_score=True, random_state=seed),
}
CLASSIFIERS: dict[str, Callable[[int], Any]] = {
    "class shares": lambda _: DummyClassifier(strategy="prior"),
    "logistic regression": lambda _: LogisticRegression(max_iter=1000),
    "gradient boosting": lambda seed: HistGradientBoostingClassifier(random_state=seed),
    "random forest": lambda seed: RandomForestClassifier(_TREES, random_state=seed),
}
"""For each name, an estimator from a seed."""


def names(task: Task) -> list[str]:
    """The baselines of a task."""
    return [*(REGRESSORS if task == "regression" else CLASSIFIERS)]


def predict(
    name: str, task: Task, classes: int, x: np.ndarray, y: np.ndarray, new: np.ndarray, seed: int
) -> Prediction:
    """Fit a baseline and predict new rows.

    A regressor gets the standard deviation of its errors on held-out thirds of the training
    rows, the same for every row; a forest, that of its errors on rows that a tree has not seen.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if task == "regression":
            model = REGRESSORS[name](seed).fit(x, y)
            inner = KFold(min(_INNER, len(y)), shuffle=True, random_state=seed)
            if hasattr(model, "oob_prediction_"):
                held_out = model.oob_prediction_
            else:
                held_out = cross_val_predict(REGRESSORS[name](seed), x, y, cv=inner)
            std = float(np.sqrt(np.mean((y - held_out) ** 2)))
            std = max(std, 1e-9 * float(np.std(y)), 1e-300)
            return Prediction(model.predict(new), np.full(len(new), std))
        out = np.zeros((len(new), classes))
        if len(np.unique(y)) == 1:
            out[:, y[0]] = 1
            return Prediction(probabilities=out)
        model = CLASSIFIERS[name](seed).fit(x, y)
        out[:, model.classes_] = model.predict_proba(new)
        return Prediction(probabilities=out)
