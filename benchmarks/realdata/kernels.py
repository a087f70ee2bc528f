"""Kernel regression with the ridge chosen by leave-one-out, for all tasks alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

RIDGES = np.logspace(-6, 1, 29)
"""Tried ridges, as shares of the mean of the diagonal."""


def predictions(k: np.ndarray, cross: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Predictions at the test points, from k(train, train) and k(test, train).

    The ridge has the least squared error of leave-one-out, which the eigenvectors give for all
    ridges at once.
    """
    k = np.asarray(k, float)
    values, vectors = np.linalg.eigh(k)
    values = np.maximum(values, 0)
    projected = vectors.T @ y
    best = (np.inf, y)
    for share in RIDGES:
        ridge = share * np.mean(np.diag(k))
        weights = vectors @ (projected / (values + ridge)[:, None])
        inverse = np.sum(vectors**2 / (values + ridge), axis=1)
        error = float(np.mean((weights / inverse[:, None]) ** 2))
        if error < best[0]:
            best = (error, weights)
    return np.asarray(cross, float) @ best[1]


def both(kernel: Any, train: Any, test: Any, y: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
    """Predictions of a network's two kernels, and the seconds that the kernels took."""
    begun = time.perf_counter()
    squares, crosses = kernel.both(train), kernel.both(test, train)
    grams = {
        kind: (np.asarray(getattr(squares, kind)), np.asarray(getattr(crosses, kind)))
        for kind in ("nngp", "ntk")
    }
    seconds = time.perf_counter() - begun
    return {kind: predictions(k, c, y) for kind, (k, c) in grams.items()}, seconds


class Classes(NamedTuple):
    """One draw of examples with classes: what names its results, and the classes."""

    base: dict[str, Any]
    train: np.ndarray
    test: np.ndarray
    count: int
    done: Callable[[dict[str, Any], str], bool]

    def result(self, method: str, out: np.ndarray, seconds: float) -> dict[str, Any]:
        """The accuracy of outputs, one column for each class."""
        score = float(np.mean(np.argmax(out, 1) == self.test))
        return {**self.base, "method": method, "score": score, "seconds": seconds}

    def of_kernel(self, name: str, kernel: Any, x: Any, x_test: Any) -> Iterator[dict[str, Any]]:
        """Both kernels of a network, unless they are there."""
        if self.done(self.base, f"{name}, NTK"):
            return
        found, seconds = both(kernel, x, x_test, one_hot(self.train, self.count))
        for kind, out in found.items():
            yield self.result(f"{name}, {kind.upper()}", out, seconds)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Targets of regression for classes: zero-mean columns."""
    return np.eye(classes)[labels] - 1 / classes
