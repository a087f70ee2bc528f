"""Residual networks of basic blocks, plain and wide, without batch normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import equinox as eqx
import jax

from widelimit.nn._layers import Residual, Sequential
from widelimit.nn._spatial import global_average
from widelimit.nn.zoo._make import Make


class Projected(eqx.Module):
    """project(φ(x)) + branch(φ(x)): a block that changes the size."""

    branch: Sequential
    project: Callable
    activation: Callable

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Apply the block to one example; ``key`` is ignored."""
        del key
        x = self.activation(x)
        return self.project(x) + self.branch(x)


def resnet(
    in_channels: int,
    out_features: int,
    width: int = 64,
    *,
    blocks: Sequence[int] = (2, 2, 2, 2),
    stem: int | None = None,
    activation: Callable = jax.nn.relu,
    key: jax.Array,
    **options,
) -> Sequential:
    r"""A residual network with the activations first, without batch normalisation.

    .. math:: x_{l+1} = x_l + W_2 * \phi\big(W_1 * \phi(x_l)\big)

    with 3 × 3 convolutions, in groups of blocks that halve the image and double the channels;
    where the size changes a 1 × 1 convolution of :math:`\phi(x_l)` stands for :math:`x_l`. The
    stem is a 3 × 3 convolution, the readout a dense layer of the mean over positions. Of the
    first residual networks, with an activation after each addition, there is no closed form.

    Parameters
    ----------
    in_channels, out_features, width
        Channels of the image, outputs, and channels of the first group.
    blocks
        The number of blocks in each group; (2, 2, 2, 2) is ResNet-18 at ``width=64``.
    stem
        Channels after the first convolution; ``width`` by default.
    activation
        The activation phi, also before the mean over positions.
    options
        ``parameterization``, ``weight_std`` and ``bias_std`` of every layer, as for
        :class:`widelimit.nn.Linear`.
    key
        A random key for the initial values.

    Notes
    -----
    He et al., Identity mappings in deep residual networks, 2016 (arXiv:1603.05027), figure 1b.
    """
    make = Make(key, **options)
    inputs = width if stem is None else stem
    layers: list[Callable] = [make.conv(in_channels, inputs)]
    for group, count in enumerate(blocks):
        outputs, strides = width << group, 2 if group else 1
        for _ in range(count):
            branch = [make.conv(inputs, outputs, strides=strides), activation,
                      make.conv(outputs, outputs)]
            if inputs == outputs and strides == 1:
                layers.append(Residual(Sequential([activation, *branch])))
            else:
                project = make.conv(inputs, outputs, 1, strides)
                layers.append(Projected(Sequential(branch), project, activation))
            inputs, strides = outputs, 1
    return Sequential([*layers, activation, global_average, make.linear(inputs, out_features)])


def wide_resnet(
    depth: int, widening: int, in_channels: int, out_features: int, **options
) -> Sequential:
    """The wide residual network WRN-depth-widening, without batch normalisation.

    It is :func:`resnet` with a stem of 16 channels and three groups of (depth - 4) / 6 blocks, of
    16, 32 and 64 times ``widening`` channels.

    Parameters
    ----------
    depth
        6 n + 4 for n blocks in each group: 10, 16, 22, 28, 40, ...
    widening
        The factor k of the paper.
    in_channels, out_features, options
        As for :func:`resnet`; ``key`` is one of them.

    Raises
    ------
    ValueError
        For a depth that is not 6 n + 4.

    Notes
    -----
    Zagoruyko and Komodakis, Wide residual networks, 2016 (arXiv:1605.07146), table 1.
    """
    count, rest = divmod(depth - 4, 6)
    if rest or count < 1:
        msg = f"depth is 6 n + 4 with n at least 1, got {depth}"
        raise ValueError(msg)
    options = {"stem": 16, "blocks": (count,) * 3, **options}
    return resnet(in_channels, out_features, 16 * widening, **options)
