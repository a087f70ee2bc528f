"""Regression with an infinitely wide network."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import validate_data

from widelimit.estimators._base import (
    WideEstimator,
    _generator,
    distinct,
    positive_weights,
)


class WideRegressor(MultiOutputMixin, RegressorMixin, WideEstimator):
    r"""Exact Bayesian regression with an infinitely wide network.

    Features and targets are standardised; the targets are the network's output plus Gaussian
    noise. With k the limit kernel with its learned scales,

    .. math:: m(x) = k_x (k + \sigma^2 I)^{-1} y, \qquad
              v(x) = k_{xx} - k_x (k + \sigma^2 I)^{-1} k_x^\top + \sigma^2

    Parameters
    ----------
    network
        A recipe like ``"relu x 3"`` (activation and number of hidden layers; also
        ``"residual relu x 4"``, ``"normalised tanh x 2"``), or your own model: an Equinox or Flax
        NNX module, a pair ``(f, params)``, or a :class:`widelimit.Kernel`. It sees one row of
        standardised features.
    kind
        The covariance: ``"nngp"``, of networks drawn from the prior, or ``"ntk"``, of all
        parameters moving a little.
    learn
        What hyper-parameters are chosen by: ``"evidence"`` (the log marginal likelihood),
        ``"leave_one_out"`` (the log density of each target given all others), or None.
    noise
        The noise variance in units of the variance of the targets; None learns it.
    scales
        Standard deviations of parameters by name (see ``scales_``): where learning starts, or
        with ``learn=None`` what is used.
    input_scales
        A factor for each feature, used together with standardisation.
    relevance
        Whether to learn a factor for each feature (automatic relevance determination);
        ``"auto"`` does if there are 16 rows to learn from for each of them.
    restarts
        Further random starting points of the search.
    max_learning_rows
        Hyper-parameters are learned from at most so many rows, drawn at random.
    random_state
        Seed of that draw and of the restarts.

    Attributes
    ----------
    noise_
        The noise variance, in units of the variance of the targets.
    scales_
        The standard deviation of each of the network's parameters, by name; for kind "ntk" also
        "output", a factor in front of the network.
    input_scales_
        The factor of each feature, shape (d,).
    log_marginal_likelihood_
        The log evidence of all standardised targets, in nats.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    Lee et al., Deep neural networks as Gaussian processes, 2018; Rasmussen and Williams, Gaussian
    processes for machine learning, 2006, chapters 2 and 5. Computes in float64, whatever JAX is
    set to. A row of weight w counts as w equal observations (its likelihood is to the power of w);
    equal rows are one row that counts more, and the order of rows does not matter. At most 20,000
    distinct rows.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn the hyper-parameters and condition on the data.

        Parameters
        ----------
        X
            Features, shape (n, d); a data frame's column names are kept.
        y
            Targets, shape (n,) or (n, outputs); outputs share the hyper-parameters.
        sample_weight
            Shape (n,); rows of weight 0 are left out.

        Raises
        ------
        ValueError
            For values that are not finite, shapes that do not agree, too many rows, or
            parameters that make no sense.
        """
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        weights = positive_weights(sample_weight, X)
        self._flat = y.ndim == 1
        X, columns, weights = distinct(X, np.asarray(y, np.float64), weights)
        self._target = StandardScaler().fit(columns, sample_weight=weights)
        self._condition(X, self._target.transform(columns), weights)
        return self

    def predict(
        self, X: Any, return_std: bool = False, return_cov: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The mean prediction, and on request the spread of new observations.

        Parameters
        ----------
        X
            Features, shape (m, d).
        return_std
            Also return standard deviations, shaped like the mean.
        return_cov
            Also return covariances, shape (m, m), with several outputs (m, m, outputs).

        Returns
        -------
        The mean, shape (m,) or (m, outputs); or a pair. Spreads include the noise.

        Raises
        ------
        ValueError
            If both spreads are asked for, or the features are not those of fitting.
        """
        if return_std and return_cov:
            msg = "return_std and return_cov cannot both be asked for"
            raise ValueError(msg)
        x = self._features(X)
        mean = self._target.inverse_transform(self._process.mean(x))
        mean = mean[:, 0] if self._flat else mean
        if not (return_std or return_cov):
            return mean
        spread = self._spread(x, full=return_cov)
        size = np.asarray(self._target.scale_)
        if return_std:
            spread = np.sqrt(spread)[:, None] * size
        else:
            spread = spread[..., None] * size**2
        return mean, spread[..., 0] if self._flat else spread

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> np.ndarray:
        """Draw new observations at X jointly, shape (m, n_samples) or (m, outputs, n_samples)."""
        x = self._features(X)
        mean, covariance = self._process.mean(x), self._spread(x, full=True)
        random = _generator(random_state)
        # The eigendecomposition also serves covariances that are singular, as without noise.
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        draws = np.stack(
            [root @ random.standard_normal((len(x), n_samples)) for _ in range(mean.shape[1])], 1
        )
        size, center = np.asarray(self._target.scale_), np.asarray(self._target.mean_)
        draws = (mean[..., None] + draws) * size[:, None] + center[:, None]
        return draws[:, 0] if self._flat else draws

    def _spread(self, x: np.ndarray, *, full: bool) -> np.ndarray:
        noise = self._numbers.noise
        if full:
            return self._process.covariance(x) + noise * np.eye(len(x))
        return self._process.variance(x) + noise
