"""The convolutional layer, channels last, in any number of dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from widelimit.nn._affine import Affine, Parameterization, require_sizes

Padding = str | Sequence[tuple[int, int]]
NAMED = ("SAME", "VALID", "CIRCULAR")


class Conv(Affine):
    r"""A convolution of one example of shape (\*space, channels), in one of two parameterizations.

    .. math::
        y_{p,i} = \tfrac{\sigma_w}{\sqrt{n}} \sum_{o,j} W_{o,j,i}\, x_{s p + d o, j}
        + \sigma_b b_i, \quad W_{o,j,i}, b_i \sim N(0, 1),
        \quad n = |\text{window}| \cdot \text{inputs} / \text{groups}

    with strides s, dilation d, and j over the inputs of i's group; ``"standard"`` has the scales
    in the weights, as for :class:`Linear`. The limit is that of Novak et al. 2019
    (arXiv:1810.05148) and Arora et al. 2019 (arXiv:1904.11955).

    Parameters
    ----------
    in_channels, out_channels
        Sizes of the last axis before and after.
    window
        Size in each spatial dimension; its length is their number.
    strides, dilation
        Steps between outputs, and between the entries of the window: a number for all
        dimensions, or one for each.
    padding
        ``"SAME"``, ``"VALID"``, ``"CIRCULAR"`` (as much as ``"SAME"``, from the other side), or
        a pair (before, after) for each dimension.
    groups
        Channels are mixed within this many groups only; ``groups=in_channels`` is depthwise.
    parameterization, weight_std, bias_std
        As for :class:`Linear`.
    key
        A random key for the initial values.

    Raises
    ------
    ValueError
        For sizes below 1, groups that do not divide the channels, options of the wrong length or
        name, and on a call for an input of another shape.
    """

    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    window: tuple[int, ...] = eqx.field(static=True)
    strides: tuple[int, ...] = eqx.field(static=True)
    dilation: tuple[int, ...] = eqx.field(static=True)
    padding: str | tuple[tuple[int, int], ...] = eqx.field(static=True)
    groups: int = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        window: Sequence[int] = (3, 3),
        *,
        strides: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        groups: int = 1,
        parameterization: Parameterization = "ntk",
        weight_std: float = 1.0,
        bias_std: float | None = None,
        key: jax.Array,
    ):
        self.window = tuple(window)
        self.strides = _each(strides, len(self.window), "strides")
        self.dilation = _each(dilation, len(self.window), "dilation")
        require_sizes(in_channels, out_channels, groups, *self.window, *self.strides,
                      *self.dilation)
        if in_channels % groups or out_channels % groups:
            msg = f"{groups} groups do not divide {in_channels} and {out_channels} channels"
            raise ValueError(msg)
        self.padding = _padding(padding, len(self.window))
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        shape = (*self.window, in_channels // groups, out_channels)
        super().__init__(
            shape, math.prod(shape[:-1]), (out_channels,), parameterization=parameterization,
            weight_std=weight_std, bias_std=bias_std, key=key,
        )

    def __call__(
        self, x: Float[Array, "*space inputs"], *, key: jax.Array | None = None
    ) -> Float[Array, "*outspace outputs"]:
        """Apply the layer to one example; ``key`` is ignored."""
        del key
        rank = len(self.window)
        if x.ndim != rank + 1 or x.shape[-1] != self.in_channels:
            msg = (f"expected one example with {rank} spatial axes and {self.in_channels} "
                   f"channels last, got shape {x.shape}")
            raise ValueError(msg)
        padding = self.padding
        if padding == "CIRCULAR":
            x, padding = jnp.pad(x, [*self._around(x.shape[:-1]), (0, 0)], mode="wrap"), "VALID"
        space = tuple(range(1, rank + 1))
        layout = jax.lax.ConvDimensionNumbers(
            lhs_spec=(0, rank + 1, *space),
            rhs_spec=(rank + 1, rank, *range(rank)),
            out_spec=(0, rank + 1, *space),
        )
        y = jax.lax.conv_general_dilated(
            x[None], self.weight, self.strides, padding, rhs_dilation=self.dilation,
            dimension_numbers=layout, feature_group_count=self.groups,
        )[0]
        return self.scaled(y)

    def _around(self, space: tuple[int, ...]) -> list[tuple[int, int]]:
        """The widths of the padding that keeps the size, up to strides."""
        reach = [d * (w - 1) + 1 for d, w in zip(self.dilation, self.window)]
        return jax.lax.padtype_to_pads(space, reach, self.strides, "SAME")


def _each(value: int | Sequence[int], rank: int, name: str) -> tuple[int, ...]:
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(values) != rank:
        msg = f"{name} has one entry for each of {rank} dimensions, got {value}"
        raise ValueError(msg)
    return values


def _padding(padding: Padding, rank: int) -> str | tuple[tuple[int, int], ...]:
    if isinstance(padding, str):
        if padding.upper() not in NAMED:
            msg = f"padding is one of {', '.join(NAMED)} or pairs of widths, not {padding!r}"
            raise ValueError(msg)
        return padding.upper()
    pairs = tuple((before, after) for before, after in padding)
    if len(pairs) != rank:
        msg = f"padding has one pair for each of {rank} dimensions, got {padding}"
        raise ValueError(msg)
    return pairs
