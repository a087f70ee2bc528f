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
        self._last: tuple[bytes, Any] | None = None

    def __call__(self, t: Array) -> tuple[Array, Array]:
        """a(t) and b(t); the times asked for last are kept."""
        times = finite(t)
        key = times.tobytes()
        if self._last is None or self._last[0] != key:
            self._last = (key, self._solve(times))
        a, b = self._last[1]
        return (a, b) if t.ndim else (a[0], b[0])

    def _solve(self, times: np.ndarray) -> tuple[Array, Array]:
        """Shapes (times, N, r) and (times,)."""
        diffrax, dtype = self._diffrax, self._begin[0].dtype
        order, place = np.unique(times, return_inverse=True)
        last = float(order[-1])
        if last == 0:
            _, a, b = self._begin
            repeat = lambda s: jnp.broadcast_to(s, (len(times), *s.shape))
            return repeat(a), repeat(b)
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
        return a[place], b[place]


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
