"""ConvNeXt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax

from widelimit.nn._layers import Residual, Sequential
from widelimit.nn._spatial import global_average
from widelimit.nn.zoo._make import Make


def convnext(
    in_channels: int,
    out_features: int,
    width: int,
    *,
    depths: Sequence[int] = (3, 3, 9, 3),
    patch: int = 4,
    window: int = 7,
    activation: Callable = jax.nn.gelu,
    key: jax.Array,
    **options,
) -> Sequential:
    r"""ConvNeXt: patches, stages of residual blocks, and a dense layer of the pooled features.

    .. math:: x \leftarrow x + D_2\, \phi\big(D_1\, \text{LayerNorm}(C_\text{depthwise} * x)\big)

    with dense layers to four times the channels and back. Stages double the channels and halve
    the image by a 2 × 2 convolution after a normalisation. Layer scale and drop path are left
    out.

    Parameters
    ----------
    in_channels, out_features, width
        Channels of the image, outputs, and channels of the first stage.
    depths
        The number of blocks in each stage; (3, 3, 9, 3) is ConvNeXt-T at ``width=96``.
    patch, window
        Sizes of the patches and of the depthwise convolutions.
    activation
        The activation of the blocks.
    options
        ``parameterization``, ``weight_std`` and ``bias_std`` of every layer, as for
        :class:`widelimit.nn.Linear`.
    key
        A random key for the initial values.

    Notes
    -----
    Liu et al., A ConvNet for the 2020s, 2022 (arXiv:2201.03545), figure 4.
    """
    make = Make(key, **options)

    def block(n: int) -> Residual:
        return Residual(Sequential([
            make.conv(n, n, window, groups=n), make.norm(n),
            make.linear(n, 4 * n), activation, make.linear(4 * n, n),
        ]))

    layers: list[Callable] = [
        make.conv(in_channels, width, patch, patch, padding="VALID"), make.norm(width),
    ]
    for stage, depth in enumerate(depths):
        if stage:
            layers += [make.norm(width), make.conv(width, 2 * width, 2, 2, padding="VALID")]
            width *= 2
        layers += [block(width) for _ in range(depth)]
    return Sequential([
        *layers, global_average, make.norm(width), make.linear(width, out_features),
    ])
