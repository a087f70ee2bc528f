"""Early stopping: the time at which a loss on other examples is least."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from widelimit.dynamics._method import Method

POINTS = 128
"""Times of the first search."""

ROUNDS, ZOOM = 6, 16
"""Rounds of refinement, and times in each."""


class BestTime(NamedTuple):
    """When to stop.

    Attributes
    ----------
    time
        Of the least loss; infinity if the end of training is best.
    loss
        There.
    start, end
        The loss before training, and at the latest time that was looked at.
    """

    time: float
    loss: float
    start: float
    end: float


def best_time(
    losses: Callable[[np.ndarray], Any], chosen: Method, rates: Any, most: float | None
) -> BestTime:
    """Search times on a logarithmic grid, then around the best.

    Parameters
    ----------
    losses
        Of shape (times,) for times of that shape.
    chosen
        The method; times of discrete ones are whole.
    rates
        η (λ + δ) along the eigenvectors. They set the range of times.
    most
        The latest time; unless given, the end of training.

    Raises
    ------
    ValueError
        If the latest time is not positive, or a loss is not a number.
    """
    if most is not None and not 0 < most < np.inf:
        msg = f"the latest time is a positive number, got {most}"
        raise ValueError(msg)
    rates = np.asarray(rates, float)
    rates = rates[rates > len(rates) * np.finfo(float).eps * rates.max(initial=0)]
    slow = (rates.min() if len(rates) else 1.0) / 40
    last = (1 / slow) if most is None else most
    first = min(1e-3 / rates.max(initial=1e-3 / last), last)
    times = np.concatenate([[0.0], np.geomspace(first, last, POINTS)])
    if most is None:
        times = np.append(times, np.inf)

    def evaluate(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        times = np.round(times) if chosen.discrete else times
        found = np.asarray(losses(times), float)
        if np.any(np.isnan(found)):
            msg = "the loss is not a number at some times"
            raise ValueError(msg)
        return times, found

    def joined(*parts: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """In the order of times, each once."""
        times, found = (np.concatenate(p) for p in zip(*parts))
        times, place = np.unique(times, return_index=True)
        return times, found[place]

    times, found = joined(evaluate(times))
    begin, end = found[0], found[-1]
    for _ in range(ROUNDS):
        best = int(np.argmin(found))
        low, high = times[max(best - 1, 0)], times[min(best + 1, len(times) - 1)]
        if not np.isfinite(high):
            high = times[best] if np.isfinite(times[best]) else times[max(best - 1, 0)]
        times, found = joined((times, found), evaluate(np.linspace(low, high, ZOOM)))
    best = int(np.argmin(found))
    return BestTime(float(times[best]), float(found[best]), float(begin), float(end))
