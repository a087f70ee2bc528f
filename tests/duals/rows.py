"""The table of activations under test: a new one is one row."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Row:
    """An activation, where it bends, how it should be handled, and whether it runs by default."""

    fn: object
    kinks: tuple = ()
    family: str | None = None
    slow: bool = True
    variances: tuple = field(default=(1e-3, 1.0, 30.0))


ROWS = {
    "identity": Row(lambda x: x, (), "polynomial", False),
    "affine": Row(lambda x: 3 - 2 * x, (), "polynomial"),
    "cubic": Row(lambda x: x**3 - x + 1, (), "polynomial", False),
    "relu": Row(jax.nn.relu, (0,), "relu", False),
    "leaky_relu": Row(jax.nn.leaky_relu, (0,), "abrelu"),
    "abs": Row(jnp.abs, (0,), "abrelu"),
    "sign": Row(jnp.sign, (0,), "sign", False),
    "step": Row(lambda x: jnp.where(x > 0, 1.0, 0.0), (0,), "step"),
    "relu_squared": Row(lambda x: jax.nn.relu(x) ** 2, (0,), "rectified monomial", False),
    "erf": Row(jax.scipy.special.erf, (), "erf", False),
    "affine_erf": Row(lambda x: 2 * jax.scipy.special.erf(0.7 * x) + 1, (), "erf"),
    "gelu": Row(lambda x: jax.nn.gelu(x, approximate=False), (), "gelu", False),
    "sin": Row(lambda x: jnp.sin(1.5 * x + 0.4), (), "sinusoid", False),
    "cos": Row(jnp.cos, (), "cos"),
    "exp": Row(lambda x: jnp.exp(0.5 * x), (), "exp", False, (1e-3, 1.0, 2.0)),
    "gaussian": Row(lambda x: jnp.exp(-(x**2)), (), "gaussian", False),
    "tanh": Row(jnp.tanh, slow=False),
    "sigmoid": Row(jax.nn.sigmoid),
    "softplus": Row(jax.nn.softplus),
    "silu": Row(jax.nn.silu),
    "elu": Row(jax.nn.elu, (0,), slow=False),
    "selu": Row(jax.nn.selu, (0,)),
    "celu": Row(jax.nn.celu, (0,)),
    "mish": Row(jax.nn.mish),
    "softsign": Row(jax.nn.soft_sign, (0,)),
    "hard_tanh": Row(jax.nn.hard_tanh, (-1, 1)),
    "relu6": Row(jax.nn.relu6, (0, 6)),
    "hard_swish": Row(jax.nn.hard_swish, (-3, 3)),
    "log_sigmoid": Row(jax.nn.log_sigmoid),
    "squareplus": Row(jax.nn.squareplus),
    "tanh_gelu": Row(jax.nn.gelu),
    "wavelet": Row(lambda x: jnp.sin(3 * x) * jnp.exp(-x * x)),
    "user_jump": Row(lambda x: jnp.where(x > 0.7, 2 * x - 1.4, 0.1 * x), (0.7,)),
    "user_kink": Row(lambda x: jnp.where(x > 0.7, 2 * x - 1.33, 0.1 * x), (0.7,)),
}

CORRELATIONS = (-1, -0.999, -0.5, 0, 0.5, 0.999, 1)


def grid(variances, *, thin=False):
    """Arrays (q1, q2, c) over variances and correlations; ``thin`` keeps four variance pairs."""
    pairs = [(a, b) for a in variances for b in variances]
    if thin:
        low, middle, high = variances
        pairs = [(low, low), (middle, middle), (high, high), (high, middle)]
    points = [(a, b, r * np.sqrt(a * b)) for a, b in pairs for r in CORRELATIONS]
    return tuple(np.array(points).T)
