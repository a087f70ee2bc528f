"""How good predictions with uncertainty are."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri
from sklearn.metrics import r2_score

from widelimit.cli.tabular.model import Prediction
from widelimit.cli.tabular.target import Task
from widelimit.predict import accuracy, expected_calibration_error, negative_log_likelihood

LEVELS = (0.5, 0.9, 0.95)
"""Probabilities of the central intervals that are checked."""

FLOOR = 1e-6
"""Smaller probabilities of a class count as this, so that one row cannot make a score infinite."""


def scores(task: Task, found: Prediction, answers: np.ndarray) -> dict[str, float]:
    r"""Scores of predictions for rows whose answers are known.

    For numbers, ``r2``, ``rmse``, ``nll`` (the mean of :math:`-\log N(y \mid m, s^2)`, in nats)
    and ``coverage50`` and so on, the share of answers inside the central interval of that
    probability. For classes, ``accuracy``, ``nll`` and ``ece``.
    """
    if task == "classification":
        p = np.asarray(found.probabilities)
        floored = np.maximum(p, FLOOR)
        floored /= floored.sum(1, keepdims=True)
        return {
            "accuracy": accuracy(p, answers),
            "nll": negative_log_likelihood(floored, answers),
            "ece": expected_calibration_error(p, answers),
        }
    mean, std = np.asarray(found.mean), np.asarray(found.std)
    z = (answers - mean) / std
    return {
        "r2": float(r2_score(answers, mean)),
        "rmse": float(np.sqrt(np.mean((answers - mean) ** 2))),
        "nll": float(np.mean(0.5 * z**2 + np.log(std) + 0.5 * np.log(2 * np.pi))),
        **{f"coverage{100 * level:.0f}": coverage(z, level) for level in LEVELS},
    }


def coverage(z: np.ndarray, level: float) -> float:
    """The share of standardised errors inside the central normal interval of a probability."""
    return float(np.mean(np.abs(z) <= ndtri(0.5 + level / 2)))
