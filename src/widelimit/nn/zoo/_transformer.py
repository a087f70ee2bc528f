"""Transformers with attention logits scaled 1/d: of image patches, and of characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax

from widelimit.nn._layers import Residual, Sequential
from widelimit.nn._spatial import global_average
from widelimit.nn.zoo._make import Make


def blocks(
    make: Make, depth: int, width: int, activation: Callable, heads: int, causal: bool = False
) -> list[Callable]:
    """X + attention(norm(x)) and x + mlp(norm(x)), ``depth`` times, and a last norm."""
    layers: list[Callable] = []
    for _ in range(depth):
        attend = [make.norm(width), make.attention(width, heads=heads, causal=causal)]
        think = [make.norm(width), make.linear(width, 4 * width), activation,
                 make.linear(4 * width, width)]
        layers += [Residual(Sequential(attend)), Residual(Sequential(think))]
    return [*layers, make.norm(width)]


def vit(
    in_shape: Sequence[int],
    out_features: int,
    width: int,
    depth: int,
    *,
    patch: int = 4,
    heads: int = 1,
    activation: Callable = jax.nn.gelu,
    key: jax.Array,
    **options,
) -> Sequential:
    """A vision transformer with logits scaled 1/d, read out from the mean over patches.

    Parameters
    ----------
    in_shape
        (height, width, channels) of the images.
    out_features, width, depth
        Outputs, features of a token, and the number of blocks.
    patch
        Size of the patches; it divides height and width.
    heads
        Of :class:`widelimit.nn.Attention`.
    activation
        The activation of the dense blocks, which are four times as wide.
    options
        ``parameterization``, ``weight_std`` and ``bias_std`` of every layer, as for
        :class:`widelimit.nn.Linear`.
    key
        A random key for the initial values.

    Raises
    ------
    ValueError
        If patches do not divide the image, or heads the width.

    Notes
    -----
    Dosovitskiy et al., An image is worth 16 × 16 words, 2021 (arXiv:2010.11929), equations 1-4,
    pooled instead of a class token; attention as in Hron et al. 2020 (arXiv:2006.10540).
    """
    rows, columns, channels = in_shape
    if rows % patch or columns % patch:
        msg = f"patches of {patch} × {patch} do not divide images of {rows} × {columns}"
        raise ValueError(msg)
    make = Make(key, **options)
    return Sequential([
        make.conv(channels, width, patch, patch, padding="VALID"), _tokens,
        make.positions((rows // patch) * (columns // patch), width),
        *blocks(make, depth, width, activation, heads),
        global_average, make.linear(width, out_features),
    ])


def character_transformer(
    vocabulary: int,
    length: int,
    width: int,
    depth: int,
    *,
    heads: int = 1,
    activation: Callable = jax.nn.gelu,
    key: jax.Array,
    **options,
) -> Sequential:
    """A causal transformer of characters with logits scaled 1/d: (tokens,) to (tokens, vocabulary).

    Parameters
    ----------
    vocabulary, length
        The number of characters, and of positions there are vectors for.
    width, depth
        Features of a token, and the number of blocks.
    heads
        Of :class:`widelimit.nn.Attention`.
    activation
        The activation of the dense blocks, which are four times as wide.
    options
        ``parameterization``, ``weight_std`` and ``bias_std`` of every layer, as for
        :class:`widelimit.nn.Linear`.
    key
        A random key for the initial values.

    Raises
    ------
    ValueError
        If the heads do not divide the width.

    Notes
    -----
    Al-Rfou et al., Character-level language modeling with deeper self-attention, 2019
    (arXiv:1808.04444), with normalisation before each branch; attention as in Hron et al. 2020
    (arXiv:2006.10540).
    """
    make = Make(key, **options)
    return Sequential([
        make.embedding(vocabulary, width), make.positions(length, width),
        *blocks(make, depth, width, activation, heads, causal=True),
        make.linear(width, vocabulary),
    ])


def _tokens(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])
