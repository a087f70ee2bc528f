"""A finite network, linearised at its present parameters."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from widelimit.batches import check_inputs
from widelimit.dynamics._loss import Loss
from widelimit.dynamics._plan import Plan
from widelimit.dynamics._training import Training
from widelimit.tangent import empirical_ntk
from widelimit.tangent._problem import problem
from widelimit.tangent._vectors import forward, weighted


class Linearized(Training):
    """A finite network's linearisation during training, in function and in weight space.

    Made by :func:`widelimit.dynamics.linearized`.
    """

    _source: _Network

    def parameters(self, t: float) -> PyTree:
        r"""The parameters of the linearised network at one time.

        .. math:: \theta(t) = \theta_0 + \Lambda J^T a(t) + b(t) \theta_0

        by one backward pass over the training examples. ``wl.linearize(f, params)`` of them are
        the outputs at that time.

        Returns
        -------
        A pytree like the ``params`` that were linearised around; parameters that are not trained
        are as they were.

        Raises
        ------
        ValueError
            If the time is not one number, or does not fit the method.
        """
        if np.ndim(t):
            msg = f"parameters belong to one time, got shape {np.shape(t)}"
            raise ValueError(msg)
        a, b = self._path(self._times(t))
        return self._source.moved(a.reshape(self._shape), b)


def linearized(
    f: Any,
    params: Any,
    x: PyTree,
    y: PyTree,
    *,
    loss: Loss | None = None,
    method: str = "flow",
    learning_rate: Any = 1.0,
    momentum: float | None = None,
    weight_decay: float = 0.0,
    decay_towards: str = "start",
    weights: Any = None,
    trainable: Any = None,
    memory: int = 1 << 30,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    solver: Any = None,
    max_steps: int = 100_000,
) -> Linearized:
    r"""What training will do to a finite network, as far as it is linear in its parameters.

    The linearised network :math:`f_{lin}(\theta) = f_0 + J (\theta - \theta_0)` is trained on

    .. math:: L(f_{lin}(\theta)) + \frac\delta2 \sum_j \frac{(\theta_j - c_j)^2}{w_j}

    where parameter j has learning rate :math:`\eta w_j`, so that decay acts on all parameters at
    the same rate: :math:`\dot\theta = -\eta (\Lambda J^T \nabla L + \delta (\theta - c))`. With
    w = 1 a step towards zero is that of
    ``optax.chain(optax.add_decayed_weights(δ), optax.sgd(η, β, nesterov))``.

    Parameters
    ----------
    f, params, weights, trainable, memory
        As for :func:`widelimit.empirical_ntk`: a function of parameters and ONE example, or a
        module and None; ``weights`` are the w. The network returns one array.
    x, y, loss, method, learning_rate, momentum, rtol, atol, solver, max_steps
        As for :func:`widelimit.dynamics.of_kernel`. The squared loss is a sum, not an average: a
        mean over n examples and o outputs, as in ``jnp.mean((f - y)**2)``, has 2 / (n o) times
        its gradient, and is trained like it with 2 η / (n o).
    weight_decay, decay_towards
        δ, and c: ``"start"`` is :math:`\theta_0`, ``"zero"`` is 0. Parameters with w = 0 stay.

    Raises
    ------
    ValueError, ImportError
        As for :func:`widelimit.dynamics.of_kernel` and :func:`widelimit.empirical_ntk`, or if the
        network returns several arrays.

    Notes
    -----
    Lee et al., Wide neural networks of any depth evolve as linear models under gradient descent,
    2019, equations 8 to 11. The kernel of all training outputs is held and, for the squared loss,
    decomposed: n · out is to be some thousands at most.

    Examples
    --------
    >>> import jax.numpy as jnp, widelimit as wl
    >>> run = wl.dynamics.linearized(lambda w, x: w * x, jnp.array(1.0), jnp.ones(1), jnp.zeros(1),
    ...                              method="descent", learning_rate=0.5)
    >>> float(run.parameters(2))
    0.25
    """
    plan = Plan.of(
        method=method, learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay,
        decay_towards=decay_towards, loss=loss, rtol=rtol, atol=atol, solver=solver,
        max_steps=max_steps,
    )  # fmt: skip
    x, _, _ = check_inputs(x, None)
    return Linearized(_Network(f, params, x, trainable, weights, memory), x, y, plan)


class _Network:
    """A network's outputs, derivatives and kernel at its present parameters."""

    shared = False

    def __init__(
        self, f: Any, params: Any, x: PyTree, trainable: Any, weights: Any, memory: int
    ) -> None:
        _, _, example = check_inputs(x, None)
        self._problem = p = problem(f, params, example, trainable, weights)
        if len(p.outputs) != 1:
            msg = f"expected a network that returns one array, this one returns {len(p.outputs)}"
            raise ValueError(msg)
        self.outputs = tuple(p.outputs[0].shape)
        self._x = x
        self._kernel = lambda x1, x2=None: empirical_ntk(
            f, params, x1, x2, trainable=trainable, weights=weights, memory=memory
        )
        # Parameters that cannot move do not decay.
        self._decaying = tuple(
            t if w is None else t * (w > 0) for t, w in zip(p.arrays.theta, p.arrays.weights)
        )
        function = p.function(0)

        def over(arrays: Any, x: Any) -> Any:
            return lambda theta: jax.vmap(lambda e: function(theta, arrays, e))(x)

        # Parameters are arguments, not constants, of the compiled programs.
        self._values = jax.jit(lambda arrays, x: over(arrays, x)(arrays.theta))
        self._push = jax.jit(lambda arrays, x, way: forward(over(arrays, x), arrays.theta)(way))
        back = lambda arrays, x: jax.vjp(over(arrays, x), arrays.theta)[1]
        self._pull = jax.jit(lambda arrays, x, seed: back(arrays, x)(seed)[0])

    def batch(self, x: PyTree) -> PyTree:
        return check_inputs(x, self._x)[0]

    def start(self, x: PyTree) -> Array:
        return self._values(self._problem.arrays, x)

    def own(self, x: PyTree) -> Array:
        return self._push(self._problem.arrays, x, self._decaying)

    def kernel(self, x_star: PyTree | None) -> Array:
        return self._kernel(self._x) if x_star is None else self._kernel(x_star, self._x)

    def moved(self, a: Array, b: Array) -> PyTree:
        """The network with parameters θ₀ + Λ Jᵀ a + b θ₀."""
        p = self._problem
        slope = self._pull(p.arrays, self._x, a)
        change = weighted(slope, p.arrays.weights)
        values = list(p.parts.values)
        for k, theta, way, own in zip(p.chosen, p.arrays.theta, change, self._decaying):
            values[k] = theta + way + b * own
        return p.parts.fill(values, p.parts.constants)
