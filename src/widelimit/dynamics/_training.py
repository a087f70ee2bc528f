"""A linearised network during training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from widelimit.batches import length
from widelimit.dynamics._loss import Loss, checked_targets, require_scalar, squared
from widelimit.dynamics._ode import Solved
from widelimit.dynamics._paths import Closed, Stepped, System
from widelimit.dynamics._plan import Plan
from widelimit.dynamics._stopping import BestTime, best_time
from widelimit.dynamics._times import checked
from widelimit.tangent._blocks import as_matrix


class Source(Protocol):
    """Where a linearised network's outputs and kernel come from."""

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape of the outputs for one example."""
        ...

    @property
    def shared(self) -> bool:
        """Whether all outputs have the same kernel, and no terms between them."""
        ...

    def batch(self, x: PyTree) -> PyTree:
        """Inputs as arrays; refuses what does not fit."""
        ...

    def start(self, x: PyTree) -> Array:
        """Before training, shape (m, *out)."""
        ...

    def own(self, x: PyTree) -> Array:
        """J θ₀, shape (m, *out)."""
        ...

    def kernel(self, x_star: PyTree | None) -> Array:
        """T(x_star, x), or T(x, x), with the axes of outputs or without."""
        ...


class Training:
    """A network that is linear in its parameters, at every time of its training.

    Made by :func:`widelimit.dynamics.linearized` and :func:`widelimit.dynamics.of_kernel`. Times
    are numbers, or arrays of shape (times,), which add a first axis to what is returned: from 0
    to infinity for ``method="flow"``, numbers of steps for the others.
    """

    def __init__(self, source: Source, x: PyTree, y: PyTree, plan: Plan) -> None:
        self._source = source
        chosen, loss, decay = plan.method, plan.loss, plan.decay
        self._method = chosen
        self._loss: Loss = squared if loss is None else loss
        y = checked_targets(y, length(x), source.outputs if loss is None else None)
        self._y = y
        kernel = source.kernel(None)
        if not isinstance(kernel, jax.core.Tracer) and not bool(jnp.all(jnp.isfinite(kernel))):
            msg = "the kernel contains NaN or infinite values"
            raise ValueError(msg)
        start = source.start(x)
        self._shape = start.shape
        own = self._flat(source.own(x)) if plan.to_zero and decay else None
        self._system = System(as_matrix(kernel), self._flat(start), own, decay)
        on_outputs = lambda flat: self._loss(flat.reshape(self._shape), y)
        if loss is not None:
            require_scalar(loss, start, y)
        if loss is None:
            target = self._flat(y.astype(start.dtype))
            self._path: Any = Closed(self._system, target, chosen)
        elif chosen.discrete:
            self._path = Stepped(self._system, on_outputs, chosen)
        else:
            self._path = Solved(self._system, on_outputs, plan)

    def __repr__(self) -> str:
        name = getattr(self._loss, "__name__", "loss")
        return f"{type(self).__name__}(method={self._method.name!r}, loss={name}, " \
            f"outputs={self._shape})"

    def outputs(self, x_star: PyTree, t: Any) -> Float[Array, "*times m *out"]:
        r"""The network's outputs at time t.

        .. math:: f_t(x_*) = f_0(x_*) + T_* a(t) + b(t) J_* \theta_0

        Parameters
        ----------
        x_star
            Inputs, shape (m, *shape), or a pytree of them.
        t
            A number or shape (times,), at least 0; whole for methods that take steps; infinity
            for the squared loss only.

        Raises
        ------
        ValueError
            If the inputs or times do not fit.
        RuntimeError, FloatingPointError
            Where there is no closed form: if the solver gives up, or the steps diverge.
        """
        return self._predictor(x_star)(t)

    def train_outputs(self, t: Any) -> Float[Array, "*times n *out"]:
        """The outputs for the training examples at time t."""
        a, b = self._path(self._times(t))
        return self._system.outputs(a, b).reshape(*np.shape(t), *self._shape)

    def loss(self, t: Any) -> Float[Array, "*times"]:
        """The loss of the training examples at time t, without weight decay."""
        outputs = self.train_outputs(t)
        of = lambda f: self._loss(f, self._y)
        return jax.vmap(of)(outputs) if np.ndim(t) else of(outputs)

    def best_time(
        self, x_star: PyTree, y_star: PyTree, *, loss: Loss | None = None,
        most: float | None = None,
    ) -> BestTime:  # fmt: skip
        """When to stop: the time at which the loss on other examples is least.

        Times are searched on a logarithmic grid, then refined around the best of it.

        Parameters
        ----------
        x_star, y_star
            The other examples.
        loss
            Another loss than that of training.
        most
            The latest time; needed where there is no closed form.

        Raises
        ------
        ValueError
            If shapes do not fit, or the latest time is not positive.
        """
        loss = self._loss if loss is None else loss
        predict = self._predictor(x_star)
        shape = self._source.outputs if loss is squared else None
        y_star = checked_targets(y_star, length(predict.x), shape)
        require_scalar(loss, jax.eval_shape(lambda: predict.start), y_star)
        if isinstance(self._path, Closed):
            rates = self._path.eigen.rates
        elif most is None:
            msg = "without a closed form the search for the best time needs the latest time, most="
            raise ValueError(msg)
        else:
            rates = [1e3 / most]
        each = jax.vmap(lambda f: loss(f, y_star))
        return best_time(lambda t: each(predict(t)), self._method, rates, most)

    # ----------------------------------------------------------------- inside

    def _predictor(self, x_star: PyTree) -> Predictor:
        source, x_star = self._source, self._source.batch(x_star)
        start, kernel = source.start(x_star), as_matrix(source.kernel(x_star))
        own = None if self._system.own is None else self._flat(source.own(x_star))
        at = lambda t: self._path(self._times(t))
        return Predictor(at, System(kernel, self._flat(start), own, 0.0), start, x_star)

    def _times(self, t: Any) -> Array:
        return checked(t, self._system.start.dtype, self._method)

    def _flat(self, outputs: Array) -> Array:
        """Outputs as (N, r): all outputs in rows, or examples where outputs share a kernel."""
        if self._source.shared:
            return outputs.reshape(outputs.shape[0], -1)
        return outputs.reshape(-1, 1)


class Predictor:
    """Outputs of some inputs by time; what does not depend on time is computed once."""

    def __init__(
        self, at: Callable[[Any], Any], system: System, start: Array, x: PyTree
    ) -> None:
        self._at = at
        self._system = system
        self.start = start
        self.x = x

    def __call__(self, t: Any) -> Array:
        """Shape (*times, m, *out)."""
        found = self._system.outputs(*self._at(t))
        return found.reshape(*np.shape(t), *self.start.shape)
