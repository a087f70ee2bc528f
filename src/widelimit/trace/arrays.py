"""What a program variable holds while a network is read.

A node of the graph has position axes and channel axes of its own; the program's array shows them
in some arrangement. Every program axis is a tuple of atoms, so that reshapes and transposes only
regroup atoms and the width axis is known without being declared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.graph import nodes as n
from widelimit.graph.build import Builder
from widelimit.graph.nodes import Shape
from widelimit.trace.averages import Average


@dataclass(frozen=True)
class Position:
    """Position axis ``axis`` of the node; ``wide`` if a width axis was read as positions."""

    axis: int
    wide: bool = False


@dataclass(frozen=True)
class Channel:
    """Channel axis ``axis`` of the node."""

    axis: int


@dataclass(frozen=True)
class Repeat:
    """The array is constant along this axis."""

    size: int


Atom = Position | Channel | Repeat


@dataclass(frozen=True, eq=False)
class Array:
    """A value or a field in the program's arrangement."""

    node: n.Node
    axes: tuple[tuple[Atom, ...], ...]
    average: Average | None = None

    @property
    def known(self) -> bool:
        """Whether this is deterministic given the example."""
        return isinstance(self.node, n.Value)

    @property
    def field(self) -> n.Field:
        """The field; only where ``known`` is false."""
        assert isinstance(self.node, n.Field)
        return self.node

    @property
    def value(self) -> n.Value:
        """The value; only where ``known`` is true."""
        assert isinstance(self.node, n.Value)
        return self.node

    def size(self, atom: Atom) -> int:
        """The length of an atom."""
        match atom:
            case Position(axis):
                return self.node.shape[axis]
            case Channel(axis):
                return self.field.channels[axis]
            case Repeat(size):
                return size

    @property
    def shape(self) -> Shape:
        """The program's shape."""
        return tuple(math.prod(self.size(a) for a in axis) for axis in self.axes)


@dataclass(frozen=True, eq=False)
class Parameter:
    """Entries of a parameter, times a constant, not used yet."""

    leaf: int
    index: np.ndarray
    scale: float = 1.0

    @property
    def shape(self) -> Shape:
        """The program's shape."""
        return self.index.shape


@dataclass(frozen=True, eq=False)
class Concatenation:
    """Pieces of different kinds joined along ``axis``."""

    pieces: tuple[Array | Parameter, ...]
    axis: int

    @property
    def shape(self) -> Shape:
        """The program's shape."""
        shape = list(self.pieces[0].shape)
        shape[self.axis] = sum(self.sizes)
        return tuple(shape)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The lengths of the pieces."""
        return tuple(p.shape[self.axis] for p in self.pieces)


Operand = Array | Parameter | Concatenation


def known_array(b: Builder, array: Any) -> Array:
    """A constant of the program, as small as it can be written."""
    if hasattr(array, "dtype") and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        # Whatever makes use of a key is refused.
        array = np.zeros(array.shape)
    array = np.asarray(array)
    axes: list[tuple[Atom, ...]] = []
    index: list[Any] = []
    count = 0
    for k, size in enumerate(array.shape):
        if size == 0:
            axes.append((Position(count),))
            index.append(slice(None))
            count += 1
        elif size == 1:
            axes.append(())
            index.append(0)
        elif np.all(array == np.take(array, [0], axis=k)):
            axes.append((Repeat(size),))
            index.append(0)
        else:
            axes.append((Position(count),))
            index.append(slice(None))
            count += 1
    return Array(b.constant(array[tuple(index)]), tuple(axes))


def known_shaped(node: n.Value, shape: Shape) -> Array:
    """A value whose node leaves out the axes of size one."""
    axes: list[tuple[Atom, ...]] = []
    count = 0
    for s in shape:
        if s != 1:
            axes.append((Position(count),))
            count += 1
        else:
            axes.append(())
    out = Array(node, tuple(axes))
    assert out.shape == tuple(shape)
    return out


def is_constant(array: Operand) -> bool:
    """Whether the array is a constant of the program."""
    return isinstance(array, Array) and isinstance(array.node, n.Constant)


def concrete(array: Array) -> np.ndarray:
    """A constant of the program in its full shape."""
    assert isinstance(array.node, n.Constant)
    return np.asarray(materialise(array, array.node.array, np))


def materialise(array: Array, block: Any, xp: Any) -> Any:
    """The program's array from the node's own block of numbers."""
    order = [a.axis for axis in array.axes for a in axis if isinstance(a, Position)]
    left_out = [k for k in range(len(array.node.shape)) if k not in order]
    block = xp.transpose(block, (*left_out, *order))
    block = xp.reshape(block, block.shape[len(left_out) :])
    wide = [array.size(a) if isinstance(a, Position) else 1 for axis in array.axes for a in axis]
    full = [array.size(a) for axis in array.axes for a in axis]
    return xp.reshape(xp.broadcast_to(xp.reshape(block, wide), full), array.shape)
