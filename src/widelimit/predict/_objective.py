"""What learning maximises, as a function of the logarithms of the hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from widelimit.kernel import Kernel
from widelimit.predict import _density
from widelimit.predict._evidence import log_evidence
from widelimit.predict._factor import Factor
from widelimit.predict._prior import Covariance
from widelimit.tiles import rounded


class Point(NamedTuple):
    """Logarithms of the hyper-parameters, or factors around them; None is not learned."""

    stds: Any
    noise: Any
    features: Any
    output: Any


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("kernel", "noise", "x", "y", "row_factor", "counts", "real"),
    meta_fields=("reading", "name"),
)
@dataclass(frozen=True)
class Objective:
    """A log density of the data, given the hyper-parameters that a :class:`Point` leaves open."""

    kernel: Kernel
    reading: str
    name: str
    noise: float
    x: PyTree
    y: Float[Array, "n ..."]
    row_factor: Float[Array, " n"]
    counts: Float[Array, " n"]
    real: Float[Array, " n"]

    @classmethod
    def filled(
        cls, kernel: Kernel, reading: str, name: str, noise: float, x: PyTree, y: Array,
        row_factor: Array, counts: Array,
    ) -> Objective:  # fmt: skip
        """With rows that count nothing, up to one of few sizes: few programs to compile."""
        count = y.shape[0]
        missing = rounded(count) - count
        same = lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], missing, axis=0)])
        zero = lambda a: jnp.pad(a, [(0, missing), *[(0, 0)] * (a.ndim - 1)])
        real = zero(jnp.ones(count, y.dtype))
        counts = jnp.pad(counts, (0, missing), constant_values=1)
        return cls(
            kernel, reading, name, noise, jax.tree.map(same, x), zero(y), same(row_factor), counts,
            real,
        )  # fmt: skip

    def slope(self, start: Point) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """Value and gradient as a function of a flat point; compiled once."""
        _, shaped = ravel_pytree(start)

        def both(flat: np.ndarray) -> tuple[float, np.ndarray]:
            point = shaped(jnp.asarray(flat, self.y.dtype))
            value, gradient = _value_and_gradient(point, self)
            return float(value), np.asarray(ravel_pytree(gradient)[0], float)

        return both

    def at(self, point: Point, x: PyTree) -> tuple[Covariance, PyTree, Any]:
        """The prior covariance, the scaled inputs and the noise."""
        kernel, scale = self.kernel, 1.0
        if point.stds is not None:
            stds = [jnp.exp(s) for s in point.stds]
            kernel = jax.tree.unflatten(jax.tree.structure(kernel), stds)
        if point.features is not None:
            x = x * jnp.exp(point.features)
        if point.output is not None:
            scale = jnp.exp(point.output)
        noise = self.noise if point.noise is None else jnp.exp(point.noise)
        return Covariance(kernel, self.reading, scale), x, noise


@jax.jit
@jax.value_and_grad
def _value_and_gradient(point: Point, target: Objective) -> Array:
    """One program for all data of one shape and one network."""
    covariance, x, noise = target.at(point, target.x)
    real, y = target.real, target.y
    gram = covariance.matrix(x) * real[:, None] * real
    noise = jnp.where(real > 0, noise * target.row_factor, 1)
    # A row that is none is independent of all others, N(0, 1), and zero.
    nothing = _density.gaussian(jnp.zeros((), y.dtype), 0.0, 1)
    fill = jnp.sum(1 - real) * (y.size // y.shape[0])
    return _density_of(target.name, gram, noise, target.counts, y) - nothing * fill


def _density_of(name: str, gram: Array, noise: Array, counts: Array, y: Array) -> Array:
    """The log evidence, or the sum of the leave-one-out log densities, each row counted."""
    y = y.reshape(y.shape[0], -1)
    if name == "evidence":
        repeats = _density.repeats(noise, counts, y.shape[1])
        return log_evidence(gram, noise / counts, y) + repeats
    factor = Factor(jnp.linalg.cholesky(gram + jnp.diag(noise / counts)), 0.0, float("nan"))
    inverse = factor.inverse()
    own = 1 / jnp.diagonal(inverse)
    # The function given all other rows, and of this one all counts but one.
    variance = jnp.maximum(own - noise / counts, 0)
    others = jnp.maximum(counts - 1, 0) / jnp.where(counts > 1, noise, 1)
    shrink = 1 / (1 + variance * others)
    total = variance * shrink + noise
    residual = (inverse @ y) * (own * shrink)[:, None]
    density = _density.gaussian(residual**2 / total[:, None], 0.5 * jnp.log(total)[:, None], 1)
    return jnp.sum(counts[:, None] * density)
