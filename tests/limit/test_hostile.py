"""Networks written to be read wrongly: each is refused, or agrees with sampled networks.

In all of them something that vanishes in the limit is brought back, or something looks like what
it is not: a sum over width that regains a factor of its width, a function where Stein's lemma
fails, a feature too narrow for a grid, a mean hidden in a scaled bias.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

from .networks import struct
from .sampling import assert_agree, sampled

N = 128
SHAPES = [struct(N, 4), struct(N, 4), struct(16, N), struct(N, N), struct(N)]
relu, erf = jax.nn.relu, jax.lax.erf


def read_out(p, h):
    return p[2] @ h / np.sqrt(N)


def first(p, x):
    return p[0] @ x / 2


def gated(amount):
    """A network whose signal is multiplied by one plus an amount."""
    return lambda p, x: read_out(p, erf(first(p, x))) * (1 + amount(first(p, x), p[1] @ x / 2, x))


def added(amount):
    """A network with an amount added to every channel."""
    return lambda p, x: read_out(p, erf(first(p, x)) + amount(first(p, x), p[1] @ x / 2, x))


def inside(amount):
    """A network with an amount added to every channel, before the nonlinearity."""
    return lambda p, x: read_out(p, erf(first(p, x) + amount(first(p, x), p[1] @ x / 2, x)))


ROOT = np.sqrt(N)
A_UNIT = np.random.default_rng(3).normal(size=N) / ROOT
A_MATRIX = np.random.default_rng(0).normal(size=(N, N))

REFUSED = {
    "sum read out": lambda p, x: relu(first(p, x)).sum(keepdims=True) / ROOT,
    "difference of sums": gated(lambda h, g, x: ((h**2).sum() - (g**2).sum()) / ROOT),
    "product of sums": gated(lambda h, g, x: (h @ h) * (h @ g) / N**1.5),
    "mean times the root": gated(lambda h, g, x: h.mean() * ROOT),
    "mean times the root, in two steps": gated(lambda h, g, x: (h.mean() * N) / ROOT),
    "centred variance": gated(lambda h, g, x: ROOT * ((h**2).mean() - x @ x / 4)),
    "stacked sums": gated(lambda h, g, x: jnp.stack([h @ g, 2 * (h @ g)])[0] / ROOT),
    "square of a mean": inside(lambda h, g, x: h.mean() ** 2 * N),
    "t statistic": inside(lambda h, g, x: h.mean() / (h.std() / ROOT)),
    "cosine of independent fields": inside(
        lambda h, g, x: h @ g / jnp.linalg.norm(h) / jnp.linalg.norm(g) * ROOT),
    "sign of a mean": inside(lambda h, g, x: jnp.sign(h.mean())),
    "root of a mean": gated(lambda h, g, x: jnp.sqrt(jnp.abs(h.mean())) * N**0.25),
    "normalised means": gated(lambda h, g, x: h.mean() / jnp.hypot(h.mean(), g.mean())),
    "mean on a vanishing field": added(lambda h, g, x: ROOT * (h.mean() + 0 * h)),
    "mean on a small field": added(lambda h, g, x: ROOT * (h.mean() + h / N)),
    "mean of an odd function on a small field": added(
        lambda h, g, x: ROOT * (erf(h).mean() + 1e-3 * h)),
    "mean on a small function of several fields": added(
        lambda h, g, x: ROOT * (erf(h).mean() + 1e-3 * erf(1e3 * (erf(h) + g)))),
    "mean through a nonlinearity": added(lambda h, g, x: ROOT * relu(h.mean() + 0 * h)),
    "difference of means on a field": added(
        lambda h, g, x: ROOT * ((relu(h).mean() - relu(g).mean()) + 0 * h)),
    "mean through a layer": lambda p, x: p[2] @ (first(p, x).mean() + 0 * first(p, x)),
    "summed over copies": added(
        lambda h, g, x: (np.ones(N) * ((h**2).mean() - x @ x / 4)).sum() / ROOT + 0 * h),
    "dot product with ones": inside(
        lambda h, g, x: (np.ones(N) * (jnp.abs(h).mean() - jnp.abs(g).mean())) @ np.ones(N) / ROOT),
    "matrix with a large factor": inside(
        lambda h, g, x: (jnp.stack([h.mean(), (h**3).mean()]) @ (ROOT * np.eye(2)))[0]),
    "ratio to a large power": lambda p, x: read_out(p, erf(
        first(p, x) * ((first(p, x) ** 2).mean() / ((p[1] @ x / 2) ** 2).mean()) ** ROOT)),
    "constant direction": inside(lambda h, g, x: A_UNIT @ h),
    "first channel": gated(lambda h, g, x: jnp.where(jnp.arange(N) == 0, h, 0.0).sum()),
    "constant matrix": lambda p, x: read_out(p, relu(A_MATRIX @ first(p, x) / ROOT)),
    "unscaled bilinear form": lambda p, x: (
        read_out(p, erf(first(p, x))) * (1 + (p[3] @ first(p, x)) @ first(p, x) / N)),
    "column beside its matrix": lambda p, x: read_out(p, p[3] @ erf(first(p, x)) / ROOT
                                                     + p[3][:, 0]),
    "masked weights": lambda p, x: read_out(p, jnp.tril(p[3]) @ erf(first(p, x)) / ROOT),
    "jump times a correlated field": lambda p, x: read_out(
        p, first(p, x) * jnp.sign(first(p, x) + p[1] @ x / 2)),
    "field less itself, and its mean": added(lambda h, g, x: (h - (h - h.mean())) * ROOT),
    "twice half a field, and its mean": added(
        lambda h, g, x: (h - 0.5 * (2 * h - 2 * h.mean())) * ROOT),
    "cancels through a matrix": lambda p, x: read_out(
        p, erf(first(p, x)) + p[3] @ first(p, x) - p[3] @ (first(p, x) - first(p, x).mean())),
    "cancels in a stack": added(lambda h, g, x: jnp.diff(
        jnp.stack([h - h.mean(), h]), axis=0)[0] * ROOT),
    "cancels behind a known factor": added(
        lambda h, g, x: ((h - h.mean()) * x[0] - h * x[0]) * ROOT),
    "cancels beside another field": added(
        lambda h, g, x: ((relu(h) + h - h.mean()) - relu(h) - h) * ROOT),
    "pole off zero": lambda p, x: read_out(p, 1 / (first(p, x) + 0.3)),
    "logarithm off zero": lambda p, x: read_out(p, jnp.log(jnp.abs(first(p, x) - 0.2))),
    "infinite slope off zero": lambda p, x: read_out(p, jnp.cbrt(first(p, x) + 0.3)),
    "infinite slope": lambda p, x: read_out(p, jnp.cbrt(first(p, x))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, rng):
    with pytest.raises(wl.WideLimitError) as error:
        wl.kernel(REFUSED[name], SHAPES).both(rng.normal(size=(2, 4)))
    assert error.value.why
    assert error.value.remedy


def normal(h):
    return (h - h.mean()) / h.std()


AGREES = {
    "doubled, shifted, pooled": lambda p, x: read_out(
        p, erf(2 * (first(p, x) + 0.5)) * (1 - 0.5 * (p[4] + 1))),
    "normalised and scaled": lambda p, x: read_out(p, erf(10 * normal(first(p, x)))),
    "normalised and scaled by the root": lambda p, x: read_out(
        p, normal(first(p, x)) * ROOT) / ROOT,
    "normalised, with a residual, scaled late": lambda p, x: read_out(
        p, erf(p[3] @ (lambda g: g + relu(g))(normal(first(p, x))) / ROOT)),
    "narrow tent": lambda p, x: read_out(
        p, 8 * jnp.maximum(0, 1 - jnp.abs(first(p, x) - 0.5) / 0.05)),
    "known condition": lambda p, x: read_out(p, jnp.where(x[0] > 0, relu(first(p, x)),
                                                          erf(first(p, x)))),
    "shifted and scaled bias": lambda p, x: read_out(p, relu(first(p, x) + 0.5 * (p[4] + 1))),
    "straight-through": lambda p, x: read_out(
        p, first(p, x) + jax.lax.stop_gradient(jnp.sign(first(p, x)) - first(p, x))),
    "interleaved": lambda p, x: read_out(p, (lambda s: relu(s / jnp.sqrt((s**2).mean()))[:N])(
        jnp.stack([first(p, x), 3 * (p[1] @ x)], -1).reshape(-1))),
    "logarithm of a mean": inside(lambda h, g, x: -jnp.log(jnp.exp(h).mean())),
}


SLOW = {"known condition", "logarithm of a mean", "doubled, shifted, pooled"}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in AGREES
])
def test_agrees(name, rng):
    x = rng.normal(size=(2, 4))
    limit = wl.kernel(AGREES[name], SHAPES).both(x)
    assert_agree(limit, sampled(AGREES[name], SHAPES, jnp.asarray(x)), bias=0.08)
