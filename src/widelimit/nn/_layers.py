"""Layers that know their width-aware parameterization and state their own prior."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from widelimit.priors import Prior

Parameterization = Literal["ntk", "standard"]


class Linear(eqx.Module):
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
        Sizes; the layer maps shape (in_features,) to (out_features,).
    parameterization
        ``"ntk"`` or ``"standard"``.
    weight_std, bias_std
        The scales above; ``bias_std=None`` leaves out the bias.
    key
        A random key for the initial values.
    """

    weight: jax.Array
    bias: jax.Array | None
    in_features: int = eqx.field(static=True)
    out_features: int = eqx.field(static=True)
    parameterization: Parameterization = eqx.field(static=True)
    weight_std: float = eqx.field(static=True)
    bias_std: float | None = eqx.field(static=True)

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
        if parameterization not in ("ntk", "standard"):
            msg = f"parameterization is 'ntk' or 'standard', not {parameterization!r}"
            raise ValueError(msg)
        if in_features < 1 or out_features < 1:
            msg = f"sizes are at least 1, got {in_features} and {out_features}"
            raise ValueError(msg)
        if weight_std < 0 or (bias_std is not None and bias_std < 0):
            msg = f"standard deviations are at least 0, got {weight_std} and {bias_std}"
            raise ValueError(msg)
        self.in_features, self.out_features = in_features, out_features
        self.parameterization = parameterization
        self.weight_std = float(weight_std)
        self.bias_std = None if bias_std is None else float(bias_std)
        weight_key, bias_key = jax.random.split(key)
        priors = self.__widelimit_prior__()
        shape = (out_features, in_features)
        self.weight = priors["weight"].std * jax.random.normal(weight_key, shape)
        self.bias = None
        if bias_std is not None:
            self.bias = priors["bias"].std * jax.random.normal(bias_key, (out_features,))

    def __widelimit_prior__(self) -> dict[str, Prior]:
        """The prior of each array of this layer."""
        if self.parameterization == "ntk":
            return {"weight": Prior.normal(1.0), "bias": Prior.normal(1.0)}
        weight = Prior.normal(self.weight_std / math.sqrt(self.in_features))
        return {"weight": weight, "bias": Prior.normal(self.bias_std or 0.0)}

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Apply the layer to one example of shape (in_features,); ``key`` is ignored."""
        del key
        y = self.weight @ x
        if self.parameterization == "ntk":
            y = self.weight_std / math.sqrt(self.in_features) * y
            return y if self.bias is None else y + (self.bias_std or 0.0) * self.bias
        return y if self.bias is None else y + self.bias


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
