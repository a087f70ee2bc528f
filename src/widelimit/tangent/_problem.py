"""What is asked: a function of parameters and one example, and which parameters count how much."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.models import Parts, assign, parts
from widelimit.tangent._axes import Axes
from widelimit.tangent._memory import Memory


@dataclass(frozen=True)
class Problem:
    """A network at its parameters.

    Attributes
    ----------
    parts
        The network's arrays and the way back to the network.
    chosen
        The numbers of the parameters that count.
    weights
        For each of those a number or an array that its part of the kernel is multiplied by; None
        is one.
    outputs
        Shape and dtype of each output leaf for one example.
    structure
        The pytree of the outputs.
    """

    parts: Parts
    chosen: tuple[int, ...]
    weights: tuple[Any, ...]
    outputs: tuple[jax.ShapeDtypeStruct, ...]
    structure: Any

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters that count."""
        return tuple(self.parts.names[k] for k in self.chosen)

    @property
    def arrays(self) -> Arrays:
        """Everything that changes from call to call."""
        theta = tuple(self.parts.values[k] for k in self.chosen)
        rest = tuple(v for k, v in enumerate(self.parts.values) if k not in self.chosen)
        return Arrays(theta, rest, self.parts.constants, self.weights)

    def function(self, number: int) -> Callable[[Sequence[Any], Arrays, Any], Any]:
        """One output leaf as a function of (chosen parameters, the other arrays, one example)."""

        def apply(theta: Sequence[Any], arrays: Arrays, x: Any) -> Any:
            values: list[Any] = [None] * len(self.parts.values)
            rest = iter(arrays.rest)
            chosen = dict(zip(self.chosen, theta))
            for k in range(len(values)):
                values[k] = chosen[k] if k in chosen else next(rest)
            out = self.parts.apply(values, arrays.constants, x)
            return jnp.asarray(jax.tree.leaves(out)[number])

        return apply

    @property
    def key(self) -> Hashable:
        """What programs depend on, beside shapes; None if it cannot be compared."""
        if self.parts.key is None:
            return None
        shapes = lambda arrays: tuple(None if a is None else (a.shape, a.dtype) for a in arrays)
        every = (self.parts.values, self.parts.constants, self.weights)
        return (self.parts.key, self.chosen, *map(shapes, every))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Arrays:
    """The arrays of a problem: parameters that count, other parameters, constants, weights."""

    theta: tuple[Any, ...]
    rest: tuple[Any, ...]
    constants: tuple[Any, ...]
    weights: tuple[Any, ...]


def problem(
    f: Any, params: Any, example: Any, trainable: Any = None, weights: Any = None
) -> Problem:
    """Read what the caller gave.

    Raises
    ------
    ValueError
        If no parameter is left, a weight does not fit its parameter or is negative, or the output
        is not real.
    """
    read = parts(f, params)
    structs = tuple(jax.ShapeDtypeStruct(v.shape, v.dtype) for v in read.values)
    for name, s in zip(read.names, structs):
        if jnp.issubdtype(s.dtype, jnp.complexfloating):
            msg = f"{name} is complex; the tangent kernel is that of real parameters: give its " \
                "real and imaginary parts as two arrays"
            raise ValueError(msg)
    flags = assign(trainable, read.names, structs, _as_bool, "trainable")
    chosen = tuple(k for k, flag in enumerate(flags) if flag is not False)
    if not chosen:
        msg = "no parameters are left: the function holds no floating-point arrays, or none of " \
            "them is trainable"
        raise ValueError(msg)
    found = assign(weights, read.names, structs, _as_weight, "weights")
    scale = tuple(
        _checked_weight(read.names[k], found[k], structs[k]) for k in chosen
    )
    leaves, structure = _outputs(read, structs, example)
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            msg = f"an output of type {leaf.dtype} has no tangent kernel; return real numbers"
            raise ValueError(msg)
    return Problem(read, chosen, scale, tuple(leaves), structure)


OUTPUTS = Memory(1024)


def _outputs(read: Parts, structs: Any, example: Any) -> tuple[list[Any], Any]:
    """Shapes of the output leaves and their pytree, found once for equal networks."""
    shapes, tree = jax.tree.flatten((structs, read.constants, example))
    key = read.key and (read.key, tree, tuple((s.shape, s.dtype) for s in shapes))
    return OUTPUTS.get(key, lambda: jax.tree.flatten(
        jax.eval_shape(lambda v, c, x: read.apply(v, c, x), structs, read.constants, example)
    ))


def output_axes(p: Problem, trace: Any, diagonal: Any) -> tuple[Axes, ...]:
    """The treatment of each output leaf."""
    return tuple(Axes.of(tuple(s.shape), trace, diagonal) for s in p.outputs)


def size(structs: Sequence[Any]) -> int:
    """The number of entries of several arrays."""
    return sum(math.prod(s.shape) for s in structs)


def only(p: Problem, k: int) -> Problem:
    """The problem of one of the chosen parameters alone."""
    return replace(p, chosen=(p.chosen[k],), weights=(p.weights[k],))


def _as_bool(value: Any) -> bool | None:
    return bool(value) if isinstance(value, bool | np.bool_) else None


def _as_weight(value: Any) -> Any:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float | np.number | np.ndarray | jax.Array):
        return value
    return None


def _checked_weight(name: str, weight: Any, struct: jax.ShapeDtypeStruct) -> Any:
    if weight is None:
        return None
    traced = isinstance(weight, jax.core.Tracer)
    weight = weight if traced else np.asarray(weight)
    weight = weight.astype(struct.dtype)
    if weight.shape not in ((), struct.shape):
        msg = f"weights: {name} has shape {struct.shape}, its weight {weight.shape}; give a " \
            "number or an array of the parameter's shape"
        raise ValueError(msg)
    if not traced and not np.all(weight >= 0):
        msg = f"weights: that of {name} is negative or not a number"
        raise ValueError(msg)
    return weight
