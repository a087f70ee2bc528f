"""The tangent kernel from all derivatives, in the plainest way."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def split(params):
    """Parameters as a pytree of arrays, and the way back."""
    try:
        from flax import nnx

        if isinstance(params, nnx.Module):
            graph, arrays, rest = nnx.split(params, nnx.Param, ...)
            return arrays, lambda a: nnx.merge(graph, a, rest)
    except ImportError:
        pass
    arrays, rest = eqx.partition(params, eqx.is_inexact_array)
    return arrays, lambda a: eqx.combine(a, rest)


def jacobians(f, params, x):
    """For each output leaf an array (n, *out, parameters)."""
    arrays, back = split(params)
    flat, shapes = jax.tree.flatten(arrays)
    sizes = [a.size for a in flat]
    theta = jnp.concatenate([a.ravel() for a in flat]) if flat else jnp.zeros(0)

    def of_theta(theta, x):
        pieces = np.cumsum([0, *sizes])
        full = [theta[i:j].reshape(a.shape) for i, j, a in zip(pieces, pieces[1:], flat)]
        return f(back(jax.tree.unflatten(shapes, full)), x)

    def one(x):
        try:
            return jax.jacrev(of_theta)(theta, x)
        except ValueError:
            return jax.jacfwd(of_theta)(theta, x)

    return jax.vmap(one)(x) if jax.tree.leaves(x)[0].shape[0] else jax.tree.map(
        lambda s: jnp.zeros((0, *s.shape)),
        jax.eval_shape(lambda x: jax.jacrev(of_theta)(theta, x),
                       jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)),
    )


def kernel(f, params, x1, x2=None):
    """(n1, n2, *out, *out) for each output leaf."""
    one = jacobians(f, params, x1)
    two = one if x2 is None else jacobians(f, params, x2)

    def product(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        r = a.ndim - 2
        k = np.tensordot(a, b, (-1, -1))
        return np.moveaxis(k, r + 1, 1)

    return jax.tree.map(product, one, two)


def relative_error(found, expected):
    """The largest error relative to the largest entry, over all leaves."""
    worst = 0.0
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        assert a.shape == b.shape, (a.shape, b.shape)
        if b.size:
            assert np.all(np.isfinite(a))
            scale = max(float(np.max(np.abs(b))), 1e-30)
            worst = max(worst, float(np.max(np.abs(np.asarray(a, np.float64) - b))) / scale)
    return worst
