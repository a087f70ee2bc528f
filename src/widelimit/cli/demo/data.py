"""Handwritten digits that come with scikit-learn, split and scaled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits


class Digits(NamedTuple):
    """Images of 8 by 8 pixels, flattened.

    Attributes
    ----------
    x_train, x_test
        Shape (n, 64), less the mean training image, scaled so that pixels have mean square 1.
    y_train
        One-hot targets less 1/10, shape (n, 10), so that they sum to 0.
    labels_train, labels_test
        The digits.
    images_test
        Pixels from 0 to 16 as scanned, shape (m, 8, 8).
    """

    x_train: np.ndarray
    x_test: np.ndarray
    y_train: np.ndarray
    labels_train: np.ndarray
    labels_test: np.ndarray
    images_test: np.ndarray


def digits(n_train: int, n_test: int, seed: int) -> Digits:
    """A random split; centring and scale come from the training images alone."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(pixels))[: n_train + n_test]
    pixels, labels = pixels[order], labels[order]
    x = pixels - pixels[:n_train].mean(0)
    x = x / np.sqrt(np.mean(x[:n_train] ** 2))
    return Digits(
        x[:n_train],
        x[n_train:],
        np.eye(10)[labels[:n_train]] - 0.1,
        labels[:n_train],
        labels[n_train:],
        pixels[n_train:].reshape(-1, 8, 8),
    )
