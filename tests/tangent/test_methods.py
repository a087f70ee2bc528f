"""Every method against all derivatives written out in float64."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from tangent.brute import kernel, relative_error
from tangent.zoo import ZOO

METHODS = ("structured", "jacobian", "vector_products")


def test_the_zoo_is_large():
    assert len(ZOO) >= 60


SLOW = {"transformer_block", "flax_cnn", "equinox_gru", "equinox_attention", "attention"}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in ZOO
])
def test_methods_agree_with_all_derivatives(name):
    case = ZOO[name]()
    expected = kernel(case.f, case.params, case.x)
    left = jax.tree.map(lambda a: a[:2], case.x)
    above = jax.tree.map(lambda k: k[:2], expected)
    for method in ("structured", "jacobian", "vector_products"):
        if not case.backwards and method != "jacobian":
            with pytest.raises((wl.UnsupportedPrimitiveError, ValueError), match=r"while|everse"):
                wl.empirical_ntk(case.f, case.params, case.x, method=method)
            continue
        found = wl.empirical_ntk(case.f, case.params, left, case.x, method=method)
        assert relative_error(found, above) <= 1e-10, method
    found = wl.empirical_ntk(case.f, case.params, case.x)
    assert relative_error(found, expected) <= 1e-10


SINGLE = [
    "mlp", "transformer_block", "cnn2d_flat", "recurrent", "tied_embedding", "layers_in_scan",
    "conv_grouped", "flax_cnn", "equinox_gru", "two_views", "log_softmax_output",
]


@pytest.mark.parametrize("name", SINGLE)
def test_single_precision(name):
    case = ZOO[name]()
    single = lambda a: a.astype(jnp.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a
    cast = lambda t: jax.tree.map(lambda a: single(a) if hasattr(a, "dtype") else a, t)
    if name == "flax_cnn":
        pytest.skip("its layers promote to their own type")
    expected = kernel(case.f, case.params, case.x)
    arguments = cast(case.params), cast(case.x)
    for method in METHODS:
        found = wl.empirical_ntk(case.f, *arguments, method=method)
        # Some of these functions bring numbers of double precision themselves.
        outputs = jax.eval_shape(jax.vmap(case.f, (None, 0)), *arguments)
        assert [k.dtype for k in jax.tree.leaves(found)] == [
            o.dtype for o in jax.tree.leaves(outputs)
        ]
        assert relative_error(found, expected) <= 3e-5, method


def test_no_rule_is_said_to_the_log_only(caplog, capsys):
    case = ZOO["cumulative_weight"]()
    with caplog.at_level(logging.DEBUG, logger="widelimit.tangent"):
        wl.empirical_ntk(case.f, case.params, case.x, method="structured")
    assert "cumsum" in caplog.text
    assert capsys.readouterr() == ("", "")


def test_brute_force_is_the_definition():
    w, x = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, -1.0], [0.5, 2.0]])
    found = kernel(lambda p, x: p @ x, jnp.asarray(w), jnp.asarray(x))
    np.testing.assert_allclose(found, np.einsum("ai,bi,op->abop", x, x, np.eye(2)))


@pytest.mark.parametrize(
    "name", ["mlp", "cnn2d_flat", "recurrent", "transformer_block", "layers_in_scan", "embedding"]
)
def test_rules_are_used(name, caplog):
    case = ZOO[name]()
    with caplog.at_level(logging.DEBUG, logger="widelimit.tangent"):
        wl.empirical_ntk(case.f, case.params, case.x, method="structured")
    assert "no structure rule" not in caplog.text


def test_no_jacobian_is_formed_of_a_wide_layer():
    f = lambda p, x: p[1] @ jnp.tanh(p[0] @ x)
    p, x = [jnp.ones((500, 400)), jnp.ones((3, 500))], jnp.ones((4, 400))
    program = jax.jit(lambda p, x: wl.empirical_ntk(f, p, x, method="structured"))
    temporary = program.lower(p, x).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 8 * 500 * 400  # one of the twelve rows of the Jacobian
