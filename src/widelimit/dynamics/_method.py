"""How an error decays along one eigenvector: gradient flow, descent, momentum, Nesterov."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

METHODS = ("flow", "descent", "momentum", "nesterov")


@dataclass(frozen=True)
class Method:
    r"""A way to follow the gradient of a quadratic loss.

    Along an eigenvector of the Hessian with eigenvalue x, the way from the start to the minimum
    that is covered at time t is :math:`x\,u(x, t)`, with one function u for each method:

    .. math::
        u = (1 - e^{-\eta x t}) / x \text{ (flow)}, \qquad
        u = (1 - (1 - \eta x)^t) / x \text{ (descent)}

    and for momentum the solution of :math:`g_k = 1 - x u_k`,
    :math:`v_{k+1} = \beta v_k + \eta g_k`, and :math:`u_{k+1} = u_k + v_{k+1}` (heavy ball) or
    :math:`u_{k+1} = u_k + \eta g_k + \beta v_{k+1}` (Nesterov), from :math:`u_0 = v_0 = 0`: the
    updates of ``optax.sgd``.

    Attributes
    ----------
    name
        One of ``METHODS``.
    learning_rate
        η, a number or a tracer.
    beta
        β, zero for methods without momentum.

    Notes
    -----
    Polyak 1964; Sutskever et al., On the importance of initialization and momentum, 2013.
    """

    name: str
    learning_rate: Any
    beta: float

    @property
    def discrete(self) -> bool:
        """Whether times are numbers of steps."""
        return self.name != "flow"

    @property
    def limit(self) -> float:
        r"""Stable are learning rates with :math:`\eta x` below this.

        2 for descent, :math:`2 (1 + \beta)` for the heavy ball,
        :math:`2 (1 + \beta) / (1 + 2\beta)` for Nesterov, where a root of the recurrence's
        polynomial reaches -1.
        """
        if not self.discrete:
            return np.inf
        first = 1 + self.beta if self.name == "nesterov" else 1.0
        return 2 * (1 + self.beta) / (2 * first - 1)

    def moved(self, x: Float[Array, " n"], t: Array) -> Float[Array, "*times n"]:
        """u(x, t) for eigenvalues x of at least 0; at x = 0 it is the time that has passed.

        Times are a number, or of shape (times, 1).

        Infinite times give 1/x, and where x = 0 the largest number of the type.
        """
        most = jnp.finfo(x.dtype).max
        rate = jnp.asarray(self.learning_rate, x.dtype)
        if not self.discrete:
            elapsed = jnp.minimum(rate * t, most)
            positive = x > 0
            safe = jnp.where(positive, x, 1)
            return jnp.where(positive, -jnp.expm1(-elapsed * x) / safe, elapsed)
        beta = jnp.asarray(self.beta, x.dtype)
        found = _steps(rate * x, t, beta, nesterov=self.name == "nesterov")
        end = jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), most)
        return jnp.where(jnp.isinf(t), end, rate * found)


@partial(jax.jit, static_argnames="nesterov")
def _steps(z: Array, t: Array, beta: Array, *, nesterov: bool) -> Array:
    """Covered way u / η for z = ηx; infinite times give anything."""
    z, t = jnp.broadcast_arrays(z, jnp.where(jnp.isinf(t), 0, t))
    slow = z < (1 - beta) ** 2 / 8
    roots = _by_roots(jnp.where(slow, z, 0), t, beta, nesterov=nesterov)
    return jnp.where(slow, roots, _by_powers(jnp.where(slow, 1, z), t, beta, nesterov=nesterov))


def _by_roots(z: Array, steps: Array, beta: Array, *, nesterov: bool) -> Array:
    r"""Where both roots 1 - ε of the recurrence are positive and far apart.

    .. math:: \epsilon^2 - (1 - \beta + c z) \epsilon + z = 0, \qquad u_1 = c \eta

    with c = 1 for the heavy ball, 1 + β for Nesterov. Small z keep their relative precision.
    """
    c = 1 + beta if nesterov else 1
    total = 1 - beta + c * z
    root = jnp.sqrt(total**2 - 4 * z)
    fast = (total + root) / 2
    slow = z / fast
    other = (beta - (c - 1) * z) / (1 - slow)
    weight = (fast - c * z) / root
    safe = jnp.where(slow > 0, slow, 1)
    far = jnp.where(slow > 0, -jnp.expm1(steps * jnp.log1p(-slow)) / safe, steps)
    return weight * far / fast + (c - 1 / fast) / root * (1 - other**steps)


def _by_powers(z: Array, steps: Array, beta: Array, *, nesterov: bool) -> Array:
    """By repeated squaring of the map from (u, v) to the next, which is affine in both."""
    c, carry = (1 + beta, beta**2) if nesterov else (jnp.ones_like(beta), beta)
    one = jnp.ones_like(z)
    step = (
        jnp.stack([jnp.stack([1 - c * z, carry * one]), jnp.stack([-z, beta * one])]),
        jnp.stack([c * one, one]),
    )
    zero = jnp.zeros_like(z)
    start = (jnp.stack([jnp.stack([one, zero]), jnp.stack([zero, one])]), 0 * step[1])

    def after(second: Any, first: Any) -> Any:
        m, a = second
        n, b = first
        return jnp.einsum("ij...,jk...->ik...", m, n), jnp.einsum("ij...,j...->i...", m, b) + a

    def bit(_: Any, state: Any) -> Any:
        left, power, total = state
        odd = left % 2 == 1
        total = jax.tree.map(lambda a, b: jnp.where(odd, a, b), after(power, total), total)
        return jnp.floor(left / 2), after(power, power), total

    digits = jnp.finfo(z.dtype).nmant + 2
    _, _, (_, found) = jax.lax.fori_loop(0, digits, bit, (steps, step, start))
    return found[0]


def read_method(name: Any, learning_rate: Any, momentum: Any) -> Method:
    """What the caller asked for.

    Raises
    ------
    ValueError
        If there is no such method, the learning rate is not positive, or the momentum is not in
        [0, 1) or given to a method that has none.
    """
    if name not in METHODS:
        msg = f"method={name!r}; there are {', '.join(METHODS)}"
        raise ValueError(msg)
    known = not isinstance(learning_rate, jax.core.Tracer)
    if np.ndim(learning_rate) or (known and not 0 < float(learning_rate) < np.inf):
        msg = f"the learning rate is one positive number, got {learning_rate}"
        raise ValueError(msg)
    if name in ("flow", "descent"):
        if momentum is not None:
            msg = f"method={name!r} has no momentum; there are 'momentum' and 'nesterov'"
            raise ValueError(msg)
        return Method(name, learning_rate, 0.0)
    if momentum is None or not 0 <= momentum < 1:
        msg = f"method={name!r} takes momentum= at least 0 and below 1, got {momentum}"
        raise ValueError(msg)
    return Method(name, learning_rate, float(momentum))


def require_stable(chosen: Method, largest: Any) -> None:
    """Refuse learning rates that let the linearised network diverge.

    Raises
    ------
    ValueError
        If the learning rate is at the limit or above.
    """
    rate = chosen.learning_rate
    if isinstance(rate, jax.core.Tracer) or isinstance(largest, jax.core.Tracer):
        return
    if float(rate) * float(largest) >= chosen.limit:
        msg = (
            f"with learning rate {float(rate):.6g} {chosen.name} diverges: the largest eigenvalue "
            f"of the tangent kernel, with weight decay added, is {float(largest):.6g}, and stable "
            f"are learning rates below {chosen.limit / float(largest):.6g}"
        )
        raise ValueError(msg)


def decay_rate(weight_decay: Any) -> float:
    """A penalty's factor.

    Raises
    ------
    ValueError
        If it is negative or not finite.
    """
    if np.ndim(weight_decay) or not 0 <= float(weight_decay) < np.inf:
        msg = f"weight_decay is one finite number of at least 0, got {weight_decay}"
        raise ValueError(msg)
    return float(weight_decay)
