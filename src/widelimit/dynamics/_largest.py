"""The largest eigenvalue from products with vectors, bounded on both sides."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from widelimit.dynamics._method import decay_rate, read_method
from widelimit.tangent._blocks import as_square

FAILURE = 1e-6
"""The probability that an upper bound is none."""


class Largest(NamedTuple):
    """Bounds on the largest eigenvalue.

    Attributes
    ----------
    lower, upper
        The eigenvalue is at least ``lower``, and above ``upper`` with probability ``failure``.
    failure
        Over the random starting vector; 0 where the matrix was decomposed.
    """

    lower: float
    upper: float
    failure: float


class StableRate(NamedTuple):
    """Bounds on the largest stable learning rate.

    Attributes
    ----------
    safe
        Learning rates below this are stable, but for a probability ``failure``.
    most
        Learning rates above this are not.
    failure
        As of the eigenvalue.
    """

    safe: float
    most: float
    failure: float


def largest_eigenvalue(
    kernel: Any, *, steps: int = 64, failure: float = FAILURE, key: Array | None = None
) -> Largest:
    r"""The largest eigenvalue of a tangent kernel, between two bounds.

    A matrix is decomposed. An operator is multiplied with ``steps`` vectors (Lanczos from a random
    start, every vector orthogonalised against all before it). Its Ritz value ξ is a lower bound.
    For the upper one, let :math:`b_1` be the start's component along the top eigenvector. Had ξ
    been below :math:`(1 - \epsilon) \lambda`, then for the Chebyshev polynomial of degree k - 1,

    .. math::
        \frac{\epsilon}{1 - \epsilon}\, T_{k-1}\Big(\frac{1 + \epsilon}{1 - \epsilon}\Big)^2
        < \frac{1 - b_1^2}{b_1^2},
        \qquad P\big(b_1^2 \le p^2 \pi / 2N\big) \le p

    for N numbers in a vector; the ε of equality with :math:`b_1^2 = p^2 \pi / 2N` gives
    :math:`\lambda \le \xi / (1 - \epsilon)` with probability 1 - p.

    Parameters
    ----------
    kernel
        A positive semidefinite matrix (n, n) or kernel (n, n, \*out, \*out), or an operator of
        :func:`widelimit.ntk_operator`.
    steps
        Products with vectors; 64 bound the eigenvalue of ten thousand numbers to 3 %.
    failure
        p, between 0 and 1.
    key
        Of the random start; ``jax.random.key(0)`` unless given.

    Raises
    ------
    ValueError
        If the matrix is not square or not finite, there are no steps, or p is no probability.

    Notes
    -----
    After Kuczyński, Woźniakowski, Estimating the largest eigenvalue by the power and Lanczos
    algorithms with a random start, 1992.
    """
    if steps < 1 or not 0 < failure < 1:
        msg = f"steps is at least 1 and failure between 0 and 1, got {steps} and {failure}"
        raise ValueError(msg)
    if not hasattr(kernel, "mv"):
        top = float(np.linalg.eigvalsh(as_square(kernel))[-1])
        return Largest(top, top, 0.0)
    like = kernel.in_structure()
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), like)
    flat, back = ravel_pytree(zeros)
    product = jax.jit(lambda v: ravel_pytree(kernel.mv(back(v)))[0])
    key = jax.random.key(0) if key is None else key
    steps = min(steps, flat.size)
    found = float(top_ritz(product, jax.random.normal(key, flat.shape, flat.dtype), steps))
    if not math.isfinite(found):
        msg = "the kernel's products contain NaN or infinite values"
        raise ValueError(msg)
    found = max(found, 0.0)
    rounding = flat.size * float(jnp.finfo(flat.dtype).eps)
    return Largest(found, found / (1 - _gap(steps, flat.size, failure)) * (1 + rounding), failure)


def largest_learning_rate(
    kernel: Any,
    *,
    method: str = "descent",
    momentum: float | None = None,
    weight_decay: float = 0.0,
    steps: int = 64,
    failure: float = FAILURE,
    key: Array | None = None,
) -> StableRate:
    r"""The largest learning rate at which the linearised network's squared loss converges.

    .. math:: \eta < \frac{c}{\lambda_{\max} + \delta}, \qquad c = 2,\quad 2 (1 + \beta),\quad
        \frac{2 (1 + \beta)}{1 + 2 \beta}

    for descent, heavy ball and Nesterov, with the loss summed over the examples.

    Parameters
    ----------
    kernel, steps, failure, key
        As for :func:`widelimit.dynamics.largest_eigenvalue`.
    method, momentum, weight_decay
        As for :func:`widelimit.dynamics.linearized`; flow is stable at any rate.

    Raises
    ------
    ValueError
        As for the two.

    Notes
    -----
    Lee et al., 2019, section 2.3; Polyak 1964; Nesterov's from the root -1 of
    :math:`r^2 - (1 + \beta)(1 - \eta\lambda) r + \beta (1 - \eta\lambda)`.
    """
    limit = read_method(method, 1.0, momentum).limit
    decay = decay_rate(weight_decay)
    found = largest_eigenvalue(kernel, steps=steps, failure=failure, key=key)
    bound = lambda value: limit / (value + decay) if value + decay > 0 else math.inf
    return StableRate(bound(found.upper), bound(found.lower), found.failure)


def top_ritz(product: Callable[[Array], Array], start: Array, steps: int) -> Array:
    """The largest Ritz value of a symmetric product after a number of Lanczos steps."""
    size = start.shape[0]

    def step(k: Any, state: Any) -> Any:
        basis, diagonal, beside = state
        v = basis[k]
        w = product(v)
        alpha = jnp.vdot(v, w)
        for _ in range(2):
            w = w - basis.T @ (basis @ w)
        beta = jnp.linalg.norm(w)
        # Where the space is exhausted, what is left is rounding error.
        live = beta > size * jnp.finfo(start.dtype).eps * jnp.abs(alpha)
        w = jnp.where(live, w / jnp.where(live, beta, 1), 0)
        basis = basis.at[k + 1].set(w)
        return basis, diagonal.at[k].set(alpha), beside.at[k].set(jnp.where(live, beta, 0))

    basis = jnp.zeros((steps + 1, size), start.dtype).at[0].set(start / jnp.linalg.norm(start))
    zeros = jnp.zeros(steps, start.dtype)
    state = basis, zeros, zeros
    if isinstance(start, jax.core.Tracer):
        _, diagonal, beside = jax.lax.fori_loop(0, steps, step, state)
    else:
        # In a loop of the compiled program convolutions would be slow.
        advance = jax.jit(step)
        for k in range(steps):
            state = advance(k, state)
        _, diagonal, beside = state
    beside = beside[:-1]
    whole = jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1)
    return jnp.max(jnp.linalg.eigvalsh(whole))


def _gap(steps: int, size: int, failure: float) -> float:
    """The ε of :func:`largest_eigenvalue`, by bisection."""
    part = min(failure**2 * math.pi / (2 * size), 1.0)
    wanted = math.log((1 - part) / part) if part < 1 else -math.inf

    def enough(e: float) -> bool:
        angle = math.acosh((1 + e) / (1 - e)) * (steps - 1)
        chebyshev = angle + math.log1p(math.exp(-2 * angle)) - math.log(2)
        return math.log(e / (1 - e)) + 2 * chebyshev >= wanted

    low, high = 0.0, 1 - 1e-16
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
