"""Cotangents kept as products, and narrow places before the outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import widelimit as wl
from tangent.brute import kernel, relative_error
from tangent.zoo import conv, normal
from widelimit.tangent import _features
from widelimit.tangent._bottleneck import narrowest
from widelimit.tangent._separable import merged, separable
from widelimit.tangent._terms import Seeds, Term, dense, fresh
from widelimit.tangent._walk import Value


@jax.custom_jvp
def mixing(x):
    """Entry by entry, with a derivative that is not."""
    return jnp.sin(x)


mixing.defjvp(lambda a, t: (jnp.sin(a[0]), jnp.cumsum(t[0], -1)))


def with_backward(rule):
    """A hyperbolic tangent with a backward pass that somebody wrote."""
    f = jax.custom_vjp(jnp.tanh)
    f.defvjp(lambda x: (jnp.tanh(x), x), rule)
    return f


clipped = with_backward(lambda x, c: (jnp.clip(c * jnp.cos(x), -0.1, 0.1),))
shifted = with_backward(lambda x, c: (c + 0.3,))
chosen = with_backward(lambda x, c: (jnp.where(x > 0, c, 0.2),))
constant = with_backward(lambda x, c: (jnp.cos(x),))
straight = with_backward(lambda x, c: (c,))


@jax.jit
def shared(p, x):
    return jnp.tanh(p[0] @ x) @ p[0]


def scanned(p, x):
    step = lambda h, r: (jnp.tanh(p[0] @ h + r), h.sum())
    return p[1] @ lax.scan(step, jnp.zeros(3), x)[0]


# name -> (function, shapes of the parameters, shape of an example)
POOLED = {
    "gelu": lambda p, x: jax.nn.gelu(x @ p[0]).mean(0) @ p[1],
    "two nonlinearities": lambda p, x: jnp.tanh(jax.nn.silu(x @ p[0]) ** 2).mean(0) @ p[1],
    "weighted": lambda p, x: (jax.nn.relu(x @ p[0]) * x[:, :1]).sum(0) @ p[1],
    "weighted by a weight": lambda p, x: (jnp.sin(x @ p[0]) * p[1][:, 0]).mean(0) @ p[1],
    "both operands": lambda p, x: jnp.maximum(x @ p[0], jnp.cos(x @ p[0])).mean(0) @ p[1],
    "twice": lambda p, x: (lambda h: h + 2 * jnp.tanh(h))(x @ p[0]).mean(0) @ p[1],
    "with itself": lambda p, x: (lambda h: h * h)(x @ p[0]).mean(0) @ p[1],
    "no sum": lambda p, x: jnp.exp(-jnp.abs(x @ p[0])) @ p[1],
    "softmax": lambda p, x: jax.nn.softmax(x @ p[0]).mean(0) @ p[1],
    "mixing derivative": lambda p, x: mixing(x @ p[0]).mean(0) @ p[1],
    "clipped backwards": lambda p, x: clipped(x @ p[0]).mean(0) @ p[1],
    "shifted backwards": lambda p, x: shifted(x @ p[0]).mean(0) @ p[1],
    "chosen backwards": lambda p, x: chosen(x @ p[0]).mean(0) @ p[1],
    "constant backwards": lambda p, x: constant(x @ p[0]).mean(0) @ p[1],
    "straight through": lambda p, x: straight(x @ p[0]).mean(0) @ p[1],
    "branch": lambda p, x: lax.cond(
        x[0, 0] > 0, jnp.tanh, jnp.sin, x @ p[0]).mean(0) @ p[1],
    "normalised": lambda p, x: (lambda h: h / jnp.sqrt((h * h).mean()))(x @ p[0]).mean(0) @ p[1],
    "transposed": lambda p, x: jnp.tanh((x @ p[0]).T).mean(1) @ p[1],
    "parts": lambda p, x: jax.nn.relu((x @ p[0])[::2, 1:]).sum(0) @ p[1][1:],
    "late readout": lambda p, x: jnp.outer(jax.nn.sigmoid(x @ p[0]).mean(0) @ p[1], x[0]),
}
NARROW = {
    "linear readout": (lambda p, x: p[1] @ jnp.tanh(p[0] @ x), [(3, 4), (7, 3)], (4,)),
    "curved readout": (lambda p, x: jnp.tanh(p[1] @ jnp.sin(p[0] @ x)), [(3, 4), (7, 3)], (4,)),
    "softmax": (lambda p, x: jax.nn.softmax(p[1] @ jnp.sin(p[0] @ x)), [(3, 4), (7, 3)], (4,)),
    "input again": (
        lambda p, x: p[1] @ jnp.sin(p[0] @ x) * x.sum() + p[2], [(3, 4), (7, 3), (7,)], (4,)),
    "scalar": (lambda p, x: p[1] * jnp.tanh(p[0] @ x).sum() ** 2, [(3, 4), (5,)], (4,)),
    "weight in both parts": (
        lambda p, x: p[1] @ jnp.tanh(p[0] @ jnp.sin(p[0] @ x)) + p[0].sum(), [(4, 4), (7, 4)],
        (4,)),
    "compiled": (
        jax.jit(lambda p, x: p[1] @ jax.nn.relu(jax.jit(jnp.dot)(p[0], x))), [(3, 4), (7, 3)],
        (4,)),
    "tied and compiled": (shared, [(3, 7)], (7,)),
    "loop": (scanned, [(3, 3), (8, 3)], (4, 3)),
    "matrix": (
        lambda p, x: jnp.einsum("td,dok->tok", jnp.tanh(x @ p[0]), p[1]), [(3, 2), (2, 3, 4)],
        (2, 3)),
    "convolution": (
        lambda p, x: jax.nn.relu(conv(x, p[0])).mean(0) @ p[1], [(3, 2, 3), (3, 11)], (6, 2)),
    "two paths": (
        lambda p, x: p[1] @ jnp.sin(p[0] @ x) + p[2] @ jnp.cos(p[0] @ x),
        [(3, 4), (7, 3), (7, 3)], (4,)),
    "clipped backwards": (
        lambda p, x: p[1] @ clipped(jnp.sin(p[0] @ x)), [(3, 4), (7, 3)], (4,)),
    "clipped in a call": (
        lambda p, x: p[1] @ jnp.sin(jax.jit(clipped)(p[0] @ x)), [(3, 4), (7, 3)], (4,)),
    "no cut": (lambda p, x: p[1] @ (p[0] @ x) + p[2] @ x, [(3, 4), (7, 3), (7, 4)], (4,)),
}


def arguments(shapes, example):
    params = [normal(s, seed=k) / 2 for k, s in enumerate(shapes)]
    return params, normal((4, *example), seed=50), normal((3, *example), seed=51)


def structured(f, params, x, y, **options):
    return wl.empirical_ntk(f, params, x, y, method="structured", **options)


@pytest.mark.parametrize("name", POOLED)
def test_pooled(name):
    f = POOLED[name]
    params, x, y = arguments([(3, 5), (5, 2)], (4, 3))
    expected = kernel(f, params, jnp.concatenate([x, y]))
    assert relative_error(structured(f, params, x, y), expected[:4, 4:]) <= 1e-12


@pytest.mark.parametrize("name", NARROW)
def test_narrow(name):
    f, shapes, example = NARROW[name]
    params, x, y = arguments(shapes, example)
    expected = kernel(f, params, jnp.concatenate([x, y]))
    assert relative_error(structured(f, params, x, None), expected[:4, :4]) <= 1e-12
    parts = structured(f, params, x, y, by_parameter=True)
    total = sum(np.asarray(p) for p in parts.values())
    assert relative_error(total, expected[:4, 4:]) <= 1e-12


@pytest.mark.parametrize("options", [
    {"trace_axes": -1}, {"diagonal_axes": -1}, {"trainable": {"[0]": True, "[1]": False}},
    {"weights": {"[0]": 0.3, "[1]": 2.0}}, {"memory": 1 << 14},
])
def test_options_of_narrow_networks(options):
    f, shapes, example = NARROW["curved readout"]
    params, x, y = arguments(shapes, example)
    expected = wl.empirical_ntk(f, params, x, y, method="jacobian", **options)
    found = structured(f, params, x, y, **options)
    assert relative_error(found, expected) <= 1e-12
    same = structured(f, params, x, None, **options)
    expected = wl.empirical_ntk(f, params, x, None, method="jacobian", **options)
    assert relative_error(same, expected) <= 1e-12


def deep(p, x):
    return p[2] @ jnp.tanh(p[1] @ jnp.tanh(p[0] @ x))


def operations(outputs):
    params = [normal(s) for s in [(64, 64), (8, 64), (outputs, 8)]]
    run = lambda p, x: structured(deep, p, x, x, trace_axes=-1)
    found = jax.jit(run).lower(params, normal((4, 64))).compile().cost_analysis()
    return (found[0] if isinstance(found, list) else found)["flops"]


def test_the_narrow_place_saves_operations():
    # Eight cotangents go on from the narrow place, whatever the number of outputs.
    assert operations(256) < 1.5 * operations(64)
    params, x = [normal((64, 64)), normal((8, 64)), normal((256, 8))], normal((64,))
    values = [*(Value(p, True, False) for p in params), Value(x, False, True)]
    cut = narrowest(jax.make_jaxpr(deep)(params, x).jaxpr, values, 256)
    assert cut.value.aval.shape == (8,)
    assert [e.primitive.name for e in cut.after.eqns] == ["dot_general"]


INFINITE = {
    "root of a kink": lambda p, x: jnp.sqrt(jax.nn.relu(x @ p[0])).mean(0) @ p[1],
    "guarded logarithm": lambda p, x: (lambda h: jnp.where(
        h > 0, jnp.log(jnp.where(h > 0, h, 1.0)), 0.0))(x @ p[0]).mean(0) @ p[1],
    "inverse of what is chosen": lambda p, x: (lambda h: jnp.where(
        h > 0, 1 / jnp.where(h > 0, h, 0.0), 0.0))(x @ p[0]).mean(0) @ p[1],
    "scalar output": lambda p, x: jnp.sqrt(jax.nn.relu(x @ p[0])).sum(),
}


@pytest.mark.parametrize("name", INFINITE)
def test_infinite_slopes_are_treated_as_by_jax(name):
    f = INFINITE[name]
    params, x, _ = arguments([(3, 5), (5, 2)], (4, 3))
    expected = wl.empirical_ntk(f, params, x, method="jacobian")
    found = structured(f, params, x, None)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert relative_error(np.nan_to_num(found), np.nan_to_num(expected)) <= 1e-12


def test_what_is_kept_as_a_product():
    kept = {}

    class Watched(_features.Products):
        def of(self, arrays, x):
            out = super().of(arrays, x)
            kept["shapes"] = [[t.labels for t in terms] for terms in self.structure]
            return out

    f = POOLED["gelu"]
    params, x, _ = arguments([(3, 5), (5, 2)], (4, 3))
    p = wl.tangent._problem.problem(f, params, jax.ShapeDtypeStruct((4, 3), x.dtype))
    axes = wl.tangent._problem.output_axes(p, (), ())[0]
    Watched(p.function(0), axes, x.dtype).of(p.arrays, x)
    # Of the first weight: the input, the slopes, and the readout; no array over outputs and slopes.
    (first,) = kept["shapes"][0]
    assert sorted(map(len, first)) == [2, 3, 3]


def test_separable_terms():
    seeds = Seeds.of((2,), jnp.float64)
    (o,), a, b = seeds.labels, fresh(), fresh()
    empty = Term((), (), (a, b), {o: 2, a: 3, b: 4}, ())
    w = normal((2, 4))
    known = empty.with_factor(w, (o, b), False)
    f, g = normal((3, 4), seed=1), normal((4,), seed=2)
    left, right = known.with_factor(f, (a, b), True), known.with_factor(g, (b,), True)
    assert all(separable(t, seeds) for t in (empty, known, left, right))
    both = merged([left, right, known], seeds)
    expected = np.einsum("ob,ab->oab", w, f + g + 1)
    np.testing.assert_allclose(dense(both, 12, seeds), expected.reshape(2, 12))
    assert merged([left, empty.with_factor(2 * w, (o, b), False)], seeds) is None
    twice = merged([known, known], seeds)
    np.testing.assert_allclose(dense(twice, 12, seeds), 2 * dense(known, 12, seeds))
    # Outputs and examples in one array, or two arrays of the example, are not.
    assert not separable(empty.with_factor(w, (o, b), True), seeds)
    assert not separable(left.with_factor(f, (a, b), True), seeds)
    assert not separable(Term((), (), (o,), {o: 2}, ()), seeds)
