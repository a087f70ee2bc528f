"""Learning the hyper-parameters of a network's limit from data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from widelimit.kernel import Kernel
from widelimit.predict import _checks
from widelimit.predict._factor import factorize
from widelimit.predict._noise import noise_variance
from widelimit.predict._objective import Objective, Point
from widelimit.predict._prior import Covariance, Mean
from widelimit.predict._search import Bounds, Found, further_starts, search

_START_NOISE = 0.1
"""Of the mean square of the targets."""


@dataclass(frozen=True)
class Fit:
    """Hyper-parameters that were learned; see :func:`learn`.

    Attributes
    ----------
    kernel
        The kernel with the standard deviations that were found.
    noise
        The variance of the noise, for a row noise factor of 1.
    input_scales
        What features are to be multiplied by, shape (d,), or None where they were not learned.
        New inputs must be multiplied too.
    output_scale
        For ``scale`` of :func:`posterior`; 1 where it was not learned.
    value
        The objective that was reached: a log density of all targets, in nats.
    history
        The objective after each step of the best search, the start first, shape (steps + 1,).
    jitter
        What has to be added to the diagonal of the Gram matrix at the end; 0 in most cases.
    converged
        Whether the best search ended at a maximum, on the bounds or inside, rather than at the
        largest number of steps or where rounding stopped it.
    """

    kernel: Kernel
    noise: float
    input_scales: np.ndarray | None
    output_scale: float
    value: float
    history: np.ndarray
    jitter: float
    converged: bool


def learn(
    kernel: Kernel,
    x: PyTree,
    y: ArrayLike,
    *,
    noise: float | None = None,
    kind: Literal["nngp", "ntkgp"] = "nngp",
    objective: Literal["evidence", "leave_one_out"] = "evidence",
    learn_stds: bool = True,
    learn_noise: bool = True,
    input_scales: bool = False,
    output_scale: bool = False,
    row_noise_factor: ArrayLike | None = None,
    row_counts: ArrayLike | None = None,
    mean: float | Callable[[PyTree], Any] = 0.0,
    bounds: Bounds | None = None,
    restarts: int = 0,
    seed: int = 0,
    steps: int = 200,
    tolerance: float = 1e-9,
    progress: Callable[[int, float], None] | None = None,
) -> Fit:
    r"""Standard deviations, noise and scales under which the data are most likely.

    Maximises over the logarithms of all of them, by L-BFGS with gradients through the kernel,

    ``objective="evidence"``, the log density of :meth:`Posterior.log_marginal_likelihood`;

    ``objective="leave_one_out"``, the sum of the log densities of each row of targets given all
    other rows, :attr:`LeaveOneOut.log_density`. It is the more robust of the two where the network
    is a poor model of the data.

    Parameters
    ----------
    kernel
        Where the search starts. Parameters with a standard deviation of zero stay constant.
    x
        Training inputs, shape (n, *shape), or a pytree of them; float64 is recommended.
    y
        Targets, shape (n,) or (n, outputs).
    noise
        Where the search for the variance of the noise starts; by default at a tenth of the mean
        square of y less the prior mean.
    kind
        The kernel that is the prior covariance, as in :func:`posterior`.
    objective
        As above.
    learn_stds, learn_noise
        False keeps the standard deviations, or the noise, as given.
    input_scales
        Whether to learn one factor for each feature of x, an array of shape (n, d).
    output_scale
        Whether to learn a factor in front of the kernel. For ``"nngp"`` the standard deviations
        of the readout already are one; for ``"ntkgp"`` it adds a degree of freedom.
    row_noise_factor
        Shape (n,), positive: row i has noise variance ``noise * row_noise_factor[i]``.
    row_counts
        Shape (n,), positive: row i stands for so many equal observations, each with that noise;
        a sample's weight. Other than a smaller noise, equal observations are evidence for it.
    mean
        The prior mean, as in :func:`posterior`; it is not learned.
    bounds
        Factors around the start that the search keeps to; see :class:`Bounds`.
    restarts
        Further searches from points drawn around the start; the best end is returned.
    seed
        Of these draws.
    steps
        The most steps of one search.
    tolerance
        A search ends when a step improves the objective per target by less than this fraction of
        it; 1e-6 is enough for predictions.
    progress
        Called after every step with the number of steps so far and the objective.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        For bad input as in :func:`posterior`; if there is nothing to learn; if the objective is
        not finite at any start.
    NotGaussianError
        If the network's output is not a centred Gaussian process in the limit.

    Notes
    -----
    Rasmussen and Williams, Gaussian processes for machine learning, 2006, sections 5.4.1 and
    5.4.2. Few programs are compiled, as rows that count nothing fill the data up to one of few
    sizes; Gram matrices are computed in one block, so memory grows as n². Directions along which
    the kernel does not change stay open: the scales of ReLU layers multiply, and a scale of all
    features is a standard deviation of the first layer. Where the Gram matrix cannot be factored
    the search turns back; no jitter is added during the search.
    """
    _check_choices(kind, objective, restarts, steps, tolerance)
    if not (learn_stds or learn_noise or input_scales or output_scale):
        msg = "there is nothing to learn: stds, noise and scales are all kept"
        raise ValueError(msg)
    bounds = bounds or Bounds()
    x = jax.tree.map(jnp.asarray, x)
    _checks.require_gaussian_output(kernel, x)
    diagonal = Covariance(kernel, _READINGS[kind]).diagonal(x)
    y = _checks.targets(y, diagonal.shape[0], diagonal.dtype)
    y = y - Mean(mean)(x, y.shape[1:], y.dtype)
    noise = _first_noise(noise, y, diagonal, learn=learn_noise)
    row_factor = _one_per_row("row_noise_factor", row_noise_factor, y)
    counts = _one_per_row("row_counts", row_counts, y)
    reading = _READINGS[kind]
    target = Objective.filled(kernel, reading, objective, noise, x, y, row_factor, counts)
    stds = [float(s) for s in jax.tree.leaves(kernel)]
    features = np.zeros(_features(x)) if input_scales else None
    start = Point(
        [np.log(s) for s in stds] if learn_stds else None,
        np.log(noise) if learn_noise else None,
        features,
        np.zeros(()) if output_scale else None,
    )
    free = Point(
        [bounds.stds for _ in stds] if learn_stds else None,
        bounds.noise if learn_noise else None,
        None if features is None else [bounds.input_scales for _ in features],
        bounds.output_scale if output_scale else None,
    )
    start = jax.tree.map(lambda v: jnp.asarray(v, y.dtype), start)
    flat, shaped = ravel_pytree(start)
    flat = np.asarray(flat, float)
    factors = np.log(np.asarray(jax.tree.leaves(free), float).reshape(-1, 2))
    limits = (flat + factors[:, 0], flat + factors[:, 1])
    starts = further_starts(flat, limits, restarts, seed)
    targets = float(jnp.sum(counts)) * (y.size // y.shape[0])
    found = search(target.slope(start), starts, limits, targets, steps, progress, tolerance)
    point = jax.tree.map(np.asarray, shaped(jnp.asarray(found.point, y.dtype)))
    return _fit(target, x, row_factor / counts, point, found)


_READINGS = {"nngp": "nngp", "ntkgp": "ntk"}


def _fit(target: Objective, x: PyTree, row_factor: Array, point: Point, found: Found) -> Fit:
    """The end of the search in the units of the caller."""
    covariance, x, noise = target.at(point, x)
    jitter = factorize(covariance.matrix(x), noise * row_factor).jitter
    kernel = covariance.kernel
    stds = [float(s) for s in jax.tree.leaves(kernel)]
    return Fit(
        kernel=jax.tree.unflatten(jax.tree.structure(kernel), stds),
        noise=float(noise),
        input_scales=None if point.features is None else np.exp(point.features),
        output_scale=float(covariance.scale),
        value=found.value,
        history=found.history,
        jitter=jitter,
        converged=found.converged,
    )


def _check_choices(
    kind: str, objective: str, restarts: int, steps: int, tolerance: float
) -> None:
    if kind not in _READINGS:
        msg = f"kind is 'nngp' or 'ntkgp', got {kind!r}"
        if kind == "ntk":
            msg += "; trained networks give data no density, 'ntkgp' has the same mean"
        raise ValueError(msg)
    if objective not in ("evidence", "leave_one_out"):
        msg = f"objective is 'evidence' or 'leave_one_out', got {objective!r}"
        raise ValueError(msg)
    if restarts < 0 or steps < 1:
        msg = f"restarts is at least 0 and steps at least 1, got {restarts} and {steps}"
        raise ValueError(msg)
    if not 0 <= tolerance < 1:
        msg = f"the tolerance is at least 0 and below 1, got {tolerance}"
        raise ValueError(msg)


def _first_noise(noise: Any, y: Array, diagonal: Array, *, learn: bool) -> float:
    if noise is None:
        if not learn:
            msg = "learn_noise=False keeps the noise as given: give it, noise=…"
            raise ValueError(msg)
        # Targets that are all zero have no size; take that of the prior.
        size = float(jnp.mean(y**2)) or float(jnp.mean(diagonal)) or 1.0
        return _START_NOISE * size
    if jnp.ndim(noise):
        msg = (
            f"noise is one number to start from, got shape {jnp.shape(noise)}; differences "
            "between rows go into row_noise_factor"
        )
        raise ValueError(msg)
    noise = float(noise_variance(noise, y.shape[0], 1, y.dtype)[0, 0])
    if learn and noise == 0:
        msg = "noise=0 is no start for its logarithm; start above 0, or keep 0, learn_noise=False"
        raise ValueError(msg)
    return noise


def _one_per_row(name: str, given: Any, y: Array) -> Float[Array, " n"]:
    if given is None:
        return jnp.ones(y.shape[0], y.dtype)
    values = np.asarray(given, float)
    if values.shape != (y.shape[0],):
        msg = f"{name} has shape {values.shape}, expected {(y.shape[0],)}"
        raise ValueError(msg)
    if not np.all(np.isfinite(values) & (values > 0)):
        msg = f"{name} must be positive and finite; leave out rows of weight zero"
        raise ValueError(msg)
    return jnp.asarray(values, y.dtype)


def _features(x: PyTree) -> int:
    leaves = jax.tree.leaves(x)
    if len(leaves) != 1 or leaves[0].ndim != 2 or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        shapes = ", ".join(f"{leaf.dtype}{leaf.shape}" for leaf in leaves)
        msg = f"input scales need inputs that are one array of numbers (n, d), got {shapes}"
        raise ValueError(msg)
    return leaves[0].shape[1]
