"""The scores as people see them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A score.

    Attributes
    ----------
    key, title
        Its name in the results, and for people.
    goal
        ``"high"``, ``"low"``, or the number that is best.
    percent
        Whether it is shown in per cent.
    card
        What the large numbers at the top of the report say of it; not there if empty.
    """

    key: str
    title: str
    goal: str | float
    percent: bool = False
    card: str = ""


MEASURES = {
    "regression": (
        Measure("r2", "R²", "high", card="R²: the share of the target's variance explained"),
        Measure("rmse", "RMSE", "low", card="root mean square error, in units of the target"),
        Measure("nll", "NLL", "low"),
        Measure("coverage50", "50%", 0.5, percent=True),
        Measure("coverage90", "90%", 0.9, percent=True),
        Measure("coverage95", "95%", 0.95, percent=True,
                card="of the answers inside the 95% intervals"),
    ),
    "classification": (
        Measure("accuracy", "accuracy", "high", percent=True, card="of the classes right"),
        Measure("nll", "NLL", "low", card="nats of negative log-likelihood"),
        Measure("ece", "ECE", "low", card="calibration error: confidence against accuracy"),
    ),
}  # fmt: skip
"""What is shown for each task, in order."""


def shown(measure: Measure, value: float) -> str:
    """A score as text."""
    if not math.isfinite(value):
        return "—"
    if measure.percent:
        return f"{value:.1%}"
    return f"{value:.4g}" if measure.key == "rmse" else f"{value:.3f}"


def best(measure: Measure, values: Sequence[float]) -> float:
    """The best of some scores."""
    if measure.goal == "high":
        return max(values)
    if measure.goal == "low":
        return min(values)
    goal = float(measure.goal)
    return min(values, key=lambda v: abs(v - goal))


def rounded(value: float) -> str:
    """A number for people: four digits."""
    return f"{value:.4g}".replace("-", "−") if math.isfinite(value) else "—"
