"""Exact oracles: closed-form recursions, equal spellings, transformations, duplicates."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

from .networks import struct

N = 32


def dense(w, h):
    return w @ h / np.sqrt(h.shape[0])


def mlp(act, depth, scale=1.0, bias=0.0):
    def f(p, x):
        h = x
        for i in range(depth):
            h = act(scale * dense(p["w"][i], h) + bias * p["b"][i])
        return dense(p["v"], h)

    shapes = {
        "w": [struct(N, 5)] + [struct(N, N)] * (depth - 1),
        "b": [struct(N)] * depth,
        "v": struct(1, N),
    }
    return f, shapes


def relu_recursion(x1, x2, depth, sw, sb):
    """NNGP and NTK of a ReLU MLP in NTK parameterization (Cho & Saul 2009; Jacot et al. 2018)."""
    dim = x1.shape[1]
    k = sw**2 * x1 @ x2.T / dim + sb**2
    q1 = sw**2 * (x1**2).sum(1) / dim + sb**2
    q2 = sw**2 * (x2**2).sum(1) / dim + sb**2
    t = k.copy()
    for layer in range(depth):
        root = np.sqrt(np.outer(q1, q2))
        angle = np.arccos(np.clip(k / root, -1, 1))
        value = root * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        slope = (np.pi - angle) / (2 * np.pi)
        q1, q2 = q1 / 2, q2 / 2
        if layer == depth - 1:
            return value, value + t * slope
        k = sw**2 * value + sb**2
        t = k + sw**2 * t * slope
        q1, q2 = sw**2 * q1 + sb**2, sw**2 * q2 + sb**2
    raise AssertionError


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize(("sw", "sb"), [(np.sqrt(2), 0.0), (1.3, 0.4)])
def test_relu_recursion(depth, sw, sb, rng):
    f, shapes = mlp(jax.nn.relu, depth, sw, sb)
    x1, x2 = rng.normal(size=(6, 5)), rng.normal(size=(4, 5))
    nngp, ntk = wl.kernel(f, shapes).both(x1, x2)
    expected = relu_recursion(x1, x2, depth, sw, sb)
    np.testing.assert_allclose(nngp, expected[0], rtol=1e-11)
    # The recursion above counts each bias with its own scale, as the derivative with respect to
    # a standard normal entry does.
    np.testing.assert_allclose(ntk, expected[1], rtol=1e-11)


def test_float32_is_as_good_as_it_can_be(rng):
    f, shapes = mlp(jax.nn.relu, 3, np.sqrt(2), 0.1)
    x = rng.normal(size=(20, 5))
    kernel = wl.kernel(f, shapes)
    double, single = kernel.both(x), kernel.both(x.astype(np.float32))
    for a, b in zip(double, single):
        assert b.dtype == jnp.float32
        np.testing.assert_allclose(b, a, rtol=1e-5)


def test_deep_relu_on_its_diagonal(rng):
    """k(x, x) stays as it is under He scaling, and the NTK counts the layers: K (depth + 1)."""
    depth = 50
    f, shapes = mlp(jax.nn.relu, depth, np.sqrt(2))
    x = rng.normal(size=(3, 5))
    nngp, ntk = wl.kernel(f, shapes).both(x)
    expected = (x**2).mean(1)
    np.testing.assert_allclose(np.diag(nngp), expected, rtol=1e-12)
    np.testing.assert_allclose(np.diag(ntk), expected * (depth + 1), rtol=1e-12)


# --------------------------------------------------------------------------- equal spellings

DENSE = {
    "matmul": lambda w, x: w @ x,
    "transposed storage": lambda w, x: x @ w.T,
    "dot": lambda w, x: jnp.dot(w, x),
    "einsum": lambda w, x: jnp.einsum("ij,j->i", w, x),
    "einsum reversed": lambda w, x: jnp.einsum("j,ij->i", x, w),
    "sum of products": lambda w, x: (w * x).sum(1),
    "row": lambda w, x: (x[None, :] @ w.T)[0],
    "vmap over rows": lambda w, x: jax.vmap(lambda row: row @ x)(w),
    "scaled weight": lambda w, x: (0.5 * w) @ (2.0 * x),
    "two halves": lambda w, x: w[:, :2] @ x[:2] + w[:, 2:] @ x[2:],
    "blocks of rows": lambda w, x: jnp.concatenate([w[:7] @ x, w[7:] @ x]),
    "tensordot": lambda w, x: jnp.tensordot(w, x, axes=1),
}


@pytest.mark.parametrize("spelling", DENSE)
def test_dense_in_any_spelling(spelling, rng):
    layer = DENSE[spelling]
    x = rng.normal(size=(4, 5))
    shapes = [struct(N, 5), struct(N, N), struct(2, N)]

    def network(layer):
        return lambda p, x: dense(p[2], jax.lax.erf(
            dense(p[1], jax.lax.erf(layer(p[0], x) / np.sqrt(5)))))

    expected = wl.kernel(network(lambda w, x: w @ x), shapes).both(x)
    ours = wl.kernel(network(layer), shapes).both(x)
    for a, b in zip(ours, expected):
        np.testing.assert_allclose(a, b, rtol=1e-12)


RELU = {
    "jax.nn": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "product": lambda x: x * (x > 0),
    "where": lambda x: jnp.where(x > 0, x, 0.0),
    "half": lambda x: (x + jnp.abs(x)) / 2,
    "clip": lambda x: jnp.clip(x, 0),
    "select": lambda x: jax.lax.select(x > 0, x, jnp.zeros_like(x)),
}


@pytest.mark.parametrize("spelling", RELU)
def test_relu_in_any_spelling(spelling, rng):
    x, y = rng.normal(size=(4, 5)), rng.normal(size=(2, 5))
    ours = wl.kernel(*mlp(RELU[spelling], 2)).both(x, y)
    expected = relu_recursion(x, y, 2, 1.0, 0.0)
    for a, b in zip(ours, expected):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_relu_plus_identity_is_a_leaky_relu(rng):
    x = rng.normal(size=(4, 5))
    ours = wl.kernel(*mlp(lambda h: jax.nn.relu(h) + h, 2)).both(x, x[:2])
    expected = wl.kernel(*mlp(lambda h: jnp.where(h > 0, 2 * h, h), 2)).both(x, x[:2])
    for a, b in zip(ours, expected):
        np.testing.assert_allclose(a, b, rtol=1e-10)


# --------------------------------------------------------------------------- parameterization


def test_standard_parameterization_weights_layers_by_width(rng):
    """NTK = N_in K_in + var T_in + 1 per layer (Sohl-Dickstein et al. 2020)."""
    widths, x = (5, 24, 40), rng.normal(size=(4, 5))

    def f(p, x):
        h = jax.nn.relu(p["w1"] @ x + p["b1"])
        h = jax.nn.relu(p["w2"] @ h + p["b2"])
        return p["w3"] @ h

    params = {
        "w1": struct(24, 5), "b1": struct(24), "w2": struct(40, 24), "b2": struct(40),
        "w3": struct(2, 40),
    }
    sw, sb = 1.4, 0.3
    prior = {
        "w1": wl.Prior(0.0, sw / np.sqrt(5)), "w2": wl.Prior(0.0, sw / np.sqrt(24)),
        "w3": wl.Prior(0.0, sw / np.sqrt(40)), "b1": wl.Prior(0.0, sb), "b2": wl.Prior(0.0, sb),
    }
    nngp, ntk = wl.kernel(f, params, prior=prior).both(x)

    def dual(k):
        q = np.sqrt(np.diag(k))
        angle = np.arccos(np.clip(k / np.outer(q, q), -1, 1))
        np.fill_diagonal(angle, 0.0)
        value = np.outer(q, q) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        return value, (np.pi - angle) / (2 * np.pi)

    raw = x @ x.T
    k = sw**2 * raw / widths[0] + sb**2
    t = raw + 1.0
    for n in widths[1:]:
        value, slope = dual(k)
        last = n == widths[-1]
        t = n * value + sw**2 * t * slope + (0.0 if last else 1.0)
        k = sw**2 * value + (0.0 if last else sb**2)
    np.testing.assert_allclose(nngp, k, rtol=1e-10)
    np.testing.assert_allclose(ntk, t, rtol=1e-7)


def test_frozen_arrays_stay_in_the_prior_and_leave_the_tangent_kernel(rng):
    f, shapes = mlp(jax.nn.relu, 2, 1.2, 0.3)
    x = rng.normal(size=(3, 5))
    full = wl.kernel(f, shapes)
    names = full.names
    parts = [
        wl.kernel(f, shapes, trainable=lambda name, struct, one=one: name == one)
        for one in names
    ]
    for part in parts:
        np.testing.assert_allclose(part.nngp(x), full.nngp(x), rtol=1e-12)
    np.testing.assert_allclose(sum(p.ntk(x) for p in parts), full.ntk(x), rtol=1e-10)
    none = wl.kernel(f, shapes, trainable=False)
    assert np.all(np.asarray(none.ntk(x)) == 0)


def test_constant_scale_and_offset_of_a_layer_norm(rng):
    """At scale 1 and offset 0 the NNGP is that without them; each adds its term to the NTK."""

    def normalise(h):
        return (h - h.mean()) / jnp.sqrt(h.var() + 1e-6)

    def f(p, x):
        return dense(p["v"], jax.nn.relu(normalise(dense(p["w"], x)) * p["g"] + p["o"]))

    params = {"w": struct(N, 5), "v": struct(1, N), "g": struct(N), "o": struct(N)}
    prior = {
        "w": wl.Prior(), "v": wl.Prior(), "g": wl.Prior(1.0, 0.0), "o": wl.Prior(0.0, 0.0),
    }
    x = rng.normal(size=(4, 5))
    kernel = wl.kernel(f, params, prior=prior)
    plain = wl.kernel(
        lambda p, x: dense(p[1], jax.nn.relu(normalise(dense(p[0], x)))),
        [struct(N, 5), struct(1, N)],
    )
    np.testing.assert_allclose(kernel.nngp(x), plain.nngp(x), rtol=1e-9)
    q = (x**2).mean(1)
    rho = x @ x.T / 5 / np.sqrt(np.outer(q + 1e-6, q + 1e-6))
    angle = np.arccos(np.clip(x @ x.T / 5 / np.sqrt(np.outer(q, q)), -1, 1))
    np.fill_diagonal(angle, 0.0)
    extra = (np.pi - angle) / (2 * np.pi) * (rho + 1.0)
    np.testing.assert_allclose(kernel.ntk(x) - plain.ntk(x), extra, rtol=1e-6)


# --------------------------------------------------------------------------- pytrees


def test_several_inputs_and_outputs(rng):
    def f(p, x):
        h = jax.nn.relu(dense(p["a"], x["left"]) + dense(p["b"], x["right"]))
        return {"score": p["v"] @ h / np.sqrt(N), "same": (dense(p["c"], h), x["left"][0])}

    params = {"a": struct(N, 5), "b": struct(N, 3), "c": struct(7, N), "v": struct(N)}
    x = {"left": rng.normal(size=(4, 5)), "right": rng.normal(size=(4, 3))}
    y = {"left": rng.normal(size=(2, 5)), "right": rng.normal(size=(2, 3))}
    out = wl.kernel(f, params).both(x, y)
    assert out.nngp["score"].shape == (4, 2)
    np.testing.assert_allclose(out.nngp["score"], out.nngp["same"][0], rtol=1e-12)
    np.testing.assert_allclose(
        out.nngp["same"][1], np.outer(x["left"][:, 0], y["left"][:, 0]), rtol=1e-12
    )
    assert np.all(np.asarray(out.ntk["same"][1]) == 0)
    single = wl.kernel(
        lambda p, x: dense(p[1], jax.nn.relu(p[0] @ x)), [struct(N, 8), struct(1, N)]
    )
    joint = lambda z: np.concatenate([z["left"] / np.sqrt(5), z["right"] / np.sqrt(3)], 1)
    np.testing.assert_allclose(out.nngp["score"], single.nngp(joint(x), joint(y)), rtol=1e-11)


# --------------------------------------------------------------------------- transformations


@pytest.mark.parametrize(
    "act",
    [jnp.sin, *(pytest.param(f, marks=pytest.mark.slow) for f in (jax.lax.erf, jax.nn.gelu))],
    ids=["sin", "erf", "gelu"],
)
def test_jit_and_vmap_and_grad(act, rng):
    f, shapes = mlp(act, 2, 1.2, 0.3)
    kernel = wl.kernel(f, shapes)
    x1, x2 = rng.normal(size=(3, 5)), rng.normal(size=(2, 5))
    plain = kernel.ntk(x1, x2)
    np.testing.assert_allclose(jax.jit(lambda k, a, b: k.ntk(a, b))(kernel, x1, x2), plain,
                               rtol=1e-12)
    batched = jax.vmap(lambda a: kernel.ntk(a, x2))(jnp.stack([x1, 2 * x1]))
    np.testing.assert_allclose(batched[0], plain, rtol=1e-12)
    np.testing.assert_allclose(batched[1], kernel.ntk(2 * x1, x2), rtol=1e-12)

    direction = rng.normal(size=x1.shape)
    total = lambda a: kernel.ntk(a, x2).sum() + kernel.nngp(a).sum()
    slope = jnp.vdot(jax.grad(total)(jnp.asarray(x1)), direction)
    step = 1e-5
    numeric = (total(x1 + step * direction) - total(x1 - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, numeric, rtol=1e-6)


@pytest.mark.parametrize("act", [jax.nn.relu, jnp.tanh], ids=["formula", "series"])
def test_constant_inputs_inside_jit(act, rng):
    kernel = wl.kernel(*mlp(act, 1, 1.2, 0.3))
    x = rng.normal(size=(3, 5))
    for read in (kernel.ntk, kernel.ntk_diagonal):
        np.testing.assert_allclose(jax.jit(lambda read=read: read(x))(), read(x), rtol=1e-11)


@pytest.mark.parametrize(
    "act", [jax.nn.relu, pytest.param(jax.nn.elu, marks=pytest.mark.slow), jnp.sin],
    ids=["relu", "elu", "sin"],
)
def test_gradient_in_prior_scales(act, rng):
    f, shapes = mlp(act, 2, 1.2, 0.3)
    kernel = wl.kernel(f, shapes)
    x = rng.normal(size=(3, 5))

    def total(stds):
        changed = jax.tree.unflatten(jax.tree.structure(kernel), stds)
        nngp, ntk = changed.both(x)
        return nngp.sum() + ntk.sum()

    stds = [jnp.asarray(s, jnp.float64) for s in jax.tree.leaves(kernel)]
    gradient = jax.grad(total)(stds)
    for i in range(len(stds)):
        moved = lambda e, i=i: [s + e if j == i else s for j, s in enumerate(stds)]
        numeric = (total(moved(1e-6)) - total(moved(-1e-6))) / 2e-6
        np.testing.assert_allclose(gradient[i], numeric, rtol=2e-5, atol=1e-7)


# --------------------------------------------------------------------------- duplicates

ACTS = {
    "relu": jax.nn.relu, "leaky": lambda x: jax.nn.leaky_relu(x, 0.2), "abs": jnp.abs,
    "erf": jax.lax.erf, "gelu": lambda x: jax.nn.gelu(x, approximate=False), "tanh": jnp.tanh,
    "step": lambda x: jnp.where(x > 0, 1.0, 0.0),
}


@pytest.mark.parametrize("name", [
    name if name == "relu" else pytest.param(name, marks=pytest.mark.slow)
    for name in ACTS
])
def test_duplicates_and_near_duplicates(name, rng):
    """Grams are PSD, gradients finite, and float32 agrees with float64."""
    base = rng.normal(size=(12, 5))
    near = [base[:4]] + [
        base[i : i + 2] * (1 + e) + e * rng.normal(size=(2, 5))
        for i, e in enumerate([1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3])
    ]
    x = np.concatenate([base, *near])
    f, shapes = mlp(ACTS[name], 3, 1.4, 0.1)
    kernel = wl.kernel(f, shapes)
    for k in kernel.both(x):
        k = np.asarray(k)
        assert np.all(np.isfinite(k))
        assert np.linalg.eigvalsh((k + k.T) / 2).min() >= -1e-12 * np.linalg.norm(k)
    gradient = jax.grad(lambda a: kernel.ntk(a).sum() + kernel.nngp(a).sum())(jnp.asarray(x))
    assert np.all(np.isfinite(gradient))
    # Inputs that float32 holds exactly, so that both precisions see the same numbers.
    exact = x.astype(np.float32)
    for a, b in zip(kernel.both(exact.astype(np.float64)), kernel.both(exact)):
        scale = np.sqrt(np.outer(np.diag(a), np.diag(a))) + 1e-30
        if name != "step":  # its dual has infinite slope at correlation one
            assert np.max(np.abs(np.asarray(a) - b) / scale) <= 1e-5


# --------------------------------------------------------------------------- tiles


def test_tiles_change_nothing(rng, monkeypatch):
    f, shapes = mlp(jax.nn.relu, 2, 1.2, 0.3)
    x, y = rng.normal(size=(23, 5)), rng.normal(size=(11, 5))
    whole = wl.kernel(f, shapes)
    expected = whole.both(x), whole.both(x, y)
    module = sys.modules["widelimit.kernel._program"]
    monkeypatch.setattr(module, "TILE", 8)
    tiled = wl.kernel(f, shapes)
    for ours, theirs in zip((tiled.both(x), tiled.both(x, y)), expected):
        for a, b in zip(ours, theirs):
            np.testing.assert_allclose(a, b, rtol=1e-9)
    monkeypatch.setattr(module, "MEMORY", 1)
    with pytest.raises(MemoryError, match="one pair"):
        wl.kernel(f, shapes).nngp(x)
