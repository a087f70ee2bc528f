"""Networks known by their kernel alone, such as infinitely wide ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from widelimit.batches import check_inputs, length
from widelimit.dynamics._loss import Loss
from widelimit.dynamics._plan import Plan
from widelimit.dynamics._training import Training


def of_kernel(
    kernel: Callable[[PyTree, PyTree], Any],
    x: PyTree,
    y: PyTree,
    *,
    start: Any = 0.0,
    outputs: int | tuple[int, ...] | None = None,
    loss: Loss | None = None,
    method: str = "flow",
    learning_rate: Any = 1.0,
    momentum: float | None = None,
    weight_decay: float = 0.0,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    solver: Any = None,
    max_steps: int = 100_000,
) -> Training:
    r"""Training of a network with a given tangent kernel, from given initial outputs.

    .. math:: \dot f_t(x_*) = -\eta\, T(x_*, X)\, \nabla L(f_t(X)) \text{ (flow)}

    and the steps of the other methods. ``wl.dynamics.of_kernel(kernel.ntk, x, y)`` with
    ``kernel = wl.kernel(...)`` is the infinitely wide network that computes ``start`` before
    training. For the squared loss that is also the mean over initialisations; covariances over
    them are those of :func:`widelimit.predict.gradient_flow`.

    Parameters
    ----------
    kernel
        A function of two batches of inputs that returns T of shape (n1, n2), for every output
        alike, or (n1, n2, *out, *out).
    x
        Training inputs, shape (n, *shape), or a pytree of them.
    y
        Targets: of shape (n, *out) for the squared loss; anything with n rows that ``loss`` takes.
    start
        The outputs before training: a number, or a function of a batch of inputs that returns
        shape (m, *out).
    outputs
        The shape of the outputs for one example where neither the kernel, nor ``start``, nor the
        targets of a squared loss show it: 10 for ten classes with ``y`` of labels.
    loss
        A differentiable function of (outputs (n, *out), y) that returns a number; None is
        :func:`widelimit.dynamics.squared`, in closed form. With ``method="flow"`` other losses
        are solved by diffrax, with the other methods step by step.
    method, learning_rate, momentum
        ``"flow"``, ``"descent"``, ``"momentum"`` (heavy ball) or ``"nesterov"``, the updates of
        ``optax.sgd``; η; and β for the last two.
    weight_decay
        δ: :math:`\frac\delta2 |\theta - \theta_0|^2` is added to the loss. Decay towards zero
        needs the parameters, which a kernel does not hold: :func:`widelimit.dynamics.linearized`
        has it.
    rtol, atol, solver, max_steps
        Of the ODE: tolerances, a solver of diffrax (``Tsit5()`` unless given; ``Kvaerno5()`` for
        long times), and the most steps it may take.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, the loss is not a number, or the learning
        rate is so large that a squared loss diverges.
    ImportError
        If a flow needs diffrax and it is not installed.

    Notes
    -----
    Lee et al., Wide neural networks of any depth evolve as linear models under gradient descent,
    2019, section 2.2.
    """
    plan = Plan.of(
        method=method, learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay,
        decay_towards="start", loss=loss, rtol=rtol, atol=atol, solver=solver,
        max_steps=max_steps,
    )  # fmt: skip
    x, _, _ = check_inputs(x, None)
    source = _Kernel(kernel, x, start, outputs, np.shape(y)[1:] if loss is None else None)
    return Training(source, x, y, plan)


class _Kernel:
    """A kernel function, and what the network computes before training."""

    def __init__(
        self, kernel: Callable[..., Any], x: PyTree, start: Any, outputs: Any, targets: Any
    ) -> None:
        self._kernel = kernel
        self._x = x
        self._start = start
        self._gram = jnp.asarray(kernel(x, x))
        n = length(x)
        rest = self._gram.shape[2:]
        half = rest[: len(rest) // 2]
        if self._gram.shape[:2] != (n, n) or rest != (*half, *half):
            msg = (
                f"the kernel of {n} examples has shape {self._gram.shape}; it must be "
                f"{(n, n)} or {(n, n)} with all pairs of outputs, (n, n, *out, *out)"
            )
            raise ValueError(msg)
        self.shared = math.prod(rest) == 1
        if not self.shared:
            self.outputs = half
        elif outputs is not None:
            self.outputs = (outputs,) if isinstance(outputs, int) else tuple(outputs)
        elif callable(start):
            self.outputs = jnp.shape(start(x))[1:]
        elif targets is not None:
            self.outputs = targets
        else:
            msg = "the number of outputs is not known: give outputs=, or start= as a function"
            raise ValueError(msg)

    def batch(self, x: PyTree) -> PyTree:
        return check_inputs(x, self._x)[0]

    def start(self, x: PyTree) -> Array:
        shape = (length(x), *self.outputs)
        if not callable(self._start):
            if jnp.ndim(self._start):
                shape = jnp.shape(self._start)
                msg = f"start is a number or a function of inputs, got shape {shape}"
                raise ValueError(msg)
            return jnp.full(shape, self._start, self._gram.dtype)
        found = jnp.asarray(self._start(x), self._gram.dtype)
        if found.shape != shape:
            msg = f"start of {shape[0]} inputs has shape {found.shape}, it must be {shape}"
            raise ValueError(msg)
        return found

    def own(self, x: PyTree) -> Array:
        del x
        msg = "a kernel does not hold the parameters that would decay to zero"
        raise ValueError(msg)

    def kernel(self, x_star: PyTree | None) -> Array:
        found = self._gram if x_star is None else jnp.asarray(self._kernel(x_star, self._x))
        return found.reshape(found.shape[:2]) if self.shared else found
