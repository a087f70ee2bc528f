"""LeNet-5."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from widelimit.nn._layers import Sequential
from widelimit.nn._spatial import AvgPool, flatten
from widelimit.nn.zoo._make import Make


def lenet(
    in_shape: Sequence[int],
    out_features: int,
    width: int,
    *,
    activation: Callable = jnp.tanh,
    key: jax.Array,
    **options,
) -> Sequential:
    """Two 5 × 5 convolutions with average pooling, and three dense layers.

    The sizes are those of LeNet-5 at ``width=6``: 6 and 16 channels, 120 and 84 units. The first
    convolution keeps the size of the image, the second has no padding.

    Parameters
    ----------
    in_shape
        (height, width, channels) of the images; (28, 28, 1) in the paper.
    out_features, width
        The number of outputs, and of channels after the first convolution.
    activation
        Applied after every layer but the last.
    options
        ``parameterization``, ``weight_std`` and ``bias_std`` of every layer, as for
        :class:`widelimit.nn.Linear`.
    key
        A random key for the initial values.

    Raises
    ------
    ValueError
        If the images are smaller than 12 × 12.

    Notes
    -----
    LeCun et al., Gradient-based learning applied to document recognition, 1998, section II.B.
    """
    *space, channels = in_shape
    if min(space) < 12:
        msg = f"the images are at least 12 × 12, got {in_shape}"
        raise ValueError(msg)
    positions = [(s // 2 - 4) // 2 for s in space]
    second, third, fourth = 16 * width // 6, 20 * width, 14 * width
    make = Make(key, **options)
    return Sequential([
        make.conv(channels, width, 5), activation, AvgPool((2, 2)),
        make.conv(width, second, 5, padding="VALID"), activation, AvgPool((2, 2)),
        flatten,
        make.linear(positions[0] * positions[1] * second, third), activation,
        make.linear(third, fourth), activation,
        make.linear(fourth, out_features),
    ])
