"""Ready-made multilayer perceptrons: plain, normalised, residual."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import equinox as eqx
import jax

from widelimit.nn._affine import Parameterization
from widelimit.nn._layers import Linear, Residual, Sequential


def mlp(
    in_features: int,
    out_features: int,
    width: int,
    depth: int,
    *,
    activation: Callable = jax.nn.relu,
    parameterization: Parameterization = "ntk",
    weight_std: float = 1.0,
    bias_std: float | None = None,
    layer_norm: bool = False,
    key: jax.Array,
) -> Sequential:
    """Dense layers with an activation between them.

    Parameters
    ----------
    in_features, out_features, width
        Sizes of the input, the output and every hidden layer.
    depth
        The number of hidden layers; 0 is a linear map.
    activation
        Applied after every hidden layer.
    parameterization, weight_std, bias_std
        As for :class:`Linear`, the same in every layer.
    layer_norm
        Whether to normalise each hidden layer before its activation.
    key
        A random key for the initial values.
    """
    if depth < 0:
        msg = f"depth is at least 0, got {depth}"
        raise ValueError(msg)
    keys = jax.random.split(key, depth + 1)
    sizes = [in_features, *[width] * depth, out_features]
    layers: list[Callable] = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        layers.append(
            Linear(
                a,
                b,
                parameterization=parameterization,
                weight_std=weight_std,
                bias_std=bias_std,
                key=keys[i],
            )
        )
        if i < depth:
            layers += [eqx.nn.LayerNorm(b)] * layer_norm + [activation]
    return Sequential(layers)


def normalised_mlp(
    in_features: int, out_features: int, width: int, depth: int, **options
) -> Sequential:
    """Like :func:`mlp` with a layer normalisation before every activation."""
    return mlp(in_features, out_features, width, depth, **{**options, "layer_norm": True})


def residual_mlp(
    in_features: int,
    out_features: int,
    width: int,
    depth: int,
    *,
    activation: Callable = jax.nn.relu,
    parameterization: Parameterization = "ntk",
    weight_std: float = 1.0,
    bias_std: float | None = None,
    branch_scale: float = 1.0,
    layer_norm: bool = False,
    key: jax.Array,
) -> Sequential:
    r"""A pre-activation residual network.

    .. math:: h_0 = D_0 x, \quad h_l = h_{l-1} + \alpha D_l\,\phi(h_{l-1}), \quad
              y = D_{L+1}\,\phi(h_L)

    with dense layers D, ``depth`` blocks L and ``branch_scale`` alpha. ``layer_norm`` normalises
    before each activation. The other options are those of :func:`mlp`.
    """
    if depth < 0:
        msg = f"depth is at least 0, got {depth}"
        raise ValueError(msg)
    keys = jax.random.split(key, depth + 2)
    options = {
        "parameterization": parameterization,
        "weight_std": weight_std,
        "bias_std": bias_std,
    }

    def activated(out: int, key: jax.Array) -> list[Callable]:
        norm = [eqx.nn.LayerNorm(width)] if layer_norm else []
        return [*norm, activation, Linear(width, out, key=key, **options)]

    layers: list[Callable] = [Linear(in_features, width, key=keys[0], **options)]
    for k in keys[1:-1]:
        layers.append(Residual(Sequential(activated(width, k)), branch_scale))
    return Sequential([*layers, *activated(out_features, keys[-1])])
