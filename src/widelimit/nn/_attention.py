"""Self-attention with logits scaled 1/d, whose weights have a deterministic limit."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from widelimit.nn._affine import Affine, require_sizes
from widelimit.nn._layers import Linear


class Heads(Affine):
    """A dense layer for each head: (tokens, inputs) to (heads, tokens, d)."""

    def __init__(self, inputs: int, heads: int, d: int, *, key: jax.Array, **options):
        super().__init__((heads, inputs, d), inputs, (heads, 1, d), key=key, **options)

    def __call__(self, x: Float[Array, "tokens inputs"]) -> Float[Array, "heads tokens d"]:
        """Apply every head's layer at every token of one example."""
        return self.scaled(jnp.einsum("tc,hcd->htd", x, self.weight))


class Attention(eqx.Module):
    r"""Multi-head self-attention with shared queries and keys and logits scaled 1/d.

    .. math::
        k^h = K^h x, \quad v^h = V^h x, \quad
        y_t = O\,\Big[\sum_s \operatorname{softmax}_s\!\big(k^h_t \cdot k^h_s / d\big)
        v^h_s\Big]_h

    with dense layers K, V, O (:class:`Linear`) and heads h of width d. The logits converge to the
    kernel of the tokens; scaled :math:`1/\sqrt d` they would stay random, and with independent
    queries and keys scaled 1/d they would vanish (Hron et al. 2020, arXiv:2006.10540, section 3).

    Parameters
    ----------
    features
        Size of the last axis, before and after.
    heads
        Number of heads; it divides ``features``.
    causal
        Whether a token attends only to itself and those before it.
    options
        ``parameterization``, ``weight_std`` and ``bias_std`` of the dense layers.
    key
        A random key for the initial values.

    Raises
    ------
    ValueError
        If the heads do not divide the features, and for wrong options.
    """

    keys: Heads
    values: Heads
    out: Linear
    heads: int = eqx.field(static=True)
    causal: bool = eqx.field(static=True)

    def __init__(
        self, features: int, *, heads: int = 1, causal: bool = False, key: jax.Array, **options
    ):
        require_sizes(features, heads)
        if features % heads:
            msg = f"{heads} heads do not divide {features} features"
            raise ValueError(msg)
        self.heads, self.causal = heads, causal
        k, v, o = jax.random.split(key, 3)
        self.keys = Heads(features, heads, features // heads, key=k, **options)
        self.values = Heads(features, heads, features // heads, key=v, **options)
        self.out = Linear(features, features, key=o, **options)

    def __call__(
        self,
        x: Float[Array, "tokens features"],
        *,
        mask: Array | None = None,
        key: jax.Array | None = None,
    ) -> Float[Array, "tokens features"]:
        """Apply the layer to one example.

        ``mask`` (tokens, tokens) says by True which tokens (columns) each token (row) sees; a
        token must see at least one. ``key`` is ignored.
        """
        del key
        tokens, features = x.shape
        keys, values = self.keys(x), self.values(x)
        logits = jnp.einsum("htd,hsd->hts", keys, keys) / keys.shape[-1]
        if self.causal:
            earlier = jnp.tril(jnp.ones((tokens, tokens), bool))
            mask = earlier if mask is None else mask & earlier
        if mask is not None:
            logits = jnp.where(mask, logits, -jnp.inf)
        mixed = jnp.einsum("hts,hsd->thd", jax.nn.softmax(logits), values)
        return self.out(mixed.reshape(tokens, features))
