"""Exact predictions: Bayesian inference, and gradient flow under the NTK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import PyTree

from widelimit.kernel import Kernel
from widelimit.predict import _checks
from widelimit.predict._bayes import Bayes
from widelimit.predict._noise import noise_variance
from widelimit.predict._prior import Covariance, InverseGamma, Mean, check_scale
from widelimit.predict._process import Kind, Posterior
from widelimit.predict._student import StudentPosterior
from widelimit.predict._system import System
from widelimit.predict._trained import Trained


def posterior(
    kernel: Kernel,
    x: PyTree,
    y: ArrayLike,
    *,
    noise: ArrayLike = 0.0,
    kind: Kind = "nngp",
    mean: float | Callable[[PyTree], Any] = 0.0,
    scale: float = 1.0,
    prior: InverseGamma | None = None,
) -> Posterior | StudentPosterior:
    r"""What an infinitely wide network predicts after seeing data, exactly.

    With K the NNGP and T the NTK of the training inputs, and a star for the inputs to predict:

    ``kind="nngp"``, the posterior of a Bayesian network under Gaussian noise
    :math:`\Sigma = \sigma^2 I`,

    .. math:: m = K_* (K + \Sigma)^{-1} y, \qquad
              C = K_{**} - K_* (K + \Sigma)^{-1} K_*^\top

    ``kind="ntkgp"``, the same with T in place of K: the Gaussian process whose prior covariance
    is the NTK.

    ``kind="ntk"``, networks drawn from the prior and trained by gradient flow on the squared
    loss until convergence, all layers moving; mean and covariance over the draws are, with
    :math:`A = T_* (T + \Sigma)^{-1}`,

    .. math:: m = A y, \qquad C = K_{**} + A K A^\top - A K_*^\top - K_* A^\top

    Parameters
    ----------
    kernel
        Of a network whose output is one scalar per channel.
    x
        Training inputs, shape (n, *shape), or a pytree of them.
    y
        Targets, shape (n,) or (n, outputs). Outputs are independent and share the kernel; their
        number need not be the network's number of channels.
    noise
        :math:`\sigma^2 \ge 0`: one number, or shape (n,) for one of each row, (1, outputs) for
        one of each output, (n, outputs) for both. With several columns each output has its own
        covariance. For ``"ntk"`` a ridge: training minimises
        :math:`\sum_i |f(x_i) - y_i|^2 / \sigma_i^2 + |\theta - \theta_0|^2`, which keeps the
        parameters near their initial values; it is not a noise of the targets.
    kind
        ``"nngp"``, ``"ntkgp"`` or ``"ntk"``.
    mean
        The prior mean: a number, or a function of inputs with values of shape (n,) or
        (n, outputs). The network is the rest: it is subtracted from y and added to predictions.
    scale
        Multiplies K and T; the variance of a factor in front of the network.
    prior
        A distribution of a further scale s of K, T and the noise, the same for all outputs, which
        turns the Gaussian process into a Student-t process.

    Returns
    -------
    Posterior
        Or a :class:`StudentPosterior`, where ``prior`` is given.

    Raises
    ------
    ValueError
        For values that are not finite, shapes that do not agree, negative noise, several outputs
        or outputs with positions.
    NotGaussianError
        If the network's output is not a centred Gaussian process in the limit.

    Warns
    -----
    PrecisionWarning
        If the Gram matrix is too ill-conditioned for the dtype of the inputs.

    Notes
    -----
    Lee et al., Deep neural networks as Gaussian processes, 2018; Lee et al., Wide neural networks
    of any depth evolve as linear models under gradient descent, 2019, equations 14 to 16; Lee,
    Yun, Yang, Lee, Scale mixtures of neural network Gaussian processes, 2022. Where Cholesky's
    method fails the smallest power of ten that helps is added to the diagonal, and recorded as
    ``jitter``. Computes in the dtype of the inputs.
    """
    if kind not in ("nngp", "ntk", "ntkgp"):
        msg = f"kind is 'nngp', 'ntkgp' or 'ntk', got {kind!r}"
        raise ValueError(msg)
    if not (prior is None or isinstance(prior, InverseGamma)):
        msg = f"prior is an InverseGamma or None, got {prior!r}"
        raise ValueError(msg)
    x = jax.tree.map(jnp.asarray, x)
    _checks.require_gaussian_output(kernel, x)
    covariance = Covariance(kernel, "ntk" if kind == "ntkgp" else "nngp", check_scale(scale))
    if kind == "ntk":
        nngp, gram = covariance.both(x)
    else:
        nngp = gram = covariance.matrix(x)
    y = _checks.targets(y, gram.shape[0], gram.dtype)
    noise = noise_variance(noise, y.shape[0], 1 if y.ndim == 1 else y.shape[1], gram.dtype)
    system = System.of(gram, noise, consume=kind != "ntk")
    given = (kind, covariance, Mean(mean), x, y, system)
    out = Trained(*given, nngp=nngp) if kind == "ntk" else Bayes(*given)
    return out if prior is None else StudentPosterior(out, prior)
