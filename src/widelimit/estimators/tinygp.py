"""A network's limit as a kernel of tinygp (``pip install 'widelimit[tinygp]'``)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float
from tinygp import kernels

from widelimit.kernel import Kernel
from widelimit.predict._prior import Covariance


class NetworkKernel(kernels.Kernel):
    r"""The kernel :math:`a\,k(x, x')` of a network, for ``tinygp.GaussianProcess``.

    It is a pytree of a and of the standard deviations of the network's parameters, so that
    ``jax.grad`` of a log probability is a gradient in them.

    Parameters
    ----------
    network
        A :class:`widelimit.Kernel`, as :func:`widelimit.kernel` returns it.
    kind
        The covariance: ``"nngp"`` or ``"ntk"``.
    variance
        The factor a.

    Raises
    ------
    TypeError
        If ``network`` is no :class:`widelimit.Kernel`.
    ValueError
        If ``kind`` is neither; when evaluated, if the output is not one number per input.

    Notes
    -----
    Computes in the dtype of the inputs. A sum or a product with another kernel is evaluated pair
    by pair, as tinygp does with all kernels, and costs more than a network alone.
    """

    network: Kernel
    variance: Any
    kind: str = eqx.field(static=True)

    def __init__(self, network: Kernel, *, kind: str = "nngp", variance: Any = 1.0) -> None:
        if not isinstance(network, Kernel):
            msg = f"network is what wl.kernel(model) returns, got {type(network).__name__}"
            raise TypeError(msg)
        if kind not in ("nngp", "ntk"):
            msg = f"kind is 'nngp' or 'ntk', got {kind!r}"
            raise ValueError(msg)
        self.network, self.variance, self.kind = network, variance, kind

    @property
    def _prior(self) -> Covariance:
        return Covariance(self.network, self.kind, self.variance)

    def __call__(self, X1: Array, X2: Array | None = None) -> Float[Array, "n ..."]:
        """Between the rows of X1 and X2, shape (n, m); for X2=None of each row, shape (n,)."""
        if X2 is None:
            return self._prior.diagonal(X1)
        return self._prior.matrix(X1) if X2 is X1 else self._prior.cross(X1, X2)

    def evaluate(self, X1: Array, X2: Array) -> Float[Array, ""]:
        """Of one pair of inputs."""
        return self._prior.cross(X1[None], X2[None])[0, 0]

    def evaluate_diag(self, X: Array) -> Float[Array, ""]:
        """Of one input with itself."""
        return self._prior.diagonal(X[None])[0]
