"""Fashion-MNIST at half its resolution: draws of training, validation and test images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "realdata"))

from images import FOLDER as FOLDER
from images import images

from kernels import one_hot

TRAIN, VALIDATION, TEST = 1000, 1000, 2000
CLASSES, SIZE = 10, 14
FLOOR = 0.1
"""What regularised whitening adds to the eigenvalues, as a share of their mean."""


class Part(NamedTuple):
    """Images (n, 14, 14, 1) and labels."""

    x: np.ndarray
    labels: np.ndarray

    @property
    def y(self) -> np.ndarray:
        """Targets of regression, shape (n, 10)."""
        return one_hot(self.labels, CLASSES).astype(np.float32)


class Draw(NamedTuple):
    """Images to train on, to choose by, and to report on."""

    train: Part
    validation: Part
    test: Part

    def mapped(self, change: object) -> Draw:
        """The same labels with other images."""
        return Draw(*(Part(change(p.x), p.labels) for p in self))


def draws(folder: Path, count: int) -> list[Draw]:
    """Disjoint draws, standardised by the mean and deviation of the training pixels."""
    parts = []
    for name, sizes in (("train", (TRAIN, VALIDATION)), ("t10k", (TEST,))):
        x, labels = images(folder, name)
        x = x.reshape(-1, SIZE, 2, SIZE, 2, 1).mean((2, 4))
        order = np.random.default_rng(0).permutation(len(x))
        for size in sizes:
            mine, order = np.split(order, [size * count])
            parts.append([Part(x[rows], labels[rows]) for rows in mine.reshape(count, size)])
    return [_standard(Draw(*p)) for p in zip(*parts)]


def _standard(draw: Draw) -> Draw:
    mean, scale = draw.train.x.mean(), draw.train.x.std()
    return draw.mapped(lambda x: ((x - mean) / scale).astype(np.float32))


def whitened(draw: Draw) -> Draw:
    """Regularised ZCA: directions of the training images rescaled, then pixels standardised.

    x -> U (S + c mean(S))^(-1/2) U' (x - mean), with U S U' the covariance of the training images.
    """
    flat = draw.train.x.reshape(len(draw.train.x), -1).astype(float)
    mean = flat.mean(0)
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    values = np.maximum(values, 0)
    matrix = (vectors / np.sqrt(values + FLOOR * values.mean())) @ vectors.T
    return _standard(draw.mapped(
        lambda x: ((x.reshape(len(x), -1) - mean) @ matrix).reshape(x.shape)
    ))
