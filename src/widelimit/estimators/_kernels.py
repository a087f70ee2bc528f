"""A network's limit as a kernel object of scikit-learn."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel

from widelimit.estimators._recipe import network_kernel
from widelimit.precision import double_precision


class NetworkKernel(Kernel):
    r"""The kernel :math:`a\,k(x, x')` of a network, for ``GaussianProcessRegressor`` and ``SVC``.

    Parameters
    ----------
    network, kind, scales
        As in :class:`WideRegressor`; features are taken as they are.
    variance
        The factor a.
    variance_bounds
        The range that scikit-learn's optimiser searches, or ``"fixed"``.

    Examples
    --------
    >>> from sklearn.svm import SVC
    >>> from widelimit.estimators import NetworkKernel
    >>> SVC(kernel=NetworkKernel("relu x 2")).fit([[0.0], [1.0], [3.0]], [0, 0, 1]).predict([[4.0]])
    array([1])
    """

    def __init__(
        self,
        network: Any = "relu x 3",
        *,
        kind: str = "nngp",
        scales: dict[str, float] | None = None,
        variance: float = 1.0,
        variance_bounds: Any = (1e-5, 1e5),
    ) -> None:
        self.network = network
        self.kind = kind
        self.scales = scales
        self.variance = variance
        self.variance_bounds = variance_bounds

    @property
    def hyperparameter_variance(self) -> Hyperparameter:
        """What scikit-learn may optimise."""
        return Hyperparameter("variance", "numeric", self.variance_bounds)

    def __call__(self, X: Any, Y: Any = None, eval_gradient: bool = False) -> Any:
        """The kernel between rows, shape (n, m), and its derivative in log a, shape (n, n, 1)."""
        if Y is not None and eval_gradient:
            msg = "the gradient is defined for Y=None only"
            raise ValueError(msg)
        X = np.atleast_2d(np.asarray(X, np.float64))
        with double_precision():
            read = self._read(X.shape[1])
            other = None if Y is None else jnp.atleast_2d(jnp.asarray(Y, jnp.float64))
            gram = self.variance * np.asarray(read(jnp.asarray(X), other))
        gram = gram.reshape(gram.shape[:2])
        if not eval_gradient:
            return gram
        fixed = self.hyperparameter_variance.fixed
        return gram, np.empty((*gram.shape, 0)) if fixed else gram[:, :, np.newaxis]

    def diag(self, X: Any) -> np.ndarray:
        """The kernel of each row with itself, shape (n,)."""
        X = np.atleast_2d(np.asarray(X, np.float64))
        with double_precision():
            one = self._read(X.shape[1], diagonal=True)
            return self.variance * np.asarray(one(jnp.asarray(X))).reshape(len(X))

    def is_stationary(self) -> bool:
        """Network kernels are not functions of differences."""
        return False

    def __repr__(self) -> str:
        return f"{self.variance:.3g} * NetworkKernel({self.network!r}, kind={self.kind!r})"

    def _read(self, features: int, *, diagonal: bool = False) -> Any:
        if self.kind not in ("nngp", "ntk"):
            msg = f"kind is 'nngp' or 'ntk', got {self.kind!r}"
            raise ValueError(msg)
        kernel = network_kernel(self.network, features).with_stds(self.scales or {})
        return getattr(kernel, f"{self.kind}_diagonal" if diagonal else self.kind)
