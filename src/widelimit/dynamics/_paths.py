r"""Where training is at a time, in coefficients of the training examples' gradients.

A network that is linear in its parameters moves within the span of those gradients and, where
weight decay pulls towards zero, along its own parameters:

.. math:: \theta(t) = \theta_0 + \Lambda J^T a(t) + b(t) \theta_0

A path knows a(t), of the shape of the training outputs, and b(t), a number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from widelimit.dynamics._eigen import Eigen
from widelimit.dynamics._method import Method


@dataclass(frozen=True)
class System:
    """What is trained, flattened: outputs of the examples as the rows of a matrix.

    Attributes
    ----------
    gram
        T, shape (N, N).
    start
        The outputs before training, shape (N, r): r columns that T is applied to one by one.
    own
        J θ₀, shape (N, r), where decay pulls towards zero; None where it pulls to the start.
    decay
        The factor δ of weight decay.
    """

    gram: Array
    start: Array
    own: Array | None
    decay: float

    def outputs(self, a: Array, b: Array) -> Array:
        """Of the training examples, shape (*times, N, r)."""
        found = self.start + self.gram @ a
        return found if self.own is None else found + b[..., None, None] * self.own


class Closed:
    r"""The squared loss, in closed form.

    .. math::
        a = u(T + \delta)\,(y - f_0) - \delta\, q(T)\, J \theta_0, \qquad b = -\delta\, u(\delta),
        \qquad q(\lambda) = (u(\lambda + \delta) - u(\delta)) / \lambda

    from :math:`\dot d = -\eta (\Lambda J^T (f_0 + J d - y) + \delta d + \delta \theta_0)` for
    :math:`d = \theta - \theta_0`, with :math:`u(\Lambda J^T J + \delta) = u(\delta) +
    \Lambda J^T q(T) J`; without :math:`\theta_0` where decay pulls to the start.
    """

    def __init__(self, system: System, target: Array, chosen: Method) -> None:
        self.eigen = Eigen(system.gram, chosen, system.decay)
        self._residual = self.eigen.vectors.T @ (target - system.start)
        self._own = None if system.own is None else self.eigen.vectors.T @ system.own
        self._decay = system.decay

    def __call__(self, t: Array) -> tuple[Array, Array]:
        """a(t) and b(t), with a first axis if there are several times."""
        t = t[..., None]
        along = self.eigen.moved(t)[..., None] * self._residual
        b = jnp.zeros(t.shape[:-1], along.dtype)
        if self._own is not None:
            along = along - self._decay * self.eigen.mixed(t)[..., None] * self._own
            b = -self._decay * self.eigen.own(t)[..., 0]
        return self.eigen.vectors @ along, b


class Gradient:
    r"""The gradient of a loss in these coefficients.

    .. math:: g_a = \nabla L(f_0 + T a + b J \theta_0) + \delta a, \qquad g_b = \delta (1 + b)
    """

    def __init__(self, system: System, loss: Callable[[Array], Array]) -> None:
        self._system = system
        self._slope = jax.grad(loss)

    def __call__(self, outputs: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        """At the outputs that belong to the state (a, b)."""
        a, b = state
        s = self._system
        slow = jnp.zeros_like(b) if s.own is None else s.decay * (1 + b)
        return self._slope(outputs) + s.decay * a, slow


class Stepped:
    """Any loss, by the steps themselves."""

    def __init__(self, system: System, loss: Callable[[Array], Array], chosen: Method) -> None:
        import optax  # slow to import

        self._system = system
        gradient = Gradient(system, loss)
        beta = None if chosen.name == "descent" else chosen.beta
        rule = optax.sgd(chosen.learning_rate, beta, nesterov=chosen.name == "nesterov")

        def step(_: Any, now: Any) -> Any:
            state, memory = now
            updates, memory = rule.update(gradient(system.outputs(*state), state), memory)
            return optax.apply_updates(state, updates), memory

        self._steps = jax.jit(lambda now, count: jax.lax.fori_loop(0, count, step, now))
        begin = (jnp.zeros_like(system.start), jnp.zeros((), system.start.dtype))
        self._begin = (begin, rule.init(begin))

    def __call__(self, t: Array) -> tuple[Array, Array]:
        """a(t) and b(t)."""
        times = finite(t)
        now, passed, found = self._begin, 0, {}
        for time in np.unique(times):
            now = self._steps(now, int(time) - passed)
            passed = int(time)
            found[time] = now[0]
        states = [found[time] for time in times]
        a, b = jax.tree.map(lambda *s: jnp.stack(s), *states)
        if not bool(jnp.all(jnp.isfinite(a))):
            msg = f"training diverged within {passed} steps: take a smaller learning rate"
            raise FloatingPointError(msg)
        return (a, b) if t.ndim else (a[0], b[0])


def finite(t: Array) -> np.ndarray:
    """Times that are known and end, shape (times,).

    Raises
    ------
    ValueError
        If they are traced or infinite.
    """
    if isinstance(t, jax.core.Tracer):
        msg = "without a closed form, times have to be known numbers, not traced ones"
        raise ValueError(msg)
    times = np.atleast_1d(np.asarray(t, float))
    if not np.all(np.isfinite(times)):
        msg = "without a closed form, times have to be finite: give a late one instead of infinity"
        raise ValueError(msg)
    return times
