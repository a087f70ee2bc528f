"""Searching for the largest value within bounds, from several starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

_SPREAD = 1.0
"""Standard deviation of the logarithms of further starts."""

Slope = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Bounds:
    """How far from the start hyper-parameters may move: the smallest and the largest factor.

    Attributes
    ----------
    stds, noise, input_scales, output_scale
        Pairs of positive numbers, the first at most 1 and the second at least 1.

    Raises
    ------
    ValueError
        If they are anything else.
    """

    stds: tuple[float, float] = (1e-2, 1e2)
    noise: tuple[float, float] = (1e-6, 1e3)
    input_scales: tuple[float, float] = (1e-3, 1e3)
    output_scale: tuple[float, float] = (1e-4, 1e4)

    def __post_init__(self) -> None:
        for name in ("stds", "noise", "input_scales", "output_scale"):
            low, high = getattr(self, name)
            if not (0 < low <= 1 <= high < np.inf):
                msg = f"bounds of {name} are factors around the start, got {(low, high)}"
                raise ValueError(msg)


class Found(NamedTuple):
    """The best end of a search; history holds the value at the start and after each step."""

    point: np.ndarray
    value: float
    history: np.ndarray
    converged: bool


def search(
    slope: Slope,
    starts: np.ndarray,
    limits: tuple[np.ndarray, np.ndarray],
    count: float,
    steps: int,
    progress: Callable[[int, float], Any] | None,
    tolerance: float = 1e-9,
) -> Found:
    """Maximise from each of the starts, shape (starts, k); ``count`` is the number of targets.

    Raises
    ------
    ValueError
        If the objective, or its gradient, is not finite at any start.
    """
    done = 0
    best: Found | None = None
    for start in starts:

        def advance(value: float) -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, value)

        found = _one(slope, start, limits, count, steps, tolerance, advance)
        if found is not None and (best is None or found.value > best.value):
            best = found
    if best is None:
        some = "the start" if len(starts) == 1 else f"any of {len(starts)} starts"
        msg = (
            f"the objective is not finite at {some}: the Gram matrix plus noise could not be "
            "factored, or its gradient overflows; start from a larger noise, or use float64 "
            "inputs (with jax_enable_x64)"
        )
        raise ValueError(msg)
    return best


def further_starts(
    start: np.ndarray, limits: tuple[np.ndarray, np.ndarray], restarts: int, seed: int
) -> np.ndarray:
    """The start and points drawn around it, shape (1 + restarts, k)."""
    drawn = np.random.default_rng(seed).normal(start, _SPREAD, (restarts, len(start)))
    return np.concatenate([start[None], np.clip(drawn, *limits)])


def _one(
    slope: Slope,
    start: np.ndarray,
    limits: tuple[np.ndarray, np.ndarray],
    count: float,
    steps: int,
    tolerance: float,
    advance: Callable[[float], None],
) -> Found | None:
    """One search; None if it cannot begin."""
    from scipy.optimize import minimize  # slow to import

    worst = -np.inf
    at_start: list[float] = []

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal worst
        value, gradient = slope(point)
        if not (np.isfinite(value) and np.all(np.isfinite(gradient))):
            # Worse than anything seen, and finite, so that the line search turns back.
            return worst + 10 * (1 + abs(worst)), np.zeros_like(point)
        worst = max(worst, -value / count)
        at_start.append(value)
        return -value / count, -gradient / count

    loss(start)
    if not at_start:
        return None
    history = [at_start[0]]

    def step(intermediate_result: Any) -> None:
        history.append(-count * float(intermediate_result.fun))
        advance(history[-1])

    result = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=list(zip(*limits)), callback=step,
        options={"maxiter": steps, "gtol": max(tolerance, 1e-6), "ftol": tolerance},
    )  # fmt: skip
    return Found(result.x, -count * float(result.fun), np.asarray(history), bool(result.success))
