"""Means over draws, extrapolation to infinite width, and the decision."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special

FALSE_ALARM = 5.7e-7
"""Two-sided probability of five standard errors, at which an entry counts as significant."""


class Moments:
    """Running mean, variance and third moment of kernel entries about a fixed centre."""

    def __init__(self, limit: np.ndarray, scale: np.ndarray) -> None:
        self.limit, self.scale = limit, scale
        self.count = 0
        self._sums = np.zeros((3, limit.size))
        self._squares: list[np.ndarray] = []

    def add(self, draws: np.ndarray) -> None:
        """Add an array of shape (draws, entries)."""
        deviation = (draws - self.limit) / self.scale
        self.count += len(deviation)
        for k in range(3):
            self._sums[k] += np.sum(deviation ** (k + 1), 0)
        self._squares.append(np.mean(deviation**2, 1))

    @property
    def mean(self) -> np.ndarray:
        """The mean deviation from the limit, in units of the scale."""
        return self._sums[0] / self.count

    @property
    def variance(self) -> np.ndarray:
        """The variance of one draw, in units of the scale."""
        spread = self._sums[1] / self.count - self.mean**2
        return np.maximum(spread, 0) * self.count / max(self.count - 1, 1)

    @property
    def skewness(self) -> np.ndarray:
        """The skewness of one draw."""
        m = self.mean
        third = self._sums[2] / self.count - 3 * m * self._sums[1] / self.count + 2 * m**3
        variance = self.variance
        rounding = variance < 1e-10
        return np.where(rounding, 0.0, third / np.where(rounding, 1.0, variance) ** 1.5)

    @property
    def standard_error(self) -> np.ndarray:
        """The standard error of the mean, in units of the scale."""
        return np.sqrt(self.variance / self.count)

    def deviation(self) -> tuple[float, float]:
        """The root mean square deviation of one draw, and its standard error."""
        squares = np.concatenate(self._squares)
        mean = float(np.mean(squares))
        rms = math.sqrt(mean)
        if rms == 0 or self.count < 2:
            return rms, math.nan
        return rms, float(np.std(squares, ddof=1)) / math.sqrt(self.count) / (2 * rms)


def natural_scale(limit: np.ndarray) -> np.ndarray:
    """sqrt(K(a, a) K(b, b)) for each entry of a kernel of shape (n, n, *positions, *positions).

    At least a tenth of its largest value: where the limit nearly cancels, finite networks do not.
    """
    n = limit.shape[0]
    positions = limit.shape[2 : 2 + (limit.ndim - 2) // 2]
    size = math.prod(positions)
    diagonal = limit[np.arange(n), np.arange(n)].reshape(n, size, size)
    own = np.abs(np.diagonal(diagonal, axis1=1, axis2=2)).reshape(n, *positions)
    rank = len(positions)
    left = own.reshape(n, 1, *positions, *(1,) * rank)
    right = own.reshape(1, n, *(1,) * rank, *positions)
    scale = np.broadcast_to(np.sqrt(left * right), limit.shape)
    top = float(np.max(scale, initial=0))
    return np.maximum(scale, 0.1 * top if top else 1.0)


@dataclass(frozen=True)
class Line:
    """A slope in log-log coordinates and its standard error."""

    slope: float
    standard_error: float


def log_slope(
    widths: list[float], values: list[float], errors: list[float]
) -> Line | None:
    """The exponent p of values ~ width ** p by weighted least squares; None for fewer than two."""
    use = [
        i for i, (v, e) in enumerate(zip(values, errors)) if v > 0 and e > 0 and math.isfinite(e)
    ]
    if len(use) < 2:
        return None
    x = np.log([widths[i] for i in use])
    y = np.log([values[i] for i in use])
    s = np.array([errors[i] / values[i] for i in use])
    design = np.stack([np.ones_like(x), x], 1) / s[:, None]
    covariance = np.linalg.inv(design.T @ design)
    slope = float((covariance @ design.T @ (y / s))[1])
    error = float(math.sqrt(covariance[1, 1]))
    if len(use) > 2:
        residual = y / s - design @ (covariance @ design.T @ (y / s))
        error *= math.sqrt(max(1.0, float(residual @ residual) / (len(use) - 2)))
    return Line(slope, error)


@dataclass(frozen=True)
class Extrapolation:
    """What is left of the deviation at infinite width, entry by entry, in units of the scale."""

    value: np.ndarray
    standard_error: np.ndarray
    critical: float
    z: np.ndarray = field(repr=False)


def extrapolate(
    inverse_widths: np.ndarray,
    means: np.ndarray,
    errors: np.ndarray,
    skewness: np.ndarray,
    counts: np.ndarray,
    *,
    biased: bool,
) -> Extrapolation:
    r"""The deviation that remains as the width goes to infinity.

    .. math::
        E[\hat K_n] - K = a + b/n + \sum_{k=2,3} c_k n^{-k}

    is fitted to each entry over the widths: a and b freely, the c_k with Gaussian priors whose
    size follows from how much the deviation changes, :math:`\beta`, from the narrowest width on:
    :math:`\beta^2 + 0.3\,\beta` and :math:`\beta^3 + 0.3\,\beta^2`. The limit is right if a = 0.

    Parameters
    ----------
    inverse_widths
        Narrowest width over width, shape (m,).
    means, errors, skewness
        Mean deviations, their standard errors, skewness of one draw, shape (m, entries).
    counts
        Numbers of draws, shape (m,).
    biased
        Whether a bias in powers of 1/n is expected; a network without hidden width has none.
    """
    x = np.asarray(inverse_widths, float)
    beta = _change(x, means, errors)
    columns, sizes = [np.ones_like(x)], [math.inf]
    if biased and len(x) > 1:
        columns.append(x)
        sizes.append(math.inf)
        for k, size in ((2, beta**2 + 0.3 * beta), (3, beta**3 + 0.3 * beta**2)):
            if size > 0:
                columns.append(x**k)
                sizes.append(size)
    design = np.stack(columns, 1)
    prior = np.diag(1 / np.array(sizes))[np.isfinite(sizes)]
    used = _usable(errors)
    value, error, skew = (np.empty(means.shape[1]) for _ in range(3))
    for e in range(means.shape[1]):
        # Least squares with the prior as further rows; the first row of (R^T R)^-1 A^T.
        rows = np.concatenate([design / used[:, e, None], prior])
        q, r = np.linalg.qr(rows)
        first = np.linalg.inv(r)[0]
        weights = (first @ q.T)[: len(x)] / used[:, e]
        value[e] = weights @ means[:, e]
        error[e] = np.linalg.norm(first)
        third = np.sum(weights**3 * skewness[:, e] * used[:, e] ** 3 / np.sqrt(counts))
        skew[e] = third / error[e] ** 3
    z = _unskewed(value / error, skew)
    freedom = float(np.min(counts)) - 1
    critical = -float(special.stdtrit(max(freedom, 1), FALSE_ALARM / 2))
    return Extrapolation(value, error, critical, z)


def _change(x: np.ndarray, means: np.ndarray, errors: np.ndarray) -> float:
    """How much the largest deviation changes between the narrowest width and infinite width."""
    first, last = int(np.argmax(x)), int(np.argmin(x))
    if x[first] == x[last]:
        return 0.0
    gap = (means[first] - means[last]) ** 2 - errors[first] ** 2 - errors[last] ** 2
    return float(np.sqrt(np.max(np.maximum(gap, 0), initial=0))) / (x[first] - x[last])


def _usable(errors: np.ndarray) -> np.ndarray:
    """Standard errors that are nowhere zero: rounding is never better than this."""
    return np.maximum(errors, 1e-7 + 1e-3 * np.max(errors, axis=1, keepdims=True))


def _unskewed(z: np.ndarray, skew: np.ndarray) -> np.ndarray:
    """Shrink studentised means on the side that skewness inflates (Johnson 1978).

    The mean of skewed draws and its estimated error are correlated: with positive skewness,
    large negative values of z are too common.
    """
    skew = np.clip(skew, -0.5, 0.5)
    inflated = z * skew < 0
    return np.where(inflated, z / (1 + np.abs(z * skew) / 3), z)


def decide(fit: Extrapolation, tolerance: float, allowance: float = 0.0) -> tuple[str, float]:
    """The verdict and the resolution: the largest error that could have gone unseen.

    ``allowance`` is a bias that cannot be told from an error, where there is one width only.
    """
    size = np.abs(fit.value)
    resolution = float(np.max(size + 2 * fit.standard_error, initial=0))
    excess = size - fit.critical * size / np.maximum(np.abs(fit.z), 1e-300)
    wrong = (np.abs(fit.z) > fit.critical) & (size > tolerance / 5) & (excess > allowance)
    if np.any(wrong):
        return "disagrees", resolution
    return ("agrees" if resolution <= tolerance else "inconclusive"), resolution


def summary(values: Any) -> tuple[float, float]:
    """Largest absolute value and root mean square."""
    values = np.asarray(values, float)
    return float(np.max(np.abs(values), initial=0)), float(np.sqrt(np.mean(values**2)))
