"""The Gaussian process behind the estimators: learning and exact conditioning, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit import predict
from widelimit.estimators._recipe import network_kernel
from widelimit.precision import double_precision

OUTPUT = "output"
"""The name among the scales of a factor in front of the whole network, of kind "ntk" only."""

MOST_ROWS = 20_000
START_NOISE = 0.1
_MATRICES = 4
"""Alive at once while fitting; 3.4 were measured."""
_ROWS = 2048
_ROWS_PER_FACTOR = 16
_TOLERANCE = 1e-6

_KINDS = {"nngp": "nngp", "ntk": "ntkgp"}
_OBJECTIVES = ("evidence", "leave_one_out", None)


@dataclass(frozen=True)
class Settings:
    """What the process is made of, and what of it is learned."""

    network: Any
    kind: str
    learn: str | None
    noise: float | None
    scales: dict[str, float] | None
    input_scales: Any
    relevance: bool | str
    restarts: int
    max_learning_rows: int

    def check(self) -> None:
        """Raise ``ValueError`` for settings that make no sense."""
        if self.kind not in _KINDS:
            msg = f"kind is 'nngp' or 'ntk', got {self.kind!r}"
            raise ValueError(msg)
        if self.learn not in _OBJECTIVES:
            msg = f"learn is 'evidence', 'leave_one_out' or None, got {self.learn!r}"
            raise ValueError(msg)
        if self.relevance not in (True, False, "auto"):
            msg = f"relevance is True, False or 'auto', got {self.relevance!r}"
            raise ValueError(msg)
        if self.noise is not None and not (np.isfinite(self.noise) and self.noise >= 0):
            msg = f"noise is a variance, at least 0 and finite, or None; got {self.noise}"
            raise ValueError(msg)
        if self.max_learning_rows < 2:
            msg = f"max_learning_rows is at least 2, got {self.max_learning_rows}"
            raise ValueError(msg)


@dataclass(frozen=True)
class Data:
    """Standardised rows: x of shape (n, d), y of shape (n, outputs), positive weights (n,)."""

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Numbers:
    """Every hyper-parameter as a number."""

    noise: float
    scales: dict[str, float]
    input_scales: np.ndarray


class Process:
    """A network's limit conditioned on data; all numbers are in standardised units."""

    def __init__(self, settings: Settings, numbers: Numbers, data: Data) -> None:
        self.numbers, self.data = numbers, data
        with double_precision():
            stds, output = _split(numbers.scales)
            kernel = network_kernel(settings.network, data.x.shape[1])
            self.posterior = predict.posterior(
                kernel.with_stds(stds),
                self._inputs(data.x),
                jnp.asarray(data.y),
                noise=jnp.asarray(numbers.noise / data.weights),
                kind=_KINDS[settings.kind],  # type: ignore[arg-type]
                scale=output**2,
            )

    def _inputs(self, x: np.ndarray) -> jax.Array:
        return jnp.asarray(x * self.numbers.input_scales)

    def mean(self, x: np.ndarray) -> np.ndarray:
        """The mean, shape (m, outputs)."""
        return self._by_parts(self.posterior.mean, x)

    def variance(self, x: np.ndarray) -> np.ndarray:
        """The variance of the function, shape (m,), the same for every output."""
        return self._by_parts(self.posterior.variance, x)

    def _by_parts(self, read: Callable[[jax.Array], jax.Array], x: np.ndarray) -> np.ndarray:
        """A few thousand rows at a time, so that memory does not grow with their number."""
        parts = [x[k : k + _ROWS] for k in range(0, len(x), _ROWS)]
        with double_precision():
            return np.concatenate([np.asarray(read(self._inputs(part))) for part in parts])

    def covariance(self, x: np.ndarray) -> np.ndarray:
        """The covariance of the function, shape (m, m), the same for every output."""
        with double_precision():
            return np.asarray(self.posterior.covariance(self._inputs(x)))

    def leave_one_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (n, outputs) and variance (n,) of each row's function given all other rows.

        Of a row that counts w > 1 times one count is left out, and the others stay.
        """
        with double_precision():
            out = self.posterior.leave_one_out()
        mean, variance = np.asarray(out.mean), np.asarray(out.variance)
        noise = max(self.numbers.noise, np.finfo(float).tiny)
        others = np.maximum(self.data.weights - 1, 0) / noise
        shrink = 1 / (1 + variance * others)
        toward = (variance * others * shrink)[:, None]
        return mean * shrink[:, None] + self.data.y * toward, variance * shrink

    def log_marginal_likelihood(self) -> float:
        """The log evidence of all observations, in nats."""
        with double_precision():
            evidence = float(self.posterior.log_marginal_likelihood())
        if self.numbers.noise > 0:
            repeats, log_noise = self.data.weights - 1, np.log(2 * np.pi * self.numbers.noise)
            each = repeats * log_noise + np.log(self.data.weights)
            evidence -= 0.5 * self.data.y.shape[1] * float(np.sum(each))
        return evidence


def find(settings: Settings, data: Data, random: np.random.Generator) -> Numbers:
    """The hyper-parameters: those given, and the others learned from (a part of) the data.

    Raises
    ------
    ValueError
        For settings that make no sense, or scales that do not belong to the network.
    """
    settings.check()
    count, features = data.x.shape
    given = np.ones(features) if settings.input_scales is None else np.asarray(
        settings.input_scales, float
    )
    if given.shape != (features,) or not np.all(np.isfinite(given) & (given >= 0)):
        msg = f"input_scales must be {features} numbers, finite and at least 0"
        raise ValueError(msg)
    noise = START_NOISE if settings.noise is None else float(settings.noise)
    with double_precision():
        stds, output = _split(settings.scales or {})
        kernel = network_kernel(settings.network, features).with_stds(stds)
        if settings.learn is not None:
            rows = slice(None)
            if count > settings.max_learning_rows:
                rows = np.sort(random.choice(count, settings.max_learning_rows, replace=False))
            relevance = bool(settings.relevance)
            if settings.relevance == "auto":
                relevance = len(data.x[rows]) >= _ROWS_PER_FACTOR * features
            fit = predict.learn(
                kernel,
                jnp.asarray(data.x[rows] * given),
                jnp.asarray(data.y[rows] / output),
                noise=noise / output**2,
                learn_noise=settings.noise is None,
                kind=_KINDS[settings.kind],
                objective=settings.learn,
                input_scales=relevance,
                output_scale=settings.kind == "ntk",
                # Without noise repetitions say nothing of the other numbers.
                row_counts=data.weights[rows] if noise > 0 else None,
                restarts=settings.restarts,
                tolerance=_TOLERANCE,
                seed=int(random.integers(2**31)),
            )
            kernel, noise = fit.kernel, float(fit.noise) * output**2
            output *= float(fit.output_scale) ** 0.5
            if relevance:
                given = given * np.asarray(fit.input_scales)
        scales = {name: float(prior.std) for name, prior in kernel.priors.items()}
        if settings.kind == "ntk":
            scales[OUTPUT] = output
    return Numbers(noise, scales, given)


def _split(scales: dict[str, float]) -> tuple[dict[str, float], float]:
    """Standard deviations of parameters, and the factor in front of the network."""
    return {k: v for k, v in scales.items() if k != OUTPUT}, float(scales.get(OUTPUT, 1.0))


def check_rows(count: int) -> None:
    """Refuse more rows than exact inference can hold.

    Raises
    ------
    ValueError
        Above 20,000 rows, with the memory it would take.
    """
    if count > MOST_ROWS:
        each = 8 * count**2 / 1e9
        msg = (
            f"{count} distinct rows: exact inference keeps up to {_MATRICES} matrices of {count} × "
            f"{count} float64 numbers at a time, {each:.1f} GB each and {_MATRICES * each:.0f} GB "
            f"together; at most {MOST_ROWS} rows are taken "
            f"({_MATRICES * 8 * MOST_ROWS**2 / 1e9:.0f} GB). Fit a sample of the rows"
        )
        raise ValueError(msg)
