"""Log densities of Gaussian and Student-t vectors from their quadratic form and determinant."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

_LOG_2PI = math.log(2 * math.pi)


def gaussian(quadratic: Array, half_log_determinant: Array, count: int) -> Float[Array, ...]:
    r""":math:`-\frac12 Q - \frac12 \log|M| - \frac N2 \log 2\pi` of N numbers."""
    return -0.5 * quadratic - half_log_determinant - 0.5 * count * _LOG_2PI


def repeats(
    noise: Float[Array, " n"], counts: Float[Array, " n"], outputs: int
) -> Float[Array, ""]:
    r"""What w equal observations add to the log density of one with noise variance σ² / w.

    .. math:: -\frac{\text{outputs}}{2} \sum_i \big[(w_i - 1) \log(2\pi\sigma_i^2) + \log w_i\big]

    It holds for w that are no whole numbers too, as the likelihood to the power of w.
    """
    # Rows that count once add nothing, without noise too.
    known = jnp.where(counts == 1, 1, noise)
    each = (counts - 1) * (_LOG_2PI + jnp.log(known)) + jnp.log(counts)
    return -0.5 * outputs * jnp.sum(each)


def student(
    quadratic: Array, half_log_determinant: Array, count: int, shape: float, scale: Array | float
) -> Float[Array, ...]:
    r"""The density of :func:`gaussian` with M multiplied by a scale from IG(a, b), integrated.

    .. math:: \log\frac{\Gamma(a + N/2)}{\Gamma(a)} - a \log\Big(1 + \frac{Q}{2b}\Big)
              - \frac N2 \log\Big(b + \frac Q2\Big) - \frac12 \log|M| - \frac N2 \log 2\pi

    A multivariate t distribution with 2a degrees of freedom and shape matrix (b/a) M.
    """
    gammas = math.lgamma(shape + 0.5 * count) - math.lgamma(shape)
    tails = shape * jnp.log1p(0.5 * quadratic / scale)
    size = 0.5 * count * jnp.log(scale + 0.5 * quadratic)
    return gammas - tails - size - half_log_determinant - 0.5 * count * _LOG_2PI
