"""The Elman network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from widelimit.nn._layers import Linear

Readout = Literal["last", "mean", "each"]


class RNN(eqx.Module):
    r"""A recurrent network of Elman's kind.

    .. math:: h_t = \phi(W h_{t-1} + U x_t), \quad h_0 = 0, \quad y = V h_T

    Parameters
    ----------
    in_features, out_features, width
        Sizes of an input, an output and the hidden state.
    readout
        ``"last"`` reads out the last state, ``"mean"`` the mean of all, ``"each"`` every one.
    activation
        The activation phi.
    options
        ``parameterization``, ``weight_std`` and ``bias_std`` of the dense layers, as for
        :class:`widelimit.nn.Linear`.
    key
        A random key for the initial values.

    Raises
    ------
    ValueError
        For another readout, and for wrong options.

    Notes
    -----
    Elman, Finding structure in time, 1990; its limit: Alemohammad et al., The recurrent neural
    tangent kernel, 2021 (arXiv:2006.10246).
    """

    recurrent: Linear
    inward: Linear
    outward: Linear
    readout: Readout = eqx.field(static=True)
    activation: Callable

    def __init__(
        self,
        in_features: int,
        out_features: int,
        width: int,
        *,
        readout: Readout = "last",
        activation: Callable = jnp.tanh,
        key: jax.Array,
        **options,
    ):
        if readout not in ("last", "mean", "each"):
            msg = f"readout is 'last', 'mean' or 'each', not {readout!r}"
            raise ValueError(msg)
        w, u, v = jax.random.split(key, 3)
        # One bias is enough for the sum of the two.
        self.recurrent = Linear(width, width, key=w, **{**options, "bias_std": None})
        self.inward = Linear(in_features, width, key=u, **options)
        self.outward = Linear(width, out_features, key=v, **options)
        self.readout, self.activation = readout, activation

    def __call__(
        self, x: Float[Array, "time inputs"], *, key: jax.Array | None = None
    ) -> Float[Array, "*time outputs"]:
        """Run over one sequence; ``key`` is ignored."""
        del key

        def step(h, x):
            h = self.activation(self.recurrent(h) + self.inward(x))
            return h, h

        start = jnp.zeros(self.recurrent.out_features, x.dtype)
        last, states = jax.lax.scan(step, start, x)
        if self.readout == "each":
            return self.outward(states)
        return self.outward(last if self.readout == "last" else states.mean(0))
