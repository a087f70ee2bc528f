"""Kernel regression with both limits of a network, by ridge and by early stopping."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from data import Draw
from descent import accuracy
from networks import network

import widelimit as wl

RIDGES = (0.0, *np.logspace(-6, 1, 22))
"""Tried ridges, as shares of the mean of the diagonal."""
NOTHING = 1e-9
"""Added to the diagonal always, as a share of its mean: kernels are in single precision."""
TIMES = np.logspace(-1, 7, 33)
"""Tried times of gradient flow, in units of one over the largest eigenvalue."""


class Grams(NamedTuple):
    """k(train, train) and k(validation and test, train), in double precision."""

    square: np.ndarray
    cross: np.ndarray


def grams(name: str, draw: Draw) -> dict[str, Grams]:
    """The two limits of a network on a draw."""
    kernel = wl.kernel(network(name, "ntk", jax.random.key(0)))
    other = np.concatenate([draw.validation.x, draw.test.x])
    square, cross = kernel.both(draw.train.x), kernel.both(other, draw.train.x)
    return {
        kind: Grams(*(np.asarray(getattr(g, kind), float) for g in (square, cross)))
        for kind in ("nngp", "ntk")
    }


class Regression:
    """Kernel regression on a draw, for all ridges and times by one eigendecomposition."""

    def __init__(self, gram: Grams, draw: Draw) -> None:
        self.draw, self.cross = draw, gram.cross
        self.values, self.vectors = np.linalg.eigh(gram.square)
        self.values = np.maximum(self.values, 0) + NOTHING * np.mean(np.diag(gram.square))
        self.projected = self.vectors.T @ draw.train.y.astype(float)

    def outputs(self, filters: np.ndarray) -> np.ndarray:
        """For weights of the eigenvectors, over the eigenvalue, shape (n,)."""
        return self.cross @ (self.vectors @ (filters[:, None] * self.projected))

    def ridge(self, share: float) -> np.ndarray:
        """Outputs with a ridge, for validation and test images."""
        return self.outputs(1 / (self.values + share * np.mean(self.values)))

    def flow(self, time: float) -> np.ndarray:
        """Outputs of gradient flow from zero, on the sum of squares over two."""
        return self.outputs(-np.expm1(-time * self.values) / self.values)

    def scored(self, outputs: np.ndarray) -> tuple[float, float]:
        """Accuracy for the validation and the test images."""
        count = len(self.draw.validation.x)
        return (accuracy(outputs[:count], self.draw.validation.labels),
                accuracy(outputs[count:], self.draw.test.labels))

    def chosen(self, filters: dict[float, np.ndarray]) -> tuple[float, float, float]:
        """The setting of the best validation accuracy, with both accuracies."""
        scores = {setting: self.scored(out) for setting, out in filters.items()}
        best = max(scores, key=lambda s: scores[s][0])
        return (best, *scores[best])


def rows(draw: Draw, found: dict[str, Grams]) -> list[dict[str, Any]]:
    """Accuracies of both kernels: as they are, with the best ridge, at the best time."""
    out = []
    for kind, gram in found.items():
        r = Regression(gram, draw)
        settings = {
            "ridgeless": {0.0: r.ridge(0.0)},
            "ridge": {share: r.ridge(share) for share in RIDGES},
            "stopped": {t: r.flow(t / r.values[-1]) for t in TIMES},
        }
        for how, filters in settings.items():
            setting, validation, score = r.chosen(filters)
            out.append({"method": f"{kind.upper()}, {how}", "setting": setting,
                        "validation": validation, "score": score})
    return out
