"""What a network and its training data must be for its limit to be a Gaussian process."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from widelimit.errors import NotGaussianError
from widelimit.graph import nodes as n
from widelimit.kernel import Kernel


def require_gaussian_output(kernel: Kernel, x: PyTree) -> None:
    """Refuse networks whose output is not a centred Gaussian process with one scalar per channel.

    Raises
    ------
    ValueError
        If the network has several outputs, or its output has position axes.
    NotGaussianError
        If the output is not Gaussian in the limit, or not centred.
    """
    outputs = kernel.graph(x).outputs
    if len(outputs) != 1:
        msg = f"expected a network with one output array, this one has {len(outputs)}"
        raise ValueError(msg)
    node = outputs[0].node
    where = node.where if isinstance(node, n.Field) else None
    if not n.is_gaussian(node):
        msg = "the network's output is not Gaussian in the limit"
        raise NotGaussianError(
            msg,
            why="a posterior in closed form needs an output that is a Gaussian process, and the "
            "last operation here is not linear in a random readout.",
            remedy="end the network in a dense layer, and apply softmax or other functions of "
            "the output to the predictions.",
            where=where,
        )
    if _has_known_part(node):
        msg = "the network's output has a known part added to its random part"
        raise NotGaussianError(
            msg,
            why="the prior then has a mean, while these formulas are those of a centred process.",
            remedy="leave the known part out of the network and subtract it from the targets.",
            where=where,
        )


def scalar(block: Float[Array, "n ..."], batch: int) -> Float[Array, "n ..."]:
    """A kernel with its output axes of size one removed; ``batch`` axes are left.

    Raises
    ------
    ValueError
        If the output has positions, or values that are not finite.
    """
    if block.size != math.prod(block.shape[:batch]):
        msg = (
            "the network's output has positions (or repeated entries) besides channels: its "
            f"kernel has shape {tuple(block.shape)}, where one number per pair of examples is "
            "needed; pool, or flatten into a dense layer, so that each channel holds one scalar"
        )
        raise ValueError(msg)
    block = block.reshape(block.shape[:batch])
    if not isinstance(block, jax.core.Tracer) and not bool(jnp.all(jnp.isfinite(block))):
        msg = "the kernel contains NaN or infinite values"
        raise ValueError(msg)
    return block


def targets(y: Any, count: int, dtype: Any) -> Float[Array, "n ..."]:
    """Targets as an array of shape (n,) or (n, outputs).

    Raises
    ------
    ValueError
        If there are not as many as examples, or they are not finite.
    """
    y = jnp.asarray(y)
    if y.ndim not in (1, 2):
        msg = f"y has shape {y.shape}; it must be (n,) or (n, outputs)"
        raise ValueError(msg)
    if y.shape[0] != count:
        msg = f"x holds {count} examples and y {y.shape[0]} targets"
        raise ValueError(msg)
    if not isinstance(y, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(y))):
        msg = "y contains NaN or infinite values"
        raise ValueError(msg)
    return y.astype(dtype)


def variance(noise: Any) -> Any:
    """A scalar variance.

    Raises
    ------
    ValueError
        If it is negative, not finite or not a scalar.
    """
    if jnp.ndim(noise) != 0:
        msg = f"noise is one variance for all targets, got shape {jnp.shape(noise)}"
        raise ValueError(msg)
    if isinstance(noise, jax.core.Tracer):
        return noise
    if not (float(noise) >= 0 and np.isfinite(float(noise))):
        msg = f"noise is a variance, at least 0 and finite; got {noise}"
        raise ValueError(msg)
    return noise


def _has_known_part(node: n.Node) -> bool:
    match node:
        case n.Value():
            return True
        case n.Sum(terms=terms):
            return any(_has_known_part(t.node) for t in terms)
        case n.Scale(operand=operand):
            return _has_known_part(operand.node)
        case n.Map(operand=operand) | n.Spread(operand=operand):
            return _has_known_part(operand)
        case n.Join(pieces=pieces):
            return any(_has_known_part(p) for p in pieces)
    return False
