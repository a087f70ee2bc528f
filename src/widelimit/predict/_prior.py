"""What is assumed before seeing data: a covariance, a mean function, a distribution of scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from widelimit.kernel import Kernel
from widelimit.predict import _checks


@dataclass(frozen=True)
class Covariance:
    """One kernel of a network, times a scale: the covariance of a centred Gaussian process."""

    kernel: Kernel
    reading: str
    scale: Any = 1.0

    def matrix(self, x: PyTree) -> Float[Array, "n n"]:
        """Between the rows of x."""
        return self._times(getattr(self.kernel, self.reading)(x), 2)

    def cross(self, x_star: PyTree, x: PyTree, reading: str = "") -> Float[Array, "m n"]:
        """Between the rows of x_star and of x."""
        return self._times(getattr(self.kernel, reading or self.reading)(x_star, x), 2)

    def diagonal(self, x: PyTree) -> Float[Array, " n"]:
        """The variance of each row."""
        return self._times(getattr(self.kernel, f"{self.reading}_diagonal")(x), 1)

    def both(self, x_star: PyTree, x: PyTree | None = None) -> tuple[Array, Array]:
        """NNGP and NTK, both scaled."""
        nngp, ntk = self.kernel.both(x_star, x)
        return self._times(nngp, 2), self._times(ntk, 2)

    def _times(self, block: Array, batch: int) -> Array:
        block = _checks.scalar(block, batch)
        if isinstance(self.scale, float) and self.scale == 1:
            return block
        return block * jnp.asarray(self.scale, block.dtype)


@dataclass(frozen=True)
class Mean:
    """The prior mean: a number, or a function of a batch of inputs."""

    given: float | Callable[[PyTree], Any]

    def __call__(self, x: PyTree, outputs: tuple[int, ...], dtype: Any) -> Array:
        """Values at the rows of x, broadcastable to shape (n, *outputs).

        Raises
        ------
        ValueError
            If they do not have that shape, or are not finite.
        """
        values = self.given(x) if callable(self.given) else self.given
        values = jnp.asarray(values, dtype)
        if not isinstance(values, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(values))):
            msg = "the prior mean contains NaN or infinite values"
            raise ValueError(msg)
        if not callable(self.given):
            if values.ndim:
                msg = f"mean is a number or a function of inputs, got shape {values.shape}"
                raise ValueError(msg)
            return values
        count = jax.tree.leaves(x)[0].shape[0]
        if values.shape == (count,) and outputs:
            values = values[:, None]
        if values.ndim != 1 + len(outputs) or values.shape[0] != count or (
            outputs and values.shape[1] not in (1, *outputs)
        ):
            msg = (
                f"the prior mean of {count} inputs has shape {values.shape}; it must be "
                f"{(count, *outputs)}" + (f" or ({count},)" if outputs else "")
            )
            raise ValueError(msg)
        return values


@dataclass(frozen=True)
class InverseGamma:
    r"""A random scale of the prior, :math:`s \sim \mathrm{IG}(a, b)`.

    Its density is :math:`b^a s^{-a-1} e^{-b/s} / \Gamma(a)` and its mean :math:`b / (a - 1)`. It is
    the distribution of the readout's variance that turns the limit into a Student-t process.

    Attributes
    ----------
    shape
        :math:`a > 0`.
    scale
        :math:`b > 0`.

    Raises
    ------
    ValueError
        If one of them is not positive and finite.

    Notes
    -----
    Lee, Yun, Yang, Lee, Scale mixtures of neural network Gaussian processes, 2022.
    """

    shape: float
    scale: float

    def __post_init__(self) -> None:
        for name in ("shape", "scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                msg = f"the {name} of an inverse gamma distribution is positive, got {value}"
                raise ValueError(msg)


def check_scale(scale: Any) -> Any:
    """A factor of the prior covariance.

    Raises
    ------
    ValueError
        If it is not a positive, finite number.
    """
    known = not isinstance(scale, jax.core.Tracer)
    if jnp.ndim(scale) or (known and not (np.isfinite(float(scale)) and float(scale) > 0)):
        msg = f"scale multiplies the prior covariance and is one positive number; got {scale}"
        raise ValueError(msg)
    return scale
