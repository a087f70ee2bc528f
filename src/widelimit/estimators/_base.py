"""What the regressor and the classifier share."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from widelimit.estimators._process import Data, Process, Settings, check_rows, find


class WideEstimator(BaseEstimator):
    """Parameters, scaling of the features, and the process; not for direct use."""

    def __init__(
        self,
        network: Any = "relu x 3",
        *,
        kind: str = "nngp",
        learn: str | None = "evidence",
        noise: float | None = None,
        scales: dict[str, float] | None = None,
        input_scales: Any = None,
        relevance: bool | str = "auto",
        restarts: int = 1,
        max_learning_rows: int = 500,
        random_state: Any = 0,
    ) -> None:
        self.network = network
        self.kind = kind
        self.learn = learn
        self.noise = noise
        self.scales = scales
        self.input_scales = input_scales
        self.relevance = relevance
        self.restarts = restarts
        self.max_learning_rows = max_learning_rows
        self.random_state = random_state

    def frozen(self) -> Self:
        """An unfitted copy with the learned numbers given, so that fitting it learns nothing.

        Fitted to the same data it predicts the same. With a recipe for a network all of its
        parameters are plain numbers, text and lists.
        """
        check_is_fitted(self)
        return clone(self).set_params(
            learn=None,
            noise=float(self.noise_),
            scales=dict(self.scales_),
            input_scales=[float(s) for s in self.input_scales_],
            relevance=False,
        )

    @property
    def _process(self) -> Process:
        """The conditioned process; made again when the estimator comes from a pickle."""
        if self._made is None:
            self._made = Process(self._settings, self._numbers, self._data)
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        """Without compiled programs and factors, which are made again when needed."""
        state = super().__getstate__()
        if "_made" in state:
            state = {**state, "_made": None}
        return state

    def _condition(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> None:
        """Scale the features, find the hyper-parameters, and condition on the targets."""
        check_rows(len(x))
        self._scaler = StandardScaler().fit(x, sample_weight=weights)
        data = Data(self._scaler.transform(x), y, weights)
        names = [f.name for f in dataclasses.fields(Settings)]
        settings = Settings(**{name: getattr(self, name) for name in names})
        numbers = find(settings, data, _generator(self.random_state))
        process = Process(settings, numbers, data)
        self._settings, self._numbers, self._data, self._made = settings, numbers, data, process
        self.noise_ = numbers.noise
        self.scales_ = numbers.scales
        self.input_scales_ = numbers.input_scales
        self.log_marginal_likelihood_ = process.log_marginal_likelihood()

    def _features(self, x: Any) -> np.ndarray:
        """Checked and standardised features of new rows."""
        check_is_fitted(self)
        x = validate_data(self, x, reset=False, dtype=np.float64)
        return self._scaler.transform(x)


def _generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31))
    return np.random.default_rng(random_state)


def distinct(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of positive weight, in sorted order; equal ones are one row with their weights' sum.

    With weights as exponents of the likelihood this changes no result, and the result does not
    depend on the order of the rows, nor on whether they are repeated or weighted.
    """
    used = weights > 0
    x, y, weights = x[used], y[used], weights[used]
    both = np.column_stack([y, x])
    rows, which = np.unique(both, axis=0, return_inverse=True)
    width = both.shape[1] - x.shape[1]
    return rows[:, width:], rows[:, :width], np.bincount(which.ravel(), weights)


def positive_weights(sample_weight: Any, x: np.ndarray) -> np.ndarray:
    """One weight for each row.

    Raises
    ------
    ValueError
        If one is negative or not finite, or all are zero.
    """
    weights = _check_sample_weight(sample_weight, x, dtype=np.float64)
    if np.any(weights < 0) or not np.any(weights > 0):
        msg = "sample_weight must be at least 0 everywhere, and positive somewhere"
        raise ValueError(msg)
    return weights
