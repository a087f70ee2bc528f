"""Looking up a vector for each token, and one for each position."""

from __future__ import annotations

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int

from widelimit.nn._affine import Affine, require_sizes


class Embedding(Affine):
    r"""A vector for each token, :math:`y_t = \sigma_w E_{x_t}` with :math:`E_{ij} \sim N(0, 1)`.

    It is a dense layer of one-hot vectors that is not scaled by their length; ``"standard"`` has
    :math:`\sigma_w` in the weights.

    Parameters
    ----------
    vocabulary, features
        The number of tokens, and the size of their vectors.
    options
        ``parameterization`` and ``weight_std``, as for :class:`Linear`.
    key
        A random key for the initial values.
    """

    vocabulary: int = eqx.field(static=True)

    def __init__(self, vocabulary: int, features: int, *, key: jax.Array, **options):
        require_sizes(vocabulary, features)
        self.vocabulary = vocabulary
        super().__init__((vocabulary, features), 1, (features,), key=key, **options)

    def __call__(
        self, x: Int[Array, "*positions"], *, key: jax.Array | None = None
    ) -> Float[Array, "*positions features"]:
        """Look up the tokens of one example; ``key`` is ignored."""
        del key
        return self.scaled(self.weight[x])


class Positions(Affine):
    r"""A learned vector added at each position, :math:`y_t = x_t + \sigma_w P_t`.

    Parameters
    ----------
    length, features
        The number of positions, and the size of the last axis.
    options
        ``parameterization`` and ``weight_std``, as for :class:`Linear`.
    key
        A random key for the initial values.
    """

    length: int = eqx.field(static=True)

    def __init__(self, length: int, features: int, *, key: jax.Array, **options):
        require_sizes(length, features)
        self.length = length
        super().__init__((length, features), 1, (features,), key=key, **options)

    def __call__(
        self, x: Float[Array, "tokens features"], *, key: jax.Array | None = None
    ) -> Float[Array, "tokens features"]:
        """Add the vectors to one example of at most ``length`` tokens; ``key`` is ignored."""
        del key
        if len(x) > self.length:
            msg = f"got {len(x)} tokens, and there are {self.length} positions"
            raise ValueError(msg)
        return x + self.scaled(self.weight[: len(x)])
