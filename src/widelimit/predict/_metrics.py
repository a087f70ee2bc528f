"""Scores of class probabilities: accuracy, likelihood, calibration."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from widelimit.predict._classes import check_labels


class CalibrationCurve(NamedTuple):
    """Predictions gathered in bins of their confidence; empty bins are left out.

    Attributes
    ----------
    confidence
        The mean probability of the predicted class in each bin.
    accuracy
        The fraction of each bin that is right.
    examples
        How many predictions each bin holds.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    examples: np.ndarray


def accuracy(probabilities: Any, labels: Any) -> float:
    """The fraction of examples whose most probable class is the label.

    Parameters
    ----------
    probabilities
        Shape (m, classes); rows sum to 1.
    labels
        Class numbers, shape (m,).

    Raises
    ------
    ValueError
        If these are not probabilities, or not labels.
    """
    p, labels = _checked(probabilities, labels)
    return float(np.mean(np.argmax(p, 1) == labels))


def negative_log_likelihood(probabilities: Any, labels: Any) -> float:
    """The mean over examples of -log p(label), in nats; infinite where that p is 0.

    Arguments and errors are those of :func:`accuracy`.
    """
    p, labels = _checked(probabilities, labels)
    with np.errstate(divide="ignore"):
        return float(-np.mean(np.log(p[np.arange(len(labels)), labels])))


def expected_calibration_error(probabilities: Any, labels: Any, *, bins: int = 15) -> float:
    r"""How far confidence is from accuracy, :math:`\sum_b (n_b / m)\,|acc_b - conf_b|`.

    The bins b divide [0, 1] equally by the probability of the predicted class. Arguments and
    errors are those of :func:`accuracy`.

    Notes
    -----
    Guo et al., On calibration of modern neural networks, 2017, equation 3.
    """
    curve = calibration_curve(probabilities, labels, bins=bins)
    gaps = np.abs(curve.accuracy - curve.confidence)
    return float(np.sum(curve.examples * gaps) / np.sum(curve.examples))


def calibration_curve(probabilities: Any, labels: Any, *, bins: int = 15) -> CalibrationCurve:
    """Accuracy against confidence of the predicted class, in equal bins of [0, 1].

    Arguments and errors are those of :func:`accuracy`.
    """
    p, labels = _checked(probabilities, labels)
    if bins < 1:
        msg = f"at least one bin is needed, got {bins}"
        raise ValueError(msg)
    confidence = p.max(1)
    right = np.argmax(p, 1) == labels
    edges = np.linspace(0, 1, bins + 1)
    number = np.clip(np.searchsorted(edges[1:-1], confidence), 0, bins - 1)
    count = np.bincount(number, minlength=bins)
    full = count > 0
    total = np.bincount(number, confidence, bins)[full]
    hits = np.bincount(number, right, bins)[full]
    return CalibrationCurve(total / count[full], hits / count[full], count[full])


def _checked(probabilities: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    p = np.asarray(probabilities, float)
    if p.ndim != 2:
        msg = f"probabilities must have shape (m, classes), got {p.shape}"
        raise ValueError(msg)
    if not np.all(p >= 0) or not np.allclose(p.sum(1), 1, atol=1e-4):
        msg = "probabilities must be at least 0, and each row must sum to 1"
        raise ValueError(msg)
    return p, check_labels(labels, *p.shape)
