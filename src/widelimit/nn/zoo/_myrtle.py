"""The Myrtle networks."""

from __future__ import annotations

from collections.abc import Callable

import jax

from widelimit.nn._layers import Sequential
from widelimit.nn._spatial import AvgPool, global_average
from widelimit.nn.zoo._make import Make

BLOCKS = {5: (2, 1, 1), 7: (2, 2, 2), 10: (3, 3, 3)}


def myrtle(
    depth: int,
    in_channels: int,
    out_features: int,
    width: int,
    *,
    activation: Callable = jax.nn.relu,
    key: jax.Array,
    **options,
) -> Sequential:
    """Three blocks of 3 × 3 convolutions, halved between them, pooled and read out.

    Parameters
    ----------
    depth
        5, 7 or 10, the number of layers with weights.
    in_channels, out_features, width
        Channels of the image, outputs, and channels of every convolution. Height and width of
        the image are at least 4; on 32 × 32 the last pooling is over 8 × 8.
    activation
        Applied after every convolution.
    options
        ``parameterization``, ``weight_std`` and ``bias_std`` of every layer, as for
        :class:`widelimit.nn.Linear`.
    key
        A random key for the initial values.

    Raises
    ------
    ValueError
        For another depth.

    Notes
    -----
    Shankar et al., Neural kernels without tangents, 2020 (arXiv:2003.02237), figure 1.
    """
    if depth not in BLOCKS:
        msg = f"depth is one of {', '.join(map(str, BLOCKS))}, got {depth}"
        raise ValueError(msg)
    make = Make(key, **options)
    layers: list[Callable] = []
    channels = in_channels
    for block, count in enumerate(BLOCKS[depth]):
        layers += [AvgPool((2, 2))] if block else []
        for _ in range(count):
            layers += [make.conv(channels, width), activation]
            channels = width
    return Sequential([*layers, global_average, make.linear(width, out_features)])
