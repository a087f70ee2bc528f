"""See a node as a scalar function of one Gaussian root, whatever it was spelled as."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np

from widelimit.graph import nodes as n
from widelimit.graph import scalar as s
from widelimit.graph.apart import centred
from widelimit.graph.build import Builder
from widelimit.graph.nodes import Part


@dataclass(frozen=True)
class Function:
    """``expression`` of one zero-mean Gaussian ``root`` and of known ``values``."""

    expression: s.Scalar
    root: Part | None
    values: tuple[Part, ...]


class _NoCommonRootError(Exception):
    pass


class _Reader:
    def __init__(self, b: Builder, *, peel: bool) -> None:
        self.b = b
        self.peel = peel
        self.root: Part | None = None
        self.values: list[Part] = []

    def value(self, part: Part) -> s.Scalar:
        if isinstance(part.node, n.Constant) and part.node.shape == ():
            return s.Literal(part.node.array)
        for i, known in enumerate(self.values):
            if known.node is part.node and known.dims == part.dims:
                return s.Parameter(i)
        self.values.append(part)
        return s.Parameter(len(self.values) - 1)

    def be_root(self, part: Part) -> s.Scalar:
        if self.root is None:
            self.root = part
        elif self.root.node is not part.node or self.root.dims != part.dims:
            raise _NoCommonRootError
        return s.VARIABLE

    def read(self, part: Part) -> s.Scalar:
        node, dims = part.node, part.dims
        inside = lambda p: n.within(p, dims)
        if isinstance(node, n.Value):
            return self.value(part)
        if n.is_gaussian(node):
            assert isinstance(node, n.Field)
            if self.peel and isinstance(node, n.Scale):
                return _times(self.read(inside(node.factor)), self.read(inside(node.operand)))
            known, rest = centred(self.b, node)
            core = inside(rest)
            again = self.peel and core.node is not node and isinstance(core.node, n.Scale)
            expression = self.read(core) if again else self.be_root(core)
            for k in known:
                expression = _plus(expression, self.value(inside(k)))
            return expression
        match node:
            case n.Apply():
                inner = self.read(inside(node.root))
                numbers = [self.value(inside(v)) for v in node.values]
                return _compose(node.expression, inner, numbers)
            case n.Sum(terms=terms):
                expression = self.read(inside(terms[0]))
                for t in terms[1:]:
                    expression = _plus(expression, self.read(inside(t)))
                return expression
            case n.Scale(factor=factor, operand=operand):
                return _times(self.read(inside(factor)), self.read(inside(operand)))
            case n.Product(factors=factors):
                expression = self.read(inside(factors[0]))
                for f in factors[1:]:
                    expression = _times(expression, self.read(inside(f)))
                return expression
        raise _NoCommonRootError


def _plus(a: s.Scalar, b: s.Scalar) -> s.Scalar:
    return s.Operation("add", operator.add, (a, b))


def _times(a: s.Scalar, b: s.Scalar) -> s.Scalar:
    return s.Operation("mul", operator.mul, (a, b))


def _compose(outer: s.Scalar, inner: s.Scalar, values: list[s.Scalar]) -> s.Scalar:
    memo: dict[int, s.Scalar] = {}

    def visit(node: s.Scalar) -> s.Scalar:
        if id(node) not in memo:
            match node:
                case s.Variable():
                    new: s.Scalar = inner
                case s.Parameter(number):
                    new = values[number]
                case s.Operation(name, function, arguments):
                    new = s.Operation(name, function, tuple(visit(a) for a in arguments))
                case _:
                    new = node
            memo[id(node)] = new
        return memo[id(node)]

    if isinstance(inner, s.Variable) and all(
        isinstance(v, s.Parameter) and v.number == i for i, v in enumerate(values)
    ):
        return outer
    return visit(outer)


def read_together(b: Builder, parts: tuple[Part, ...]) -> tuple[list[s.Scalar], Function] | None:
    """Read parts of one node as functions of one common root, if there is one.

    First every Gaussian field counts as it stands; where that gives several roots, known factors
    are peeled off, so that ``tanh(2 g)`` and ``g`` share the root ``g``.
    """
    for peel in (False, True):
        reader = _Reader(b, peel=peel)
        try:
            expressions = [reader.read(p) for p in parts]
        except _NoCommonRootError:
            continue
        return expressions, Function(s.VARIABLE, reader.root, tuple(reader.values))
    return None


def is_nonnegative(expression: s.Scalar, n_values: int) -> bool:
    """Whether the function is nowhere negative, judged on a grid; False when in doubt."""
    if n_values:
        return _is_square(expression)
    grid = np.linspace(-12.0, 12.0, 481)
    try:
        out = np.asarray(s.evaluate(expression, grid))
    except (TypeError, ValueError):
        return False
    return bool(np.all(out >= 0) and np.any(out > 0))


def _is_square(expression: s.Scalar) -> bool:
    match expression:
        case s.Operation("mul", _, (a, b)):
            return a is b
        case s.Operation("square" | "abs" | "exp" | "even_power"):
            return True
    return False
