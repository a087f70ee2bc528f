"""Classification with an infinitely wide network."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from widelimit import predict
from widelimit.estimators._base import WideEstimator, distinct, positive_weights
from widelimit.precision import double_precision

_SCALE_SPREAD = 1.0
"""How far from the evidence's the link may move the scale of the prior, on the log scale."""


class WideClassifier(ClassifierMixin, WideEstimator):
    r"""Classification by exact regression on indicator targets, with a calibrated link.

    One centred indicator per class is regressed as in :class:`WideRegressor`; the link from the
    Gaussian scores to class probabilities (see :func:`widelimit.predict.class_probabilities`)
    has two numbers, fitted to leave-one-out predictions, which cost no data. A share of 1 / (n + 2)
    of equal probabilities is mixed in: after n rows that were all predicted rightly, that is the
    chance of an error in the next (Laplace's rule of succession). The parameters are those of
    :class:`WideRegressor`, with the noise in units of the indicators' mean variance.

    Attributes
    ----------
    classes_
        The classes, sorted.
    link_
        The fitted :class:`widelimit.predict.Link`; None for a single class.
    noise_, scales_, input_scales_, log_marginal_likelihood_
        As in :class:`WideRegressor`.

    Notes
    -----
    Lee et al., Deep neural networks as Gaussian processes, 2018, regress on indicators too. The
    link integrates over the scores, so that far from the data probabilities tend to equal ones.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn the hyper-parameters, condition on the data, and fit the link.

        Parameters
        ----------
        X
            Features, shape (n, d); a data frame's column names are kept.
        y
            Class labels, shape (n,), numbers or text.
        sample_weight
            Shape (n,); rows of weight 0 are left out.

        Raises
        ------
        ValueError
            For features that are not finite, missing labels, continuous targets, too many rows,
            or parameters that make no sense.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        weights = positive_weights(sample_weight, X)
        self.classes_, labels = np.unique(y[weights > 0], return_inverse=True)
        X, labels, weights = distinct(X[weights > 0], labels, weights[weights > 0])
        labels = labels[:, 0].astype(int)
        indicators = np.eye(len(self.classes_))[labels]
        self._shares = np.average(indicators, axis=0, weights=weights)
        self._size = float(np.sqrt(np.mean(self._shares * (1 - self._shares)))) or 1.0
        self._condition(X, (indicators - self._shares) / self._size, weights)
        self.link_ = None
        if len(self.classes_) > 1:
            scores = self._scores(*self._process.leave_one_out())
            with double_precision():
                self.link_ = predict.fit_link(
                    *scores, labels, weights=weights, lapse=float(1 / (weights.sum() + 2)),
                    scale_spread=_SCALE_SPREAD,
                )
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, shape (m,)."""
        best = np.argmax(self.predict_proba(X), axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, shape (m, classes), in the order of ``classes_``."""
        x = self._features(X)
        if self.link_ is None:
            return np.ones((len(x), 1))
        scores = self._scores(self._process.mean(x), self._process.variance(x))
        with double_precision():
            return np.asarray(self.link_(*scores))

    def _scores(self, mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and variances of the class scores, in units of indicators."""
        return mean * self._size + self._shares, variance * self._size**2
