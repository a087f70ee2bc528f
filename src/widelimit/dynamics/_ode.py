"""Gradient flow of any differentiable loss, by an ODE solver of diffrax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from widelimit.dynamics._paths import Gradient, System, finite
from widelimit.dynamics._plan import Plan


class Solved:
    r"""Any loss, in continuous time.

    .. math:: \dot a = -\eta\, g_a, \qquad \dot b = -\eta\, g_b, \qquad \dot h = T \dot a

    The change h of the outputs is part of the state so that tolerances are in units of outputs.
    """

    def __init__(self, system: System, loss: Callable[[Array], Array], plan: Plan) -> None:
        self._diffrax = _diffrax()
        self._solver = self._diffrax.Tsit5() if plan.solver is None else plan.solver
        self._controller = self._diffrax.PIDController(rtol=plan.rtol, atol=plan.atol)
        self._max_steps = plan.max_steps
        rate = plan.method.learning_rate
        zero = jnp.zeros_like(system.start)
        self._begin = (zero, zero, jnp.zeros((), system.start.dtype))
        gradient = Gradient(system, loss)
        own = 0 if system.own is None else system.own

        def field(_: Any, state: Any, __: Any) -> Any:
            h, a, b = state
            slope, slow = gradient(system.start + h + b * own, (a, b))
            moved = -rate * slope
            return system.gram @ moved, moved, -rate * slow

        self._term = self._diffrax.ODETerm(field)
        _, a, b = self._begin
        self._known = np.zeros(1), a[None], b[None]

    def __call__(self, t: Array) -> tuple[Array, Array]:
        """a(t) and b(t); what was solved last is kept, and serves all of its times again."""
        times = finite(t)
        if not np.all(np.isin(times, self._known[0])):
            order = np.unique(times)
            self._known = order, *self._solve(order)
        known, a, b = self._known
        place = np.searchsorted(known, times)
        return (a[place], b[place]) if t.ndim else (a[place[0]], b[place[0]])

    def _solve(self, order: np.ndarray) -> tuple[Array, Array]:
        """Shapes (times, N, r) and (times,), for times in order, the last after 0."""
        diffrax, dtype = self._diffrax, self._begin[0].dtype
        last = float(order[-1])
        found = diffrax.diffeqsolve(
            self._term, self._solver, jnp.zeros((), dtype), jnp.asarray(last, dtype), None,
            self._begin, saveat=diffrax.SaveAt(ts=jnp.asarray(order, dtype)),
            stepsize_controller=self._controller, max_steps=self._max_steps, throw=False,
        )  # fmt: skip
        _, a, b = found.ys
        if found.result != diffrax.RESULTS.successful or not bool(jnp.all(jnp.isfinite(a))):
            msg = (
                f"the solver did not reach time {last:.6g} in {self._max_steps} steps (or met a "
                "loss that is not finite): raise max_steps=, loosen rtol= and atol=, or give a "
                "solver for stiff equations, solver=diffrax.Kvaerno5()"
            )
            raise RuntimeError(msg)
        return a, b


def _diffrax() -> Any:
    try:
        import diffrax  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        msg = (
            "gradient flow of a loss other than the squared one is solved by diffrax: "
            "pip install 'widelimit[solvers]', or take method='descent'"
        )
        raise ImportError(msg) from error
    return diffrax
