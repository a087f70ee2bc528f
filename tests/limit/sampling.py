"""Kernels of sampled finite networks, and how close a limit must come to them."""

import jax
import jax.numpy as jnp
import numpy as np

from oracle.numeric import run

DRAWS = 48


def sampled(f, params, x, draws=DRAWS):
    """Means over draws and channels of the finite kernels, with standard errors."""
    rng = np.random.default_rng(7)

    def one(p):
        y, pull = jax.vjp(lambda q: jax.vmap(lambda t: f(q, t))(x), p)
        flat = y.reshape(-1, y.shape[-1])
        nngp = flat @ flat.T / y.shape[-1]
        # The tangent kernel of two output channels: rows of the Jacobian, one per channel.
        total = 0.0
        for channel in range(2):
            seeds = jnp.zeros((flat.shape[0], *flat.shape)).at[
                jnp.arange(flat.shape[0]), jnp.arange(flat.shape[0]), channel
            ].set(1.0)
            rows = jax.vmap(lambda s: pull(s.reshape(y.shape))[0])(seeds)
            total += sum(
                jnp.einsum("ap,bp->ab", r.reshape(len(r), -1), r.reshape(len(r), -1))
                for r in rows
            )
        return nngp, total / 2

    program = jax.make_jaxpr(one)(params)
    samples = [run(program, *(rng.normal(size=s.shape) for s in params)) for _ in range(draws)]
    stats = lambda k: (np.mean(k, 0), np.std(k, 0, ddof=1) / np.sqrt(draws))
    return tuple(stats(np.stack(k)) for k in zip(*samples))


def flat(kernel_matrix):
    k = np.asarray(kernel_matrix)
    half = (k.ndim - 2) // 2
    order = (0, *range(2, 2 + half), 1, *range(2 + half, 2 + 2 * half))
    size = int(np.prod([k.shape[i] for i in (0, *range(2, 2 + half))]))
    return k.transpose(order).reshape(size, size)


def assert_agree(limit, samples, *, errors=4.5, bias=0.06):
    """Within 4.5 standard errors, and 6 % of the largest entry for the O(1/width) bias."""
    for name, ours, (mean, error) in zip(("nngp", "ntk"), limit, samples):
        ours = flat(ours)
        scale = np.abs(ours).max()
        excess = np.abs(ours - mean) - errors * error - bias * scale
        assert excess.max() <= 0, (name, np.abs(ours - mean).max() / scale)
        assert np.median(np.abs(ours - mean) / (error + 0.02 * scale)) < 2.5, name
