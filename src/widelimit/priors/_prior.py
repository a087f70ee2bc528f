"""The prior of one parameter array: the two numbers that the limit depends on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prior:
    """Independent, identically distributed entries with a mean and a standard deviation.

    The limit depends on the distribution only through these two numbers wherever the array is
    contracted over a wide axis. Where it is not (biases, elementwise scales, weights that act on
    finitely many inputs), the entries are taken to be Gaussian.

    Attributes
    ----------
    mean
        The mean of every entry; a number or a scalar array.
    std
        The standard deviation of every entry, at least 0. A ``std`` that is the Python number 0
        marks a constant, such as the scale of a LayerNorm at initialisation.
    distribution
        The name of the distribution the numbers were read from, for reports.
    """

    mean: Any = 0.0
    std: Any = 1.0
    distribution: str = field(default="normal", metadata={"static": True})

    @classmethod
    def normal(cls, std: Any = 1.0, mean: Any = 0.0) -> Prior:
        """Gaussian entries with the given standard deviation and mean."""
        return cls(mean, std, "normal")

    @classmethod
    def uniform(cls, low: float, high: float) -> Prior:
        """Entries uniform on [low, high]: mean (low + high)/2, std (high - low)/sqrt(12)."""
        return cls((low + high) / 2, (high - low) / math.sqrt(12), "uniform")

    @classmethod
    def constant(cls, value: Any = 0.0) -> Prior:
        """Entries that all equal ``value``: nothing random, though still trainable."""
        return cls(value, 0.0, "constant")


STANDARD_NORMAL = Prior()

FIXED: Literal["fixed"] = "fixed"
"""In place of a prior: the array is a table, known as it is, neither random nor trained."""


def as_prior(value: Any) -> Prior | Literal["fixed"] | None:
    """A Prior, a number as the standard deviation, or "fixed"; None for anything else.

    Raises ``ValueError`` for a negative number.
    """
    if isinstance(value, Prior):
        return value
    if isinstance(value, str) and value == FIXED:
        return FIXED
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float | np.number):
        if value < 0:
            msg = f"a standard deviation is at least 0, got {value}"
            raise ValueError(msg)
        return Prior(std=float(value)) if value else Prior.constant(0.0)
    if isinstance(value, jax.Array | np.ndarray) and value.shape == ():
        return Prior(std=value)
    return None
