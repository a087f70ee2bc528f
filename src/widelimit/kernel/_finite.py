"""Kernels that are infinite or undefined are refused, not returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from widelimit.errors import NotGaussianError, Where
from widelimit.graph import nodes as n
from widelimit.limit.evaluate import ZERO, Evaluation
from widelimit.limit.moments import moment
from widelimit.limit.tangents import tangent


def first_bad(kernels: Sequence[Any], *, symmetric: bool) -> tuple[int, int] | None:
    """The first pair in the first row, the first column or on the diagonal that is not finite.

    What is divided by zero for one example is so for all pairs with it; what is too large for its
    type is so for a pair of an example with itself.
    """
    for k in kernels:
        # On the host this is a view; elsewhere little is to be fetched.
        here = all(device.platform == "cpu" for device in k.devices())
        entries = np.asarray(k) if here else k
        if (bad := _bad(entries[:, 0])) is not None:
            return bad, 0
        if (bad := _bad(entries[0])) is not None:
            return 0, bad
        on = np.arange(len(entries))
        if symmetric and (bad := _bad(entries[on, on])) is not None:
            return bad, bad
    return None


def first_bad_example(diagonals: Sequence[Any]) -> int | None:
    """The first example whose kernel with itself is not finite."""
    found = [bad for k in diagonals if (bad := _bad(k)) is not None]
    return min(found, default=None)


def _bad(rows: Any) -> int | None:
    finite = np.isfinite(np.asarray(rows))
    if finite.all():
        return None
    return int(np.argmin(finite.reshape(len(finite), -1).all(1)))


def culprit(ev: Evaluation, nodes: Sequence[n.Node]) -> Where | None:
    """The line of the first field that has no finite variance for an example of the left side."""
    rules = (moment, tangent) if ev.with_tangent else (moment,)
    for rule in rules:
        for node in nodes:
            if not isinstance(node, n.Field):
                continue
            axes = tuple(range(len(node.shape)))
            found = ev.at(rule, node, axes, node, axes, len(axes), "left")
            if found is not ZERO and not bool(jnp.all(jnp.isfinite(found))):
                return node.where
    return None


def drawn_not_finite() -> NotGaussianError:
    """The error where integrals are taken by sampling."""
    return NotGaussianError(
        "an integral that is taken by sampling is not finite",
        why="some function in the network is infinite or undefined at a value that its random "
        "argument takes, or its square has no mean.",
        remedy="keep it finite where it is not used too (as in where(x > 0, log(max(x, tiny)), "
        "0)), or sample finite networks instead.",
    )


def not_finite(pair: tuple[int, int], where: Where | None) -> NotGaussianError:
    """The error for a pair of examples, and the line of the field that it begins with."""
    return NotGaussianError(
        "the kernel of examples {} and {} is not finite".format(*pair),
        why="in the limit something is divided by zero, such as by a mean over channels that "
        "vanishes with the width or by the norm of an empty input, numbers grow beyond the range "
        "of their type, or an index is outside of the array that is looked up.",
        remedy="add a small constant to the denominator; for large numbers, scale inputs or "
        "weights down, or compute in double precision; for look-ups, mind the range of indices.",
        where=where,
    )
