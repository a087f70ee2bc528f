"""Evaluate a traced scalar function in float64 numpy, inside or outside a jit trace."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.precision import double_precision

_BLOCK = 1024


def elementwise_derivative(fn, index=0):
    """Return the autodiff derivative of ``fn(u, *params)`` in argument ``index``, elementwise."""
    reverse_only = []

    def derivative(*args):
        dtype = jnp.result_type(*args)
        shape = jnp.broadcast_shapes(*(jnp.shape(a) for a in args))
        args = [jnp.broadcast_to(jnp.asarray(a, dtype), shape) for a in args]
        ones = jnp.ones(shape, dtype)

        def along(x):
            return jnp.broadcast_to(fn(*args[:index], x, *args[index + 1 :]), shape)

        if not reverse_only:
            # A custom_vjp function has a derivative in reverse mode only.
            struct = jax.ShapeDtypeStruct(shape, dtype)
            reverse_only.append("custom_vjp_call" in str(jax.make_jaxpr(along)(struct)))
        if reverse_only[0]:
            return jax.vjp(along, args[index])[1](ones)[0]
        return jax.jvp(along, (args[index],), (ones,))[1]

    return derivative


def probe(fn, points):
    """Evaluate ``fn`` at float64 ``points``, now, as numpy.

    Points are padded to whole blocks, so that the function is compiled for one shape.
    """
    points = np.asarray(points, np.float64)
    flat = points.ravel()
    size = -(-max(flat.size, 1) // _BLOCK) * _BLOCK
    padded = np.zeros(size)
    padded[: flat.size] = flat
    blocks = padded.reshape(-1, _BLOCK)
    # Traces belong to a thread, so a thread of its own sees none of the caller's.
    with ThreadPoolExecutor(1) as apart:
        values = apart.submit(_evaluate, fn, blocks).result()
    return values[: flat.size].reshape(points.shape)


def _evaluate(fn, blocks):
    with double_precision(), np.errstate(all="ignore"):
        run = jax.jit(fn)
        values = [np.asarray(run(jnp.asarray(block)), np.float64) for block in blocks]
    return np.concatenate([np.broadcast_to(v, (_BLOCK,)) for v in values])
