"""What dense and convolutional layers share: a weight, a bias and how they scale with width."""

from __future__ import annotations

import math
from typing import Literal

import equinox as eqx
import jax

from widelimit.priors import Prior

Parameterization = Literal["ntk", "standard"]


class Affine(eqx.Module):
    """A weight and a bias in a width-aware parameterization; subclasses say what they do to x."""

    weight: jax.Array
    bias: jax.Array | None
    fan_in: int = eqx.field(static=True)
    parameterization: Parameterization = eqx.field(static=True)
    weight_std: float = eqx.field(static=True)
    bias_std: float | None = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        fan_in: int,
        bias_shape: tuple[int, ...],
        *,
        parameterization: Parameterization = "ntk",
        weight_std: float = 1.0,
        bias_std: float | None = None,
        key: jax.Array,
    ):
        if parameterization not in ("ntk", "standard"):
            msg = f"parameterization is 'ntk' or 'standard', not {parameterization!r}"
            raise ValueError(msg)
        if weight_std < 0 or (bias_std is not None and bias_std < 0):
            msg = f"standard deviations are at least 0, got {weight_std} and {bias_std}"
            raise ValueError(msg)
        self.fan_in = fan_in
        self.parameterization = parameterization
        self.weight_std = float(weight_std)
        self.bias_std = None if bias_std is None else float(bias_std)
        weight_key, bias_key = jax.random.split(key)
        priors = self.__widelimit_prior__()
        self.weight = priors["weight"].std * jax.random.normal(weight_key, shape)
        self.bias = None
        if bias_std is not None:
            self.bias = priors["bias"].std * jax.random.normal(bias_key, bias_shape)

    def __widelimit_prior__(self) -> dict[str, Prior]:
        """The prior of each array of this layer."""
        if self.parameterization == "ntk":
            return {"weight": Prior.normal(1.0), "bias": Prior.normal(1.0)}
        weight = Prior.normal(self.weight_std / math.sqrt(self.fan_in))
        return {"weight": weight, "bias": Prior.normal(self.bias_std or 0.0)}

    def scaled(self, y: jax.Array) -> jax.Array:
        """``y``, linear in the weight, with its scale and the bias."""
        if self.parameterization == "ntk":
            y = self.weight_std / math.sqrt(self.fan_in) * y
            return y if self.bias is None else y + (self.bias_std or 0.0) * self.bias
        return y if self.bias is None else y + self.bias


def require_sizes(*sizes: int) -> None:
    """Every size is at least one."""
    if min(sizes) < 1:
        msg = f"sizes are at least 1, got {' and '.join(map(str, sizes))}"
        raise ValueError(msg)
