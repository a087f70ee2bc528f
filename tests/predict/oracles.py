"""A network to predict with, and predictions by plain linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.gaussian_process.kernels import Kernel as SklearnKernel


def network(params, x):
    (w1, b1), (w2, b2) = params
    h = jax.nn.relu(w1 @ x * jnp.sqrt(2 / x.size) + 0.3 * b1)
    return w2 @ h / jnp.sqrt(h.size) + 0.1 * b2


def shapes(width=64, inputs=4, outputs=3, dtype=jnp.float64):
    s = jax.ShapeDtypeStruct
    return [
        (s((width, inputs), dtype), s((width,), dtype)),
        (s((outputs, width), dtype), s((outputs,), dtype)),
    ]


def brute(kernel, x, y, x_star, noise, kind):
    """Mean and covariance for one noise per row, shape (n,) or a number."""
    everything = jnp.concatenate([x, x_star])
    nngp, ntk = map(np.asarray, kernel.both(everything))
    prior = ntk if kind == "ntkgp" else nngp
    n = len(x)
    k, k_cross, k_star = prior[:n, :n], prior[n:, :n], prior[n:, n:]
    t, t_cross = (k, k_cross) if kind != "ntk" else (ntk[:n, :n], ntk[n:, :n])
    a = t_cross @ np.linalg.inv(t + noise * np.eye(n))
    if kind != "ntk":
        return a @ y, k_star - a @ k_cross.T
    return a @ y, k_star + a @ k @ a.T - a @ k_cross.T - k_cross @ a.T


class Precomputed(SklearnKernel):
    """Inputs are row numbers of a Gram matrix."""

    def __init__(self, gram):
        self.gram = gram

    def __call__(self, X, Y=None, eval_gradient=False):
        i = np.asarray(X)[:, 0].astype(int)
        j = i if Y is None else np.asarray(Y)[:, 0].astype(int)
        block = self.gram[np.ix_(i, j)]
        return (block, np.empty((*block.shape, 0))) if eval_gradient else block

    def diag(self, X):
        return np.diag(self(X))

    def is_stationary(self):
        return False
