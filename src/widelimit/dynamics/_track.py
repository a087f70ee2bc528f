"""How far a real training run is from the linearised one, while it goes on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from widelimit.batches import check_inputs, length
from widelimit.dynamics._largest import top_ritz
from widelimit.dynamics._loss import Loss, checked_targets, require_scalar, squared
from widelimit.dynamics._training import Training
from widelimit.models import parts
from widelimit.tangent import empirical_ntk
from widelimit.tangent._blocks import as_matrix
from widelimit.tangent._spectrum import alignment
from widelimit.tangent._vectors import forward

QUANTITIES = {
    "loss": "loss",
    "kernel_drift": "kernel drift",
    "movement": "outputs' movement",
    "linearization_error": "error of the linearisation",
    "prediction_error": "error of the prediction",
    "sharpness": "sharpness",
    "alignment": "kernel-target alignment",
}


class Tracker:
    """A record of a training run; see :func:`widelimit.track`.

    Attributes
    ----------
    results
        A dictionary of arrays (records,), with the keys ``step`` and those of
        :func:`widelimit.track`.
    """

    def __init__(
        self, f: Any, params: Any, x: PyTree, y: PyTree, loss: Loss | None,
        prediction: Training | None, sharpness_steps: int, kernel: bool, trace_axes: Any, key: Any,
    ) -> None:  # fmt: skip
        self._x, _, example = check_inputs(x, None)
        # A module is a network without parameters of its own beside it.
        self._network = (lambda p: (p, None)) if params is None else lambda p: (f, p)
        self._origin = origin = parts(f, params)
        structs = jax.eval_shape(origin.apply, origin.values, origin.constants, example)
        outputs = jax.tree.leaves(structs)
        if len(outputs) != 1:
            msg = f"expected a network that returns one array, this one returns {len(outputs)}"
            raise ValueError(msg)
        shape = (length(self._x), *outputs[0].shape)
        self._y = checked_targets(y, shape[0], shape[1:] if loss is None else None)
        self._loss = squared if loss is None else loss
        self._prediction = prediction
        self._target = _numeric(self._y, shape)
        self._steps = sharpness_steps
        self._key = jax.random.key(0) if key is None else key
        self._records: list[dict[str, float]] = []

        def whole(values: Any, x: Any) -> Any:
            out = jax.vmap(lambda e: origin.apply(values, origin.constants, e))(x)
            return jax.tree.leaves(out)[0]

        def linear(start: Any, values: Any, x: Any) -> Any:
            way = tuple(a - b for a, b in zip(values, start))
            return forward(lambda v: whole(v, x), start)(way)

        def sharpest(values: Any, x: Any, y: Any, seed: Any) -> Any:
            flat, back = ravel_pytree(values)
            slope = jax.grad(lambda v: self._loss(whole(back(v), x), y))
            product = lambda v: jax.jvp(slope, (flat,), (v,))[1]
            start = jax.random.normal(seed, flat.shape, flat.dtype)
            return top_ritz(product, start, min(self._steps, flat.size))

        self._outputs, self._linear = jax.jit(whole), jax.jit(linear)
        self._sharpest = jax.jit(sharpest)
        self._begin = self._outputs(origin.values, self._x)
        require_scalar(self._loss, self._begin, self._y)
        self._trace_axes = trace_axes
        self._begin_kernel = self._matrix(f, params) if kernel else None

    def __call__(self, params: Any, step: int | None = None) -> dict[str, float]:
        """Record a state of the network.

        Parameters
        ----------
        params
            The parameters now, like those given at the start; the module, if that was given.
        step
            Its number, one more than the last unless given. It is the time of the prediction.

        Returns
        -------
        What was found, one number for each quantity.

        Raises
        ------
        ValueError
            If the parameters are not like those at the start, or hold NaN.
        """
        if step is None:
            step = int(self._records[-1]["step"]) + 1 if self._records else 0
        now = parts(*self._network(params))
        shapes = lambda p: [(n, v.shape) for n, v in zip(p.names, p.values)]
        if shapes(now) != shapes(self._origin):
            msg = f"parameters {shapes(now)} are not those of the start, {shapes(self._origin)}"
            raise ValueError(msg)
        outputs = self._outputs(now.values, self._x)
        if not bool(jnp.all(jnp.isfinite(outputs))):
            msg = f"the network's outputs are not finite at step {step}: training diverged"
            raise ValueError(msg)
        moved = outputs - self._begin
        linear = self._linear(self._origin.values, now.values, self._x)
        found = {
            "step": step,
            "loss": self._loss(outputs, self._y),
            "movement": _rms(moved),
            "linearization_error": _rms(moved - linear),
        }
        if self._prediction is not None:
            found["prediction_error"] = _rms(outputs - self._prediction.outputs(self._x, step))
        if self._begin_kernel is not None:
            found |= self._of_kernel(params, self._begin_kernel)
        if self._steps:
            found["sharpness"] = self._sharpest(now.values, self._x, self._y, self._key)
        record = {k: float(v) for k, v in found.items()}
        self._records.append(record)
        return record

    @property
    def results(self) -> dict[str, np.ndarray]:
        """One array for each quantity."""
        names = self._records[0] if self._records else ("step",)
        return {k: np.array([r[k] for r in self._records]) for k in names}

    def plot(self, axes: Any = None) -> Any:
        """Draw all quantities over the steps.

        Parameters
        ----------
        axes
            As many axes of Matplotlib as there are quantities; a new figure unless given.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ValueError
            If nothing is recorded, or the axes are too few.
        """
        from widelimit.dynamics._plot import draw

        return draw(self.results, QUANTITIES, axes)

    def _matrix(self, f: Any, params: Any) -> np.ndarray:
        kernel = empirical_ntk(f, params, self._x, trace_axes=self._trace_axes)
        return np.asarray(as_matrix(jax.tree.leaves(kernel)[0]), float)

    def _of_kernel(self, params: Any, start: np.ndarray) -> dict[str, float]:
        now = self._matrix(*self._network(params))
        found = {"kernel_drift": float(np.linalg.norm(now - start) / np.linalg.norm(start))}
        if self._target is not None:
            found["alignment"] = alignment(now, self._target.reshape(len(now), -1))
        return found


def track(
    f: Any,
    params: Any,
    x: PyTree,
    y: PyTree,
    *,
    loss: Loss | None = None,
    prediction: Training | None = None,
    kernel: bool = True,
    trace_axes: Any = (),
    sharpness_steps: int = 24,
    key: Array | None = None,
) -> Tracker:
    r"""Follow a training run of any kind and compare it with the linearised network.

    Call the tracker with the parameters, as often as wanted, in any loop. It records, for the
    examples given here (a part of the training examples, say):

    - ``loss``;
    - ``movement``, the root mean square of :math:`f_t - f_0`;
    - ``linearization_error``, that of :math:`f_t - f_0 - J_0 (\theta_t - \theta_0)`: how far the
      network is from linear along the way it has gone, whatever the optimizer;
    - ``prediction_error``, that of :math:`f_t` less the prediction at time ``step``, if there is
      one;
    - ``kernel_drift``, :math:`\|T_t - T_0\|_F / \|T_0\|_F`;
    - ``alignment``, :math:`\langle T_t, y y^T \rangle / (\|T_t\| \|y y^T\|)`, with labels as
      one-hot vectors;
    - ``sharpness``, the largest eigenvalue of the loss's Hessian, from below by Lanczos.

    Parameters
    ----------
    f, params
        As for :func:`widelimit.empirical_ntk`, at the start of training; one output array.
    x, y
        The examples to look at, and their targets.
    loss
        As for :func:`widelimit.dynamics.linearized`; the sharpness is of this one.
    prediction
        What :func:`widelimit.dynamics.linearized` or :func:`widelimit.dynamics.of_kernel` returned.
    kernel
        Whether to compute tangent kernels.
    trace_axes
        Output axes that kernels are averaged over, which is cheaper; -1, say.
    sharpness_steps
        Hessian-vector products for each sharpness, for each of which a vector of the size of the
        parameters is kept; 0 leaves it out.
    key
        For the random start of these.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, or the loss does not return one number.

    Notes
    -----
    Lee et al., 2019; Cristianini et al., On kernel-target alignment, 2001; Cohen et al., Gradient
    descent on neural networks typically occurs at the edge of stability, 2021.
    """
    if sharpness_steps < 0:
        msg = f"sharpness_steps is at least 0, got {sharpness_steps}"
        raise ValueError(msg)
    return Tracker(f, params, x, y, loss, prediction, sharpness_steps, kernel, trace_axes, key)


def _rms(a: Array) -> Array:
    return jnp.sqrt(jnp.mean(a**2))


def _numeric(y: PyTree, shape: tuple[int, ...]) -> np.ndarray | None:
    """Targets of the shape of the outputs; labels as one-hot vectors; None for anything else."""
    leaves = jax.tree.leaves(y)
    if len(leaves) != 1:
        return None
    found = np.asarray(leaves[0])
    if found.shape == shape:
        return found.astype(float)
    if found.shape == shape[:-1] and np.issubdtype(found.dtype, np.integer):
        return np.eye(shape[-1])[found]
    return None
