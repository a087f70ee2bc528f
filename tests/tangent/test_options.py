"""Axes, subsets, weights, tiles, pytrees, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import widelimit as wl
from tangent.brute import kernel, relative_error
from widelimit.tangent import _ntk

METHODS = ("structured", "jacobian", "vector_products")


def network(p, x):
    h = jnp.tanh(jnp.einsum("id,ti->td", p["w"], x) + p["b"])
    return jnp.einsum("td,dck->tck", h, p["v"]) * p["s"]


@pytest.fixture(scope="module")
def setting():
    rng = np.random.default_rng(3)
    draw = lambda *s: jnp.asarray(rng.normal(size=s))
    p = {"w": draw(3, 5), "b": draw(5), "v": draw(5, 2, 3), "s": draw(2, 3)}
    return p, draw(4, 2, 3), draw(3, 2, 3)


def reduced(full, trace, diagonal):
    """The definition of the axes, on a kernel (n1, n2, *out, *out) with three output axes."""
    left, right = list("abc"), list("xyz")
    for k in (*trace, *diagonal):
        right[k] = left[k]
    keep = [k for k in range(3) if k not in trace and k not in diagonal]
    out = [left[k] for k in diagonal] + [left[k] for k in keep] + [right[k] for k in keep]
    size = np.prod([full.shape[2 + k] for k in trace])
    return np.einsum(f"mn{''.join(left + right)}->mn{''.join(out)}", full) / size


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("trace", "diagonal"),
    [((), (1,)), ((2,), ()), ((0, 2), ()), ((), (0, 2)), ((1,), (0,)), ((0, 1, 2), ()),
     ((2,), (0, 1)), ((-1,), (-3,))],
)
def test_axes(setting, method, trace, diagonal):
    p, x, _ = setting
    full = np.asarray(kernel(network, p, x))
    canonical = lambda axes: tuple(sorted(a % 3 for a in axes))
    expected = reduced(full, canonical(trace), canonical(diagonal))
    found = wl.empirical_ntk(network, p, x, method=method, trace_axes=trace, diagonal_axes=diagonal)
    assert relative_error(found, expected) <= 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_parameters_apart_weighted_and_frozen(setting, method):
    p, x, y = setting
    parts = wl.empirical_ntk(network, p, x, y, method=method, by_parameter=True)
    assert set(parts) == {"w", "b", "v", "s"}
    for name, part in parts.items():
        alone = lambda q, e, name=name: network({**p, name: q}, e)
        assert relative_error(part, kernel(alone, p[name], x, y)) <= 1e-12
    total = wl.empirical_ntk(network, p, x, y, method=method)
    np.testing.assert_allclose(sum(parts.values()), total, rtol=1e-10)
    rates = {"w": 0.5, "v": jnp.linspace(0, 2, 30).reshape(5, 2, 3)}
    weighted = wl.empirical_ntk(network, p, x, y, method=method, weights=rates)
    scaled = lambda q, e: network({**p, "v": p["v"] + jnp.sqrt(rates["v"]) * q}, e)
    v = kernel(scaled, jnp.zeros_like(p["v"]), x, y)
    expected = 0.5 * parts["w"] + parts["b"] + v + parts["s"]
    assert relative_error(weighted, expected) <= 1e-12
    chosen = wl.empirical_ntk(network, p, x, y, method=method, trainable={"w": True, "b": True,
                              "v": False, "s": False})
    assert relative_error(chosen, parts["w"] + parts["b"]) <= 1e-12
    named = wl.empirical_ntk(network, p, x, y, method=method, trainable=lambda n, s: n in "wb")
    assert relative_error(named, chosen) <= 1e-14


@pytest.mark.parametrize("method", METHODS)
def test_tiles_are_the_whole(setting, method):
    p, x, y = setting
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(11, 2, 3))), jnp.asarray(rng.normal(size=(7, 2, 3)))
    whole = lambda a, b, **kw: wl.empirical_ntk(network, p, a, b, method=method, **kw)
    tiled = lambda a, b, **kw: whole(a, b, memory=60_000, **kw)
    assert relative_error(tiled(x, y), whole(x, y)) <= 1e-13
    square = tiled(x, None, trace_axes=1, diagonal_axes=0)
    assert relative_error(square, whole(x, None, trace_axes=1, diagonal_axes=0)) <= 1e-13
    assert relative_error(square, np.transpose(square, (1, 0, 2, 4, 3))) <= 1e-14


def test_tiles_were_used(setting, monkeypatch):
    p, x, _ = setting
    calls = []
    real = _ntk.Program._tiled
    monkeypatch.setattr(_ntk.Program, "_tiled", lambda *a: calls.append(a[-1]) or real(*a))
    x = jnp.concatenate([x] * 3)
    wl.empirical_ntk(network, p, x, method="structured", memory=60_001)
    assert calls and calls[0] < len(x)


def test_one_pair_beyond_the_bound_is_refused(setting):
    p, x, _ = setting
    with pytest.raises(MemoryError, match="one pair of examples"):
        wl.empirical_ntk(network, p, x, method="jacobian", memory=1000)


def test_kernels_are_differentiable_and_jittable(setting):
    p, x, y = setting
    mean = lambda p, m: wl.empirical_ntk(network, p, x, y, method=m, trace_axes=(0, 1, 2)).sum()
    grads = [jax.jit(jax.grad(mean), static_argnums=1)(p, m) for m in ("structured", "jacobian")]
    for a, b in zip(*map(jax.tree.leaves, grads)):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_new_parameters_and_constants_are_not_confused_with_old_ones():
    f = lambda p, x: p["k"] * (p["w"] @ x) + p["rows"].sum()
    x = jnp.eye(3)
    for scale, k in ((1.0, 2), (1.0, 3), (5.0, 3)):
        p = {"w": scale * jnp.ones((2, 3)), "k": k, "rows": jnp.array([k, 1])}
        g = lambda q, e, p=p: f({**p, "w": q}, e)
        assert relative_error(wl.empirical_ntk(f, p, x), kernel(g, p["w"], x)) <= 1e-14
    f2 = lambda p, x: jnp.where(p["flag"] == 1, 2.0, 1.0) * (p["w"] @ x)
    for flag in (1, 0):
        found = wl.empirical_ntk(f2, {"w": jnp.ones((2, 3)), "flag": jnp.array(flag)}, x)
        assert float(found[0, 0, 0, 0]) == (4.0 if flag else 1.0)


def test_a_trial_takes_one_of_the_methods(setting):
    p, x, y = setting
    found = wl.empirical_ntk(network, p, x, y, trial=True)
    assert relative_error(found, kernel(network, p, x, y)) <= 1e-12


def test_auto_prefers_columns_for_one_example_with_many_outputs():
    f = lambda p, x: (jnp.tanh(jnp.einsum("abij,tj->abti", p[0], x)) * p[1]).reshape(-1)[:2000]
    p = [jnp.ones((2, 2, 8, 8)), jnp.ones((2, 2, 64, 8))]
    found = wl.empirical_ntk(f, p, jnp.ones((1, 64, 8)), trace_axes=0)
    assert found.shape == (1, 1)


def test_nngp_is_the_product_of_outputs(setting):
    p, x, y = setting
    a, b = (np.asarray(jax.vmap(lambda e: network(p, e))(z)) for z in (x, y))
    full = np.einsum("mabc,nxyz->mnabcxyz", a, b)
    np.testing.assert_allclose(wl.empirical_nngp(network, p, x, y), full, rtol=1e-12)
    found = wl.empirical_nngp(network, p, x, trace_axes=2, diagonal_axes=1)
    expected = reduced(np.einsum("mabc,nxyz->mnabcxyz", a, a), (2,), (1,))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "fast"}, "method='fast'"),
        ({"trace_axes": 3}, "no axis"),
        ({"trace_axes": (0, 0)}, "twice"),
        ({"trace_axes": 0, "diagonal_axes": -3}, "in trace_axes and in diagonal_axes"),
        ({"weights": -1.0}, "negative"),
        ({"weights": {"w": jnp.ones(3)}}, "its weight"),
        ({"weights": {"u": 1.0}}, "no parameter is called"),
        ({"trainable": False}, "no parameters are left"),
    ],
)
def test_refusals(setting, options, match):
    p, x, _ = setting
    with pytest.raises(ValueError, match=match):
        wl.empirical_ntk(network, p, x, **options)


def test_refused_inputs(setting):
    p, x, y = setting
    with pytest.raises(ValueError, match="NaN"):
        wl.empirical_ntk(network, p, x.at[0].set(jnp.nan))
    with pytest.raises(ValueError, match="alike"):
        wl.empirical_ntk(network, p, x, y[:, :1])
    with pytest.raises(ValueError, match="batch axis"):
        wl.empirical_ntk(network, p, 1.0)
    with pytest.raises(ValueError, match="complex"):
        wl.empirical_ntk(lambda w, e: w @ e, jnp.ones((2, 3)) * 1j, jnp.eye(3))
    with pytest.raises(ValueError, match="has no tangent kernel"):
        wl.empirical_ntk(lambda w, e: jnp.argmax(w @ e), jnp.ones((2, 3)), jnp.eye(3))
    with pytest.raises(ValueError, match="abstract"):
        wl.empirical_ntk(network, jax.eval_shape(lambda: p), x)


# ---------------------------------------------------------------- random networks


@st.composite
def programs(draw):
    """Layers that use, re-use and rearrange a few weights, with output axes to trace over."""
    width = draw(st.sampled_from([1, 2, 4]))
    weights = draw(st.integers(1, 3))
    kinds = ["dense", "transposed", "gain", "reshape", "slice", "scan", "roll", "skip"]
    step = st.tuples(st.sampled_from(kinds), st.integers(0, weights - 1))
    steps = draw(st.lists(step, min_size=1, max_size=4))
    positions = draw(st.integers(1, 3))
    axes = draw(st.lists(st.sampled_from(["full", "trace", "diagonal"]), min_size=2, max_size=2))
    nested = draw(st.booleans())
    return width, weights, steps, positions, axes, nested


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_networks(program):
    width, count, steps, positions, axes, nested = program

    def f(p, x):
        p = p["inner"][0] if nested else p
        first, h = x, x
        for kind, k in steps:
            w = p[k]
            if kind == "dense":
                h = jnp.tanh(h @ w)
            elif kind == "transposed":
                h = jnp.sin(h @ w.T)
            elif kind == "gain":
                h = h * w.sum(0)
            elif kind == "reshape":
                h = h @ w.reshape(-1).reshape(w.shape, order="F")
            elif kind == "slice":
                h = h.at[:, :1].add(w[:1, :1])
            elif kind == "scan":
                h = jax.lax.scan(lambda c, r, w=w: (jnp.tanh(c @ w + r),) * 2, h[0], h)[1]
            elif kind == "roll":
                h = h + jnp.roll(w, 1, axis=0)[0]
            else:
                h = h + first
        return h

    rng = np.random.default_rng(0)
    weights = [jnp.asarray(rng.normal(size=(width, width))) for _ in range(count)]
    params = {"inner": (weights, 3)} if nested else weights
    x = jnp.asarray(rng.normal(size=(3, positions, width)))
    trace = tuple(k for k, a in enumerate(axes) if a == "trace")
    diagonal = tuple(k for k, a in enumerate(axes) if a == "diagonal")
    left, right = list("ab"), list("xy")
    for k in (*trace, *diagonal):
        right[k] = left[k]
    keep = [k for k in range(2) if axes[k] == "full"]
    out = [left[k] for k in diagonal] + [left[k] for k in keep] + [right[k] for k in keep]
    full = np.asarray(kernel(f, params, x))
    scale = np.prod([full.shape[2 + k] for k in trace])
    expected = np.einsum(f"mn{''.join(left + right)}->mn{''.join(out)}", full) / scale
    for method in ("structured", "jacobian"):
        found = wl.empirical_ntk(
            f, params, x, method=method, trace_axes=trace, diagonal_axes=diagonal
        )
        assert relative_error(found, expected) <= 1e-10
