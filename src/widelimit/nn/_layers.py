"""The dense layer, and how layers are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from widelimit.nn._affine import Affine, Parameterization, require_sizes


class Linear(Affine):
    r"""A dense layer, y = W x + b, in one of two parameterizations.

    .. math::
        \text{ntk:}\quad y = \tfrac{\sigma_w}{\sqrt{n}} W x + \sigma_b b,
        \quad W_{ij}, b_i \sim N(0, 1)
        \qquad
        \text{standard:}\quad y = W x + b,
        \quad W_{ij} \sim N(0, \sigma_w^2 / n),\ b_i \sim N(0, \sigma_b^2)

    with n the input size. Both have the same NNGP; their NTKs differ (Jacot et al. 2018,
    arXiv:1806.07572; Sohl-Dickstein et al. 2020, arXiv:2001.07301).

    Parameters
    ----------
    in_features, out_features
        Sizes; the layer maps shape (*positions, in_features) to (*positions, out_features).
    parameterization
        ``"ntk"`` or ``"standard"``.
    weight_std, bias_std
        The scales above; ``bias_std=None`` leaves out the bias.
    key
        A random key for the initial values.

    Raises
    ------
    ValueError
        For a size below 1, a negative scale or an unknown parameterization.
    """

    in_features: int = eqx.field(static=True)
    out_features: int = eqx.field(static=True)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        parameterization: Parameterization = "ntk",
        weight_std: float = 1.0,
        bias_std: float | None = None,
        key: jax.Array,
    ):
        require_sizes(in_features, out_features)
        self.in_features, self.out_features = in_features, out_features
        shape = (out_features, in_features)
        super().__init__(
            shape, in_features, (out_features,), parameterization=parameterization,
            weight_std=weight_std, bias_std=bias_std, key=key,
        )

    def __call__(
        self, x: Float[Array, "*positions inputs"], *, key: jax.Array | None = None
    ) -> Float[Array, "*positions outputs"]:
        """Apply the layer to one example, at each position; ``key`` is ignored."""
        del key
        return self.scaled(x @ self.weight.T)


class Sequential(eqx.Module):
    """Functions and modules applied one after the other."""

    layers: tuple[Callable, ...]

    def __init__(self, layers: Iterable[Callable]):
        self.layers = tuple(layers)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Apply every layer to one example; ``key`` is ignored."""
        del key
        for layer in self.layers:
            x = layer(x)
        return x

    def __getitem__(self, i: int) -> Callable:
        return self.layers[i]

    def __len__(self) -> int:
        return len(self.layers)


class Residual(eqx.Module):
    """x + scale * branch(x)."""

    branch: Callable
    scale: float = eqx.field(static=True)

    def __init__(self, branch: Callable, scale: float = 1.0):
        self.branch, self.scale = branch, float(scale)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Apply the branch to one example and add it; ``key`` is ignored."""
        del key
        y = self.branch(x)
        return x + (y if self.scale == 1.0 else jnp.asarray(self.scale, y.dtype) * y)
