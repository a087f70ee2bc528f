"""verify() on networks whose limit is known, and on deliberately wrong limits."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import widelimit as wl
from widelimit import finite
from widelimit.errors import WideLimitError
from widelimit.finite import _verify, verify
from widelimit.finite._widen import network, widen
from widelimit.kernel import kernel
from widelimit.models import describe, sample

erf = jax.scipy.special.erf


def shapes(*sizes):
    return [jax.ShapeDtypeStruct(s, jnp.float32) for s in sizes]


def mlp(params, x):
    first, bias, second, last = params
    h = jax.nn.relu(first @ x / jnp.sqrt(x.size) + 0.3 * bias)
    h = erf(second @ h * jnp.sqrt(2 / h.size))
    return last @ h / jnp.sqrt(h.size)


MLP = shapes((32, 3), (32,), (32, 32), (1, 32))


def fixed_scale(params, x):
    h = erf(params[0] @ x)
    h = erf(params[1] @ h / 6.0)
    return jnp.dot(params[2], h) / 6.0


@pytest.fixture
def x():
    return jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)), jnp.float32)


# --------------------------------------------------------------------------- verdicts


def test_a_right_kernel_agrees(x):
    report = verify(mlp, MLP, x, multipliers=(1, 2, 4))
    assert report.agrees
    assert report.verdict == "agrees"
    assert [r.width for r in report.rows] == [32, 64, 128]
    for slope in report.slopes.values():
        assert slope == pytest.approx(-0.5, abs=0.15)


@pytest.mark.parametrize("factor", [pytest.param(0.97, marks=pytest.mark.slow), 1.03])
def test_a_kernel_three_percent_off_is_flagged(x, monkeypatch, factor):
    right = _verify._limit

    def wrong(net, x, kind):
        return [b * (factor if kind == "nngp" else 1.0) for b in right(net, x, kind)]

    monkeypatch.setattr(_verify, "_limit", wrong)
    report = verify(mlp, MLP, x, multipliers=(1, 2, 4, 8), key=jax.random.key(3))
    assert report.nngp.verdict == "disagrees"
    assert report.ntk.verdict == "agrees"
    assert report.verdict == "disagrees"
    assert not report.agrees


def one_wrong_entry(monkeypatch, share):
    right = _verify._limit

    def wrong(net, x, kind):
        (block,) = right(net, x, kind)
        block = block.copy()
        block[0, 1] += share * np.sqrt(block[0, 0] * block[1, 1]).item()
        return [block]

    monkeypatch.setattr(_verify, "_limit", wrong)


def test_one_wrong_entry_is_flagged(x, monkeypatch):
    one_wrong_entry(monkeypatch, 0.05)
    assert verify(mlp, MLP, x, multipliers=(1, 2, 4), ntk=False).verdict == "disagrees"


def test_few_draws_are_inconclusive_not_wrong(x):
    report = verify(mlp, MLP, x, draws=16, multipliers=(1, 2))
    assert report.verdict == "inconclusive"
    assert any("draws" in note for note in report.notes)
    assert [r.nngp.draws for r in report.rows] == [16, 16]


def test_one_wrong_entry_is_flagged_where_nothing_is_random(x, monkeypatch):
    one_wrong_entry(monkeypatch, 0.03)
    assert verify(lambda w, x: w @ x, shapes((4, 3))[0], x).ntk.verdict == "disagrees"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_deep_narrow_network_is_never_called_wrong(x, seed):
    def deep(params, x):
        for w in params[:-1]:
            x = jax.nn.relu(w @ x) * jnp.sqrt(2 / x.size)
        return params[-1] @ x / jnp.sqrt(x.size)

    sizes = shapes((8, 3), *[(8, 8)] * 7, (1, 8))
    report = verify(deep, sizes, x, key=jax.random.key(seed))
    assert report.verdict != "disagrees"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_products_of_fields_are_never_called_wrong(x, seed):
    def gated(params, x):
        a, b, c = params
        h = (a @ x) ** 3 * jax.nn.sigmoid(b @ x)
        return c @ h / jnp.sqrt(h.size)

    report = verify(gated, shapes((24, 3), (24, 3), (1, 24)), x, key=jax.random.key(seed))
    assert report.verdict != "disagrees"


# --------------------------------------------------------------------------- calling it


@pytest.mark.slow
def test_the_same_key_gives_the_same_report(x):
    options = {"draws": 8, "multipliers": (1, 2), "key": jax.random.key(5)}
    one, two = (verify(mlp, MLP, x, **options) for _ in range(2))
    assert one.nngp == two.nngp
    assert one.ntk == two.ntk


@pytest.mark.slow
def test_modules_kernels_and_keywords(x):
    model = eqx.nn.MLP(3, 2, 16, 1, key=jax.random.key(0))
    options = {"draws": 4, "multipliers": (1, 2)}
    from_model = verify(model, x, **options)
    assert [r.width for r in from_model.rows] == [16, 32]
    from_kernel = verify(kernel(model), x, **options)
    from_keywords = verify(model, x=x, **options)
    assert from_model.nngp == from_kernel.nngp == from_keywords.nngp


def test_layer_norm_of_equinox_is_widened(x):
    layers = eqx.nn.Sequential(
        [
            eqx.nn.Linear(3, 16, key=jax.random.key(0)),
            eqx.nn.LayerNorm(16),
            eqx.nn.Lambda(erf),
            eqx.nn.Linear(16, 1, key=jax.random.key(1)),
        ]
    )
    report = verify(layers, x, draws=4, multipliers=(1, 2, 3))
    assert [r.width for r in report.rows] == [16, 32, 48]
    assert layers[1].shape == (16,)


def test_inputs_and_outputs_may_be_trees(x):
    def two(params, inputs):
        h = erf(params[0] @ inputs["a"] + params[1] @ inputs["b"])
        return {"wide": params[2] @ h / jnp.sqrt(h.size), "own": h}

    inputs = {"a": x, "b": x[:, :2]}
    sizes = shapes((16, 3), (16, 2), (2, 16))
    report = verify(two, sizes, inputs, draws=8, multipliers=(1, 2))
    assert len(report.rows) == 2


def test_only_the_nngp(x):
    report = verify(mlp, MLP, x, draws=4, multipliers=(1,), ntk=False)
    assert report.ntk is None
    assert report.rows[0].ntk is None
    assert list(report.slopes) == ["nngp"]


def test_frozen_parameters_are_left_out_of_the_ntk(x):
    options = {"draws": 4, "multipliers": (1,), "trainable": [False, False, False, True]}
    report = verify(mlp, MLP, x, **options)
    assert report.rows[0].ntk.deviation == pytest.approx(report.rows[0].nngp.deviation, rel=1e-4)


def test_make_overrides_widening(x):
    seen = []

    def make(multiplier):
        seen.append(multiplier)
        return mlp, shapes((8 * multiplier, 3), (8 * multiplier,),
                           (8 * multiplier, 8 * multiplier), (1, 8 * multiplier))

    report = verify(None, x, make=make, draws=4, multipliers=(1, 2))
    assert seen == [1, 2]
    assert [r.width for r in report.rows] == [8, 16]


def test_a_network_without_width_is_compared_once(x):
    report = verify(lambda w, x: w @ x, shapes((4, 3))[0], x)
    assert [r.width for r in report.rows] == [0]
    assert report.agrees


# --------------------------------------------------------------------------- widening


def test_literal_scales_are_made_up_for(x):
    base = network(describe(fixed_scale, shapes((36, 3), (36, 36), (36,))), x)
    wide = widen(base, x, 4)
    assert [a.shape for a in wide.description.arrays] == [(144, 3), (144, 144), (144,)]
    assert [float(p.std) for p in wide.description.priors] == pytest.approx([1, 0.5, 0.5])
    np.testing.assert_allclose(wide.kernel.nngp(x), base.kernel.nngp(x), rtol=1e-5)


def test_scales_from_shapes_need_nothing(x):
    base = network(describe(mlp, MLP), x)
    wide = widen(base, x, 0.5)
    assert [a.shape for a in wide.description.arrays] == [(16, 3), (16,), (16, 16), (1, 16)]
    assert all(float(p.std) == 1 for p in wide.description.priors)


def test_code_with_literal_shapes_falls_back(x):
    def stubborn(params, x):
        h = erf(params[0] @ x).reshape(16)
        return params[1] @ h / 4.0

    report = verify(stubborn, shapes((16, 3), (1, 16)), x, draws=8)
    assert [r.multiplier for r in report.rows] == [1]
    assert any("not widened" in note and "make" in note for note in report.notes)


def test_a_recurrent_weight_keeps_its_scale(x):
    def rnn(params, x):
        u, w, v = params
        h = jnp.zeros(w.shape[0])
        for t in range(3):
            h = erf(u @ x[t : t + 1] + w @ h / 4.0)
        return v @ h / 4.0

    wide = widen(network(describe(rnn, shapes((16, 1), (16, 16), (1, 16))), x), x, 4)
    assert [a.shape for a in wide.description.arrays] == [(64, 1), (64, 64), (1, 64)]
    assert [float(p.std) for p in wide.description.priors] == pytest.approx([1, 0.5, 0.5])


# --------------------------------------------------------------------------- kernels of a draw


def test_empirical_kernels_are_those_of_the_definition(x):
    k = kernel(mlp, shapes((5, 3), (5,), (5, 5), (2, 5)))
    arrays = sample(k.description, jax.random.key(1), jnp.float32)
    f = jax.vmap(lambda e: mlp(arrays, e))(x)
    np.testing.assert_allclose(finite.empirical_nngp(k, arrays, x), f @ f.T / 2, rtol=1e-5)
    jacobians = jax.jacobian(lambda p: jax.vmap(lambda e: mlp(p, e))(x))(arrays)
    flat = jnp.concatenate([j.reshape(3, 2, -1) for j in jacobians], -1)
    expected = jnp.einsum("acp,bcp->ab", flat, flat) / 2
    np.testing.assert_allclose(finite.empirical_ntk(k, arrays, x), expected, rtol=1e-4)


def test_positions_are_kept():
    def tokens(params, x):
        h = erf(x @ params[0])
        return h @ params[1] / jnp.sqrt(h.shape[-1])

    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 3)), jnp.float32)
    k = kernel(tokens, shapes((3, 6), (6, 5)))
    found = finite.sample_kernels(k, x, jax.random.key(0), 3)
    assert found.nngp.shape == (3, *k.nngp(x).shape) == (3, 2, 2, 4, 4)
    assert found.ntk.shape == (3, *k.ntk(x).shape)
    arrays = sample(k.description, jax.random.key(1), jnp.float32)
    f = jax.vmap(lambda e: tokens(arrays, e))(x)
    np.testing.assert_allclose(
        finite.empirical_nngp(k, arrays, x), jnp.einsum("aic,bjc->abij", f, f) / 5, rtol=1e-4
    )


def test_functions_without_a_forward_derivative(x):
    @jax.custom_vjp
    def square(h):
        return h * h

    square.defvjp(lambda h: (h * h, h), lambda h, g: (2 * h * g,))

    def through(f):
        return lambda p, x: p[1] @ f(p[0] @ x) / jnp.sqrt(p[1].shape[1])

    sizes = shapes((5, 3), (2, 5))
    plain = kernel(through(lambda h: h * h), sizes)
    arrays = sample(plain.description, jax.random.key(1), jnp.float32)
    custom = kernel(through(square), sizes)
    np.testing.assert_allclose(
        finite.empirical_ntk(custom, arrays, x), finite.empirical_ntk(plain, arrays, x), rtol=1e-5
    )


# --------------------------------------------------------------------------- reports and errors


def test_reports_are_readable_and_serialisable(x):
    report = verify(mlp, MLP, x, draws=4, multipliers=(1, 2))
    data = json.loads(json.dumps(report.to_dict()))
    assert data["verdict"] == report.verdict
    assert data["rows"][1]["width"] == 64
    text = str(report)
    assert "64 (×2)" in text
    assert f"verdict: {report.verdict}" in text
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report)
    console.file.close()
    assert report.table().row_count == 2


@pytest.mark.parametrize(
    "options",
    [
        {"draws": 1},
        {"draws": 2.5},
        {"multipliers": ()},
        {"multipliers": (0, 1)},
        {"tolerance": 0},
    ],
)
def test_bad_options(x, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        verify(mlp, MLP, x, **options)


def test_bad_calls(x):
    with pytest.raises(ValueError, match="inputs"):
        verify(mlp)
    with pytest.raises(ValueError, match="batch"):
        verify(mlp, MLP, MLP, x)
    with pytest.raises(ValueError, match="Kernel"):
        verify(kernel(mlp, MLP), MLP, x)
    with pytest.raises(ValueError, match="NaN"):
        verify(mlp, MLP, x.at[0, 0].set(jnp.nan))


def test_a_refused_network_cannot_be_verified(x):
    def tied(params, x):
        return params[0].T @ erf(params[0] @ x)

    with pytest.raises(WideLimitError):
        verify(tied, shapes((16, 3)), x)
    assert wl.WideLimitError is WideLimitError
