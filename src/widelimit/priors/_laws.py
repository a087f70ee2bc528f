"""The law of one random entry, written as g(U) with U uniform on (0, 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import special

Map = Callable[[np.ndarray], np.ndarray]

# A probability below which mass cut off by rounding is not a truncation.
_NEGLIGIBLE = 1e-6


class Family(Protocol):
    """What is known about a distribution, apart from how it was computed."""

    @property
    def name(self) -> str:
        """The name that reports show."""
        ...

    def moments(self) -> tuple[float, float]:
        """The mean and the standard deviation."""
        ...

    def affine(self, scale: float, shift: float) -> Family:
        """The distribution of scale * X + shift."""
        ...

    def below(self, value: float) -> float:
        """P(X < value), NaN when it is unknown."""
        ...

    def support(self) -> tuple[float, float]:
        """The smallest interval known to contain every value."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Uniform between ``start`` = g(0) and ``stop`` = g(1), in either order."""

    start: float
    stop: float
    name = "uniform"

    def moments(self):
        return (self.start + self.stop) / 2, abs(self.stop - self.start) / math.sqrt(12)

    def affine(self, scale, shift):
        return Uniform(scale * self.start + shift, scale * self.stop + shift)

    def below(self, value):
        low, high = self.support()
        return float(np.clip((value - low) / (high - low), 0, 1)) if high > low else math.nan

    def support(self):
        return min(self.start, self.stop), max(self.start, self.stop)


@dataclass(frozen=True)
class Normal:
    """Gaussian with mean ``mu`` and standard deviation ``sigma``."""

    mu: float
    sigma: float
    name = "normal"

    def moments(self):
        return self.mu, self.sigma

    def affine(self, scale, shift):
        return Normal(scale * self.mu + shift, abs(scale) * self.sigma)

    def below(self, value):
        return float(special.ndtr((value - self.mu) / self.sigma)) if self.sigma > 0 else math.nan

    def support(self):
        return -math.inf, math.inf


@dataclass(frozen=True)
class Truncated:
    """mu + sigma Z with Z a standard Gaussian conditioned on low < Z < high."""

    mu: float
    sigma: float
    low: float
    high: float
    name = "truncated_normal"

    def moments(self):
        density = lambda z: math.exp(-z * z / 2) / math.sqrt(2 * math.pi) if abs(z) < 38 else 0.0
        tilt = lambda z: z * density(z) if abs(z) < 38 else 0.0
        mass = special.ndtr(self.high) - special.ndtr(self.low)
        mean = (density(self.low) - density(self.high)) / mass
        variance = 1 + (tilt(self.low) - tilt(self.high)) / mass - mean**2
        return self.mu + self.sigma * mean, abs(self.sigma) * math.sqrt(variance)

    def affine(self, scale, shift):
        low, high = (self.low, self.high) if scale >= 0 else (-self.high, -self.low)
        return Truncated(scale * self.mu + shift, abs(scale) * self.sigma, low, high)

    def below(self, value):
        if self.sigma == 0:
            return math.nan
        low, high = special.ndtr(self.low), special.ndtr(self.high)
        p = (special.ndtr((value - self.mu) / self.sigma) - low) / (high - low)
        return float(np.clip(p, 0, 1))

    def support(self):
        return self.mu + self.sigma * self.low, self.mu + self.sigma * self.high


@dataclass(frozen=True)
class Mapped:
    """Any g(U); its moments are integrals over U."""

    map: Map
    name = "function of uniform"

    def moments(self):
        mean = integrate(self.map)
        second = integrate(lambda u: (np.asarray(self.map(u), float) - mean) ** 2)
        return mean, math.sqrt(max(second, 0.0))

    def affine(self, scale, shift):
        return Mapped(lambda u: scale * np.asarray(self.map(u), float) + shift)

    def below(self, _value):
        return math.nan

    def support(self):
        return -math.inf, math.inf


@dataclass(frozen=True)
class Moments:
    """A distribution of which only the mean and the standard deviation are known."""

    mean: float
    std: float
    name: str

    def moments(self):
        return self.mean, self.std

    def affine(self, scale, shift):
        return Moments(scale * self.mean + shift, abs(scale) * self.std, self.name)

    def below(self, _value):
        return math.nan

    def support(self):
        return -math.inf, math.inf


@dataclass(frozen=True)
class Law:
    """A family and, unless only moments are known, the map g of the underlying uniform."""

    family: Family
    map: Map | None

    def affine(self, scale: float, shift: float) -> Law:
        """The law of scale * X + shift."""
        inner = self.map
        outer = None if inner is None else (lambda u: scale * inner(u) + shift)
        return Law(self.family.affine(scale, shift), outer)


BASE = Law(Uniform(0.0, 1.0), lambda u: u)


def erf_inv(law: Law, epsilon: float) -> Law | None:
    """The law of erf^-1(X) for a uniform X: a Gaussian of variance 1/2, possibly truncated.

    Ends within a few ``epsilon`` of -1 and 1 stand for -1 and 1: samplers step just inside them
    to keep their samples finite. Returns None when X is not uniform.
    """
    if not isinstance(law.family, Uniform):
        return None
    snap = lambda v: math.copysign(1.0, v) if abs(abs(v) - 1) <= 4 * epsilon else v
    start, stop = snap(law.family.start), snap(law.family.stop)
    if abs(start + stop) <= 4 * epsilon:
        stop = -start
    map_ = lambda u: special.erfinv(start + (stop - start) * u)
    low, high = (math.sqrt(2) * float(special.erfinv(v)) for v in sorted((start, stop)))
    sigma = math.sqrt(0.5)
    if math.isinf(low) and math.isinf(high):
        return Law(Normal(0.0, sigma), map_)
    return Law(Truncated(0.0, sigma, low, high), map_)


def clamp_is_idle(law: Law, bound: float, *, from_below: bool) -> bool:
    """Whether max(X, bound) (or min) changes X only with a negligible probability."""
    below = law.family.below(bound)
    return below <= _NEGLIGIBLE if from_below else below >= 1 - _NEGLIGIBLE


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_DEEPEST = 34  # 2^-40: closer to 1 the nodes would round to 1


def integrate(f: Map) -> float:
    """The integral of f over (0, 1) by adaptive Gauss-Legendre quadrature with bisection.

    Jumps and logarithmic singularities at the ends are resolved by bisecting towards them.
    Raises ``ArithmeticError`` where that does not converge.
    """
    width, total = 1 / 64, 0.0
    starts = np.arange(64) * width
    values = _panel(f, starts, width)
    scale = max(float(np.abs(values).sum()), 1e-300)
    for _ in range(_DEEPEST):
        if len(starts) > 1 << 14:
            break
        width /= 2
        halves = np.stack([starts, starts + width], axis=1).ravel()
        finer = _panel(f, halves, width)
        merged = finer.reshape(-1, 2).sum(1)
        with np.errstate(all="ignore"):
            done = np.abs(merged - values) <= 1e-14 * scale
        total += float(merged[done].sum())
        keep = np.repeat(~done, 2)
        starts, values = halves[keep], finer[keep]
        if not len(starts):
            return total
    rest = float(np.abs(values).sum())
    if not np.isfinite(total) or not rest <= 1e-7 * scale:
        msg = "the integral over the distribution does not converge"
        raise ArithmeticError(msg)
    return total + float(values.sum())


def _panel(f: Map, starts: np.ndarray, width: float) -> np.ndarray:
    u = starts[:, None] + width * _NODES
    with np.errstate(all="ignore"):
        return width * (np.broadcast_to(np.asarray(f(u), float), u.shape) @ _WEIGHTS)
