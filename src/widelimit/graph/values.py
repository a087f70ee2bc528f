"""Nodes that are deterministic given the example, and how a node lies inside another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """Anything in the graph; ``shape`` holds the position axes."""

    shape: Shape


@dataclass(frozen=True, eq=False)
class Part:
    """A node inside another: axis k of the node is axis ``dims[k]`` of the whole."""

    node: Node
    dims: tuple[int, ...]


def whole(node: Node) -> Part:
    """The node in its own axes."""
    return Part(node, tuple(range(len(node.shape))))


def within(part: Part, dims: tuple[int, ...]) -> Part:
    """The part of a node whose own axes are axes ``dims`` of something larger."""
    return Part(part.node, tuple(dims[k] for k in part.dims))


@dataclass(frozen=True, eq=False)
class Value(Node):
    """An array that is deterministic given the example."""

    dtype: Any


@dataclass(frozen=True, eq=False)
class Constant(Value):
    """The same for every example."""

    array: np.ndarray


@dataclass(frozen=True, eq=False)
class Input(Value):
    """A leaf of the input."""

    number: int


@dataclass(frozen=True, eq=False)
class Compute(Value):
    """``function`` of other values, one example at a time; ``output`` picks one of its results."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Value, ...]
    output: int | None = None


@dataclass(frozen=True, eq=False)
class OneHot(Value):
    """One at the place that ``index`` names along the last axis, zero elsewhere.

    Outside the axis it is NaN, as a look-up outside of a table is.
    """

    index: Value
