"""Attention and embeddings compute their formulas, and their limits that of sampled networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from limit.sampling import assert_agree, sampled
from widelimit import nn
from widelimit.models import describe

KEY = jax.random.key(5)


def by_hand(layer, x, mask):
    """Token by token and head by head."""
    tokens, features = x.shape
    d = features // layer.heads
    out = np.zeros((tokens, features))
    for h in range(layer.heads):
        w, v = np.asarray(layer.keys.weight[h]), np.asarray(layer.values.weight[h])
        keys, values = x @ w / np.sqrt(features), x @ v / np.sqrt(features)
        for t in range(tokens):
            seen = [s for s in range(tokens) if mask[t, s]]
            e = np.exp([keys[t] @ keys[s] / d for s in seen])
            out[t, h * d: (h + 1) * d] = e / e.sum() @ values[seen]
    return out @ np.asarray(layer.out.weight).T / np.sqrt(features)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_its_formula(heads, causal, masked, rng):
    layer = nn.Attention(6, heads=heads, causal=causal, key=KEY)
    x = rng.normal(size=(4, 6))
    mask = rng.random((4, 4)) < 0.6 if masked else np.ones((4, 4), bool)
    mask |= np.eye(4, dtype=bool)
    seen = mask & np.tril(np.ones((4, 4), bool)) if causal else mask
    result = layer(x, mask=jnp.asarray(mask) if masked else None)
    np.testing.assert_allclose(result, by_hand(layer, x, seen), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("options", [{}, {"heads": 2, "causal": True, "bias_std": 0.3}],
                         ids=["one", "causal heads"])
def test_limit_of_attention_agrees_with_sampled_networks(options, rng):
    model = nn.Sequential([
        nn.Linear(3, 192, key=KEY), nn.Attention(192, key=KEY, **options), jax.nn.relu,
        nn.global_average, nn.Linear(192, 16, key=KEY),
    ])
    d = describe(model)
    x = rng.normal(size=(2, 3, 3))
    assert_agree(wl.kernel(model).both(x), sampled(d.apply, d.arrays, jnp.asarray(x)))


def test_embeddings_look_up_and_scale(rng):
    tokens = jnp.array([3, 0, 3])
    layer = nn.Embedding(5, 4, weight_std=1.5, key=KEY)
    np.testing.assert_allclose(layer(tokens), 1.5 * layer.weight[tokens], rtol=1e-12)
    places = nn.Positions(4, 4, weight_std=0.5, key=KEY)
    x = rng.normal(size=(3, 4))
    np.testing.assert_allclose(places(x), x + 0.5 * np.asarray(places.weight[:3]), rtol=1e-12)
    with pytest.raises(ValueError, match="5 tokens, and there are 4 positions"):
        places(jnp.ones((5, 4)))


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_the_kernel_of_an_embedding_counts_equal_tokens(parameterization):
    options = {"parameterization": parameterization, "key": KEY}
    model = nn.Sequential([
        nn.Embedding(5, 64, weight_std=1.5, **options),
        nn.Positions(3, 64, weight_std=0.5, **options), nn.global_average,
    ])
    a, b = jnp.array([[3, 0, 3]]), jnp.array([[0, 3, 1]])
    equal = np.mean(np.asarray(a[0])[:, None] == np.asarray(b[0])[None])
    np.testing.assert_allclose(
        wl.kernel(model).nngp(a, b), [[1.5**2 * equal + 0.5**2 / 3]], rtol=1e-6)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="4 heads do not divide 6"):
        nn.Attention(6, heads=4, key=KEY)
