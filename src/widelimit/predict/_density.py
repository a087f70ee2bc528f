"""Log densities of Gaussian and Student-t vectors from their quadratic form and determinant."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

_LOG_2PI = math.log(2 * math.pi)


def gaussian(quadratic: Array, half_log_determinant: Array, count: int) -> Float[Array, ...]:
    r""":math:`-\frac12 Q - \frac12 \log|M| - \frac N2 \log 2\pi` of N numbers."""
    return -0.5 * quadratic - half_log_determinant - 0.5 * count * _LOG_2PI


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
