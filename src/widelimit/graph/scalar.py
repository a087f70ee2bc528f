"""Scalar functions of one Gaussian variable, as small expression graphs.

The pointwise part of a network arrives one primitive at a time. It is kept as an expression over
the Gaussian root, so that any spelling of an activation ends as one scalar function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


class Scalar:
    """A node of a scalar expression."""


@dataclass(frozen=True, eq=False)
class Variable(Scalar):
    """The Gaussian variable itself."""


@dataclass(frozen=True, eq=False)
class Parameter(Scalar):
    """The ``number``-th deterministic argument, a value that changes from example to example."""

    number: int


@dataclass(frozen=True, eq=False)
class Literal(Scalar):
    """A constant of the program."""

    value: Any


@dataclass(frozen=True, eq=False)
class Operation(Scalar):
    """An elementwise operation on other expressions."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Scalar, ...]


VARIABLE = Variable()


def evaluate(expression: Scalar, u: Any, parameters: tuple[Any, ...] = ()) -> Any:
    """The value of the expression at ``u``; arrays broadcast, constants take the type of ``u``."""
    memo: dict[int, Any] = {}

    def constant(value: Any) -> Any:
        value = np.asarray(value)
        return value.astype(u.dtype) if np.issubdtype(value.dtype, np.floating) else value

    def visit(node: Scalar) -> Any:
        if id(node) not in memo:
            match node:
                case Variable():
                    memo[id(node)] = u
                case Parameter(number):
                    memo[id(node)] = parameters[number]
                case Literal(value):
                    memo[id(node)] = constant(value)
                case Operation(_, function, arguments):
                    memo[id(node)] = function(*(visit(a) for a in arguments))
        return memo[id(node)]

    return visit(expression)


def bind(expression: Scalar, arguments: Sequence[Scalar]) -> Scalar:
    """Replace the k-th deterministic argument by ``arguments[k]``."""
    memo: dict[int, Scalar] = {}

    def visit(node: Scalar) -> Scalar:
        if id(node) not in memo:
            match node:
                case Parameter(number):
                    new = arguments[number]
                case Operation(name, function, inner):
                    changed = tuple(visit(a) for a in inner)
                    same = all(x is y for x, y in zip(changed, inner))
                    new = node if same else Operation(name, function, changed)
                case _:
                    new = node
            memo[id(node)] = new
        return memo[id(node)]

    return visit(expression)


def show(expression: Scalar, depth: int = 3) -> str:
    """A short text of the expression, for tables."""
    match expression:
        case Variable():
            return "u"
        case Parameter(number):
            return f"s{number}"
        case Literal(value):
            return f"{float(value):.4g}" if getattr(value, "ndim", 0) == 0 else "const"
        case Operation("at zero", _, arguments):
            return show(arguments[0], depth)
        case Operation(name, _, arguments):
            if depth == 0:
                return f"{name}(…)"
            return f"{name}({', '.join(show(a, depth - 1) for a in arguments)})"
    return "?"
