"""Networks by name: "relu x 3" and the like."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from widelimit import nn
from widelimit.kernel import Kernel, kernel
from widelimit.precision import double_precision

_PATTERN = re.compile(
    r"\s*(?P<kind>residual\s+|normalised\s+)?(?P<activation>\w+)\s*[x×]\s*(?P<depth>\d+)\s*"
)

ACTIVATIONS: dict[str, tuple[Callable[..., Any], float]] = {
    "relu": (jax.nn.relu, 2**0.5),
    "leaky_relu": (jax.nn.leaky_relu, 2**0.5),
    "gelu": (lambda x: jax.nn.gelu(x, approximate=False), 1.5),
    "erf": (jax.scipy.special.erf, 1.3),
    "sin": (jnp.sin, 1.3),
    "tanh": (jnp.tanh, 1.3),
    "silu": (jax.nn.silu, 1.7),
    "elu": (jax.nn.elu, 1.3),
    "softplus": (jax.nn.softplus, 1.0),
}
"""Activations by name, each with a weight scale at which signals neither die nor explode."""

_WIDTH, _BIAS = 64, 0.3


def network_kernel(network: Any, features: int) -> Kernel:
    """The kernel of a recipe, of a model, or of a pair (f, params).

    Parameters
    ----------
    network
        A recipe such as ``"relu x 3"``: an activation and the number of hidden layers, with
        "residual" or "normalised" before it if wanted; a :class:`widelimit.Kernel`; an Equinox
        or Flax NNX module; or a pair ``(f, params)``.
    features
        The number of input features.

    Raises
    ------
    ValueError
        If the recipe is not understood.
    """
    if isinstance(network, Kernel):
        return network
    if isinstance(network, str):
        return _from_recipe(" ".join(network.split()), features)
    with double_precision():
        if isinstance(network, tuple) and len(network) == 2:
            return kernel(*network)
        return kernel(network)


@functools.lru_cache(maxsize=64)
def _from_recipe(recipe: str, features: int) -> Kernel:
    """One kernel for equal recipes, so that its compiled programs are shared."""
    found = _PATTERN.fullmatch(recipe)
    if found is None or found["activation"] not in ACTIVATIONS:
        msg = (
            f"network={recipe!r} is not understood; write an activation and a number of hidden "
            f"layers, like 'relu x 3', 'residual gelu x 4' or 'normalised tanh x 2', with one of "
            f"{', '.join(ACTIVATIONS)}; or pass a model"
        )
        raise ValueError(msg)
    activation, weight_std = ACTIVATIONS[found["activation"]]
    make = nn.residual_mlp if (found["kind"] or "").startswith("residual") else nn.mlp
    options: dict[str, Any] = {"layer_norm": (found["kind"] or "").startswith("normalised")}
    with double_precision():
        model = make(
            features, 1, _WIDTH, int(found["depth"]), activation=activation,
            weight_std=weight_std, bias_std=_BIAS, key=jax.random.key(0), **options,
        )
        return kernel(model)
