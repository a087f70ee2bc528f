"""A table, its encoding and an infinitely wide network, fitted together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from widelimit.cli.exits import Failure
from widelimit.cli.tabular.columns import Column
from widelimit.cli.tabular.encode import Encoder
from widelimit.cli.tabular.target import Task
from widelimit.estimators import WideClassifier, WideRegressor
from widelimit.estimators._recipe import network_kernel

_ROWS = 256


@dataclass(frozen=True)
class Training:
    """Everything that a model is made from.

    Attributes
    ----------
    target, task, classes
        What is predicted; ``classes`` is empty for regression.
    columns
        How each column of the table is read; dropped ones are among them.
    values
        The values of the columns that are used, by name.
    answers
        Values of the target, or numbers of classes.
    options
        Arguments of the estimator.
    """

    target: str
    task: Task
    classes: tuple[str, ...]
    columns: tuple[Column, ...]
    values: Mapping[str, np.ndarray]
    answers: np.ndarray
    options: Mapping[str, Any]

    @property
    def used(self) -> list[Column]:
        """The columns that features come from."""
        return [c for c in self.columns if c.kind != "dropped"]

    def take(self, rows: np.ndarray) -> Training:
        """Some of the rows."""
        values = {name: v[rows] for name, v in self.values.items()}
        return replace(self, values=values, answers=self.answers[rows])


class Prediction(NamedTuple):
    """Of a number, its mean and standard deviation; of a class, the probability of each.

    Attributes
    ----------
    mean, std
        Shape (m,), or None for classes; the deviation is that of a new observation.
    probabilities
        Shape (m, classes), or None for numbers.
    """

    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    probabilities: np.ndarray | None = None


class Model:
    """A fitted model.

    Parameters
    ----------
    training
        What to learn from; with ``learn=None`` and every number among its options, fitting is
        deterministic.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self.encoder = Encoder(training.columns)
        self.features = self.encoder.fit(training.values)
        options = dict(training.options)
        # Back to the natural scale after the estimator's standardisation: rare categories would
        # be blown up otherwise.
        options.setdefault("input_scales", self.encoder.scales)
        kind = WideRegressor if training.task == "regression" else WideClassifier
        self.estimator = kind(**options).fit(self.features, training.answers)

    def predict(
        self, values: Mapping[str, np.ndarray], advance: Callable[[int], None] = lambda _: None
    ) -> Prediction:
        """Predictions for new rows; ``advance`` is told how many are done."""
        return self.of_features(self.encoder.transform(values), advance)

    def of_features(
        self, features: np.ndarray, advance: Callable[[int], None] = lambda _: None
    ) -> Prediction:
        """Predictions for encoded rows; ``advance`` is told how many are done."""
        parts = []
        for start in range(0, len(features), _ROWS):
            some = features[start : start + _ROWS]
            # One shape for all batches, so that programs are compiled once.
            padded = np.pad(some, ((0, _ROWS - len(some)), (0, 0)), mode="edge")
            parts.append(take(self._batch(padded), slice(len(some))))
            advance(len(some))
        return join(parts)

    def _batch(self, features: np.ndarray) -> Prediction:
        if self.training.task == "regression":
            mean, std = self.estimator.predict(features, return_std=True)
            return Prediction(np.asarray(mean), np.asarray(std))
        found = self.estimator.predict_proba(features)
        out = np.zeros((len(features), len(self.training.classes)))
        out[:, np.asarray(self.estimator.classes_)] = found
        return Prediction(probabilities=out)

    def frozen(self) -> Training:
        """The training data with every learned number among the options."""
        options = self.estimator.frozen().get_params(deep=False)
        return replace(self.training, options=options)


def require_recipe(network: str) -> None:
    """Fail if a network's name is not understood.

    Raises
    ------
    Failure
        With exit code 2.
    """
    try:
        network_kernel(network, 1)
    except ValueError as error:
        raise Failure(f"{_capital(str(error))}.", 2) from error


def join(parts: Sequence[Prediction]) -> Prediction:
    """Predictions one after the other."""
    fields = zip(*parts)
    return Prediction(*(None if f[0] is None else np.concatenate(f) for f in fields))


def take(found: Prediction, rows: Any) -> Prediction:
    """Some of the rows of predictions, or all in another order."""
    return Prediction(*(None if f is None else f[rows] for f in found))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
