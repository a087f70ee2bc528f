"""The operator against the matrix, alone and inside solvers."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from tangent.zoo import ZOO

lineax = pytest.importorskip("lineax")


def matrix(k):
    """(n, n, *out, *out) as (n out, n out)."""
    half = (k.ndim - 2) // 2
    order = (0, *range(2, 2 + half), 1, *range(2 + half, k.ndim))
    size = k.shape[0] * int(np.prod(k.shape[2 : 2 + half]))
    return np.transpose(k, order).reshape(size, size)


@pytest.mark.parametrize("batch_size", [None, 1, 2, 5])
@pytest.mark.parametrize("name", ["mlp", "recurrent", "cnn2d_flat", "custom_vjp"])
def test_products(name, batch_size):
    case = ZOO[name]()
    weights = 0.3 if name == "mlp" else None
    operator = wl.ntk_operator(
        case.f, case.params, case.x, weights=weights, batch_size=batch_size
    )
    k = matrix(np.asarray(wl.empirical_ntk(case.f, case.params, case.x, weights=weights)))
    shape = operator.in_structure()
    v = jnp.asarray(np.random.default_rng(1).normal(size=shape.shape))
    np.testing.assert_allclose(operator.mv(v).ravel(), k @ v.ravel(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(operator.as_matrix(), k, rtol=1e-9, atol=1e-10)


def test_is_symmetric_for_lineax():
    case = ZOO["mlp"]()
    operator = wl.ntk_operator(case.f, case.params, case.x)
    assert lineax.is_symmetric(operator) and lineax.is_positive_semidefinite(operator)
    assert operator.T.in_structure() == operator.in_structure()


def test_pytrees_of_outputs_include_terms_between_leaves():
    case = ZOO["pytree_everything"]()
    operator = wl.ntk_operator(case.f, case.params, case.x)
    v = jax.tree.map(lambda s: jnp.ones(s.shape), operator.in_structure())
    flat = lambda p, x: jnp.concatenate([jnp.ravel(o) for o in jax.tree.leaves(case.f(p, x))])
    k = wl.empirical_ntk(flat, case.params, case.x)
    n = len(case.x["b"])
    leaves = jax.tree.leaves(operator.mv(v))
    found = jnp.concatenate([a.reshape(n, -1) for a in leaves], axis=1)
    np.testing.assert_allclose(found, k.sum((1, 3)), rtol=1e-10)


def test_conjugate_gradients_solve_what_the_dense_matrix_solves():
    case = ZOO["transformer_block"]()
    operator = wl.ntk_operator(case.f, case.params, case.x, batch_size=2)
    structure = operator.in_structure()
    g = jnp.asarray(np.random.default_rng(2).normal(size=structure.shape))
    damped = wl.ntk_operator(case.f, case.params, case.x, damping=0.1)
    solve = jax.jit(lambda g: lineax.linear_solve(damped, g, lineax.CG(1e-12, 1e-12)).value)
    k = matrix(np.asarray(wl.empirical_ntk(case.f, case.params, case.x)))
    dense = np.linalg.solve(k + 0.1 * np.eye(len(k)), np.ravel(g))
    np.testing.assert_allclose(solve(g).ravel(), dense, rtol=1e-7, atol=1e-9)


def test_refusals(monkeypatch):
    case = ZOO["mlp"]()
    with pytest.raises(ValueError, match="batch_size"):
        wl.ntk_operator(case.f, case.params, case.x, batch_size=0)
    with pytest.raises(ValueError, match="damping"):
        wl.ntk_operator(case.f, case.params, case.x, damping=-1.0)
    with pytest.raises(ValueError, match="no examples"):
        wl.ntk_operator(case.f, case.params, case.x[:0])
    monkeypatch.setitem(sys.modules, "lineax", None)
    with pytest.raises(ImportError, match="widelimit\\[solvers\\]"):
        wl.ntk_operator(case.f, case.params, case.x)
