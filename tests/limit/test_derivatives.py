"""Functions with derivatives of their own, which differ only in constants of programs within."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit.programs import fingerprint

WIDTH = 64
SHAPES = [jax.ShapeDtypeStruct(s, float) for s in ((WIDTH, 3), (WIDTH, WIDTH), (1, WIDTH))]


def rectifier(slope):
    """A rectifier whose given slope is an array that a compiled function holds."""
    held = np.full(WIDTH, slope)
    pushed = jax.jit(lambda u, du: jnp.where(u > 0, jnp.asarray(held, u.dtype) * du, 0))

    @jax.custom_jvp
    def act(u):
        return jnp.maximum(u, 0)

    @act.defjvp
    def _(primals, tangents):
        return act(*primals), pushed(primals[0], tangents[0])

    return act


def network(first, second):
    def f(p, x):
        h = first(p[0] @ x / np.sqrt(3))
        h = second(p[1] @ h / np.sqrt(WIDTH))
        return p[2] @ h / np.sqrt(WIDTH)

    return f


def arc_cosine(k):
    """E[relu relu] and the probability that both are positive (Cho and Saul 2009)."""
    lengths = np.sqrt(np.outer(np.diag(k), np.diag(k)))
    angle = np.arccos(np.clip(k / lengths, -1, 1))
    value = lengths * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    return value, (np.pi - angle) / (2 * np.pi)


@pytest.mark.parametrize("slopes", [(1, 5), (5, 1), (5, 7), (7, 5), (3, 3)])
def test_constants_of_compiled_derivatives_count(rng, slopes):
    x = rng.normal(size=(4, 3))
    one, two = slopes
    k0 = x @ x.T / 3
    k1, both_first = arc_cosine(k0)
    k2, both_second = arc_cosine(k1)
    expected = k2 + two**2 * both_second * (k1 + one**2 * both_first * k0)
    found = wl.kernel(network(rectifier(one), rectifier(two)), SHAPES).both(jnp.asarray(x))
    np.testing.assert_allclose(found.nngp, k2, rtol=1e-6)
    np.testing.assert_allclose(found.ntk, expected, rtol=1e-6)


def test_programs_are_told_apart_by_all_their_constants():
    def nested(scale, *, by):
        held = np.asarray([scale, 1.0])
        inner = jax.jit(lambda u: jnp.asarray(held) * u)
        ways = {
            "call": lambda u: jax.jit(inner)(u),
            "branch": lambda u: jax.lax.cond(u[0] > 0, inner, lambda v: v, u),
            "loop": lambda u: jax.lax.fori_loop(0, 3, lambda _, v: inner(v), u),
            "checkpoint": lambda u: jax.checkpoint(inner)(u),
        }
        return fingerprint(jax.make_jaxpr(ways[by])(jnp.ones(2)))

    for by in ("call", "branch", "loop", "checkpoint"):
        assert nested(2.0, by=by) == nested(2.0, by=by)
        assert nested(2.0, by=by) != nested(3.0, by=by)


def test_whole_numbers_have_no_derivative(rng):
    @jax.custom_jvp
    def positive(u):
        return (u > 0).astype(int)

    @positive.defjvp
    def _(primals, tangents):
        out = positive(*primals)
        return out, np.zeros(out.shape, jax.dtypes.float0)

    def f(p, x):
        return p[1] @ positive(p[0] @ x).astype(x.dtype) / np.sqrt(WIDTH)

    x = rng.normal(size=(4, 3))
    found = wl.kernel(f, [SHAPES[0], SHAPES[2]]).nngp(jnp.asarray(x))
    np.testing.assert_allclose(found, arc_cosine(x @ x.T)[1], rtol=1e-6, atol=1e-7)
