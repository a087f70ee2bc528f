"""The NumPy interpreter agrees with JAX on programs that use most of its table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oracle.numeric import run


def layers(w, x):
    h = jax.nn.gelu(x @ w) + jax.nn.silu(x @ w) * jnp.clip(x @ w, -1, 1)
    h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-3)
    return jnp.concatenate([h[::-1, 1:], jnp.round(x[:, :2]), h[:, ::2]], 1).sum(0)


def loops(w, x):
    def step(h, z):
        h = jnp.tanh(w @ h + z)
        return h, (h, h.max())

    last, (every, most) = jax.lax.scan(step, jnp.zeros(4), x, reverse=True)
    many = jax.lax.fori_loop(0, 3, lambda i, h: jnp.sin(h) + i, last)
    chosen = jax.lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, last)
    spread = jnp.einsum("ij,tj->it", w, every) + jnp.logaddexp(most, 0.0)
    return spread, many, chosen, jnp.where(every > 0, 1.0, jnp.cumsum(every, 0))


def convolutions(w, x):
    conv = jax.lax.conv_general_dilated
    image = x.reshape(1, 6, 2, 2) + x[:, :1].reshape(1, 6, 1, 1)
    filters = w.reshape(2, 2, 2, 2)
    a = conv(image, filters, (2, 1), [(1, 2), (-1, 1)], (1, 3), (2, 1),
             dimension_numbers=("NHWC", "HWIO", "NCHW"))
    b = conv(image, w.reshape(2, 2, 1, 4), (1, 1), "SAME", feature_group_count=2,
             dimension_numbers=("NHWC", "HWIO", "HWNC"))
    c = jax.lax.reduce_window(image, 0.0, jax.lax.add, (1, 3, 2, 1), (1, 2, 1, 1), "SAME")
    d = jax.lax.pad(image, 0.5, [(0, 0, 0), (-1, 2, 1), (1, -1, 2), (0, 0, 0)])
    each = jax.vmap(lambda u, v: conv(u, v, (1,), "VALID"))(
        x.reshape(3, 1, 2, 4), w[:3].reshape(3, 1, 2, 2))
    return a, b, c, d, each, jax.lax.cumsum(x, 1, reverse=True)


@pytest.mark.parametrize("f", [layers, loops, convolutions], ids=lambda f: f.__name__)
def test_agrees_with_jax(f, rng):
    w, x = jnp.asarray(rng.normal(size=(4, 4))), jnp.asarray(rng.normal(size=(6, 4)))

    def both(w, x):
        value, pull = jax.vjp(f, w, x)
        return value, pull(jax.tree.map(jnp.ones_like, value))

    ours = run(jax.make_jaxpr(both)(w, x), np.asarray(w), np.asarray(x))
    for a, b in zip(ours, jax.tree.leaves(jax.jit(both)(w, x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
