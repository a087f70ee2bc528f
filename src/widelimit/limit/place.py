"""Arrays of moments: batch axes first, then one axis per label; absent ones have size one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp


def place(array: Any, batch: int, targets: Sequence[int], rank: int) -> Any:
    """Move the axes after the batch axes to ``targets`` among ``rank`` axes.

    Axes with the same target are read along their diagonal.
    """
    targets = list(targets)
    for k in range(len(targets)):
        while targets.count(targets[k]) > 1:
            other = targets.index(targets[k], k + 1)
            array = diagonal(array, batch + k, batch + other)
            del targets[other]
        if k + 1 >= len(targets):
            break
    order = sorted(range(len(targets)), key=lambda k: targets[k])
    moved = jnp.transpose(array, (*range(batch), *(batch + k for k in order)))
    shape = [1] * rank
    for i, k in enumerate(order):
        shape[targets[k]] = moved.shape[batch + i]
    return moved.reshape(*moved.shape[:batch], *shape)


def diagonal(array: Any, first: int, second: int) -> Any:
    """The diagonal of two axes, in the place of the first; axes of size one stretch."""
    if array.shape[first] == 1 and array.shape[second] != 1:
        return jnp.squeeze(jnp.moveaxis(array, second, first + 1), first) if second > first else (
            jnp.squeeze(array, first)
        )
    if array.shape[second] == 1:
        return jnp.squeeze(array, second)
    return jnp.moveaxis(jnp.diagonal(array, axis1=first, axis2=second), -1, first)


def eye(size: int, first: int, second: int, rank: int, batch: int, dtype: Any) -> Any:
    """The identity over two label axes."""
    shape = [1] * (batch + rank)
    shape[batch + first] = size
    shape[batch + second] = size
    return jnp.eye(size, dtype=dtype).reshape(shape)


def stretch(array: Any, axis: int, size: int) -> Any:
    """Give an axis of size one its full size."""
    if array.shape[axis] == size:
        return array
    shape = list(array.shape)
    shape[axis] = size
    return jnp.broadcast_to(array, shape)
