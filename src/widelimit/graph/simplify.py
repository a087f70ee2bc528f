"""What is known before any input is seen: means that vanish, and everything computed from them.

A layer normalisation of a Gaussian field subtracts a mean that is zero in the limit. Without that
zero its nonlinearity is a function of one variable, which may have a closed form; with it, of
two. The graph as read keeps such terms, as their fluctuations are followed through it; the graph
that is evaluated does without.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from widelimit.graph import nodes as n
from widelimit.graph.entangled import below
from widelimit.graph.nodes import Part
from widelimit.graph.scalar import Literal, Parameter, Scalar, bind
from widelimit.graph.walk import children, reachable


def simplified(outputs: list[n.Node]) -> list[n.Node]:
    """The same outputs over nodes without vanishing means, and with constants evaluated."""
    return _Simplifier().all(outputs)


class _Simplifier:
    def __init__(self) -> None:
        self.new: dict[int, Any] = {}
        self.bound: dict[tuple, Scalar] = {}
        self.means: set[int] = set()  # ids of values made of means over width

    def all(self, outputs: list[n.Node]) -> list[n.Node]:
        for node in reachable(outputs):
            same = all(self.new[id(c)] is c for c in children(node))
            new = self.one(node if same else self.over_new(node))
            if isinstance(node, n.Value) and self.is_mean(node):
                self.means.add(id(node))
            if isinstance(node, n.Apply) and any(id(v.node) in self.means for v in node.values):
                new = replace(new, fluctuates=True)  # type: ignore[type-var]
            if isinstance(node, n.Mixed) and any(id(v) in self.means for v in below([node])[1]):
                new = replace(new, fluctuates=True)  # type: ignore[type-var]
            self.new[id(node)] = new
        return [self.new[id(o)] for o in outputs]

    def is_mean(self, node: n.Value) -> bool:
        """Whether a mean over width is in a value."""
        return isinstance(node, n.Expectation) or any(
            id(c) in self.means for c in children(node) if isinstance(c, n.Value)
        )

    def part(self, part: Part) -> Part:
        return Part(self.new[id(part.node)], part.dims)

    def over_new(self, node: n.Node) -> n.Node:
        """The node with what it is made of replaced."""
        new, part = (lambda x: self.new[id(x)]), self.part
        match node:
            case n.Compute(arguments=arguments):
                return replace(node, arguments=tuple(new(a) for a in arguments))
            case n.Map(operand=operand, values=values):
                return replace(node, operand=new(operand), values=tuple(new(v) for v in values))
            case n.Expectation() | n.Source() | n.Overlap() | n.Spread() | n.Copied():
                return replace(node, operand=new(node.operand))
            case n.OneHot(index=index):
                return replace(node, index=new(index))
            case n.Tangent(factor=factor):
                return replace(node, factor=part(factor))
            case n.Sum(terms=terms):
                return replace(node, terms=tuple(part(t) for t in terms))
            case n.Scale(factor=factor, operand=operand):
                return replace(node, factor=part(factor), operand=part(operand))
            case n.Together(operands=operands):
                return replace(node, operands=tuple(new(x) for x in operands))
            case n.Join(pieces=pieces):
                return replace(node, pieces=tuple(new(q) for q in pieces))
            case n.Apply(root=root, values=values):
                return replace(node, root=part(root), values=tuple(part(v) for v in values))
            case n.Mixed(operands=operands):
                return replace(node, operands=tuple(part(x) for x in operands))
            case n.Product(factors=factors):
                return replace(node, factors=tuple(part(f) for f in factors))
        msg = f"{type(node).__name__} has nothing to replace"
        raise TypeError(msg)

    def one(self, node: n.Node) -> n.Node:
        """The node in its simplest form."""
        match node:
            case n.Expectation(operand=operand) if n.zero_mean(operand):
                return _zeros(node)
            case n.Compute():
                return _computed(node)
            case n.Sum(terms=terms):
                return _sum(node, tuple(t for t in terms if not is_zero(t.node)))
            case n.Apply(values=values) if any(_uniform(v.node) for v in values):
                return self.with_numbers(node)
        return node

    def with_numbers(self, node: n.Apply) -> n.Apply:
        """Constants that are one number become part of the function."""
        numbers = [
            v.node.array.flat[0] if isinstance(v.node, n.Constant) and _uniform(v.node) else None
            for v in node.values
        ]
        key = (id(node.expression), *(None if x is None else (str(x.dtype), x) for x in numbers))
        kept = tuple(v for v, x in zip(node.values, numbers, strict=True) if x is None)
        if key not in self.bound:
            left = iter(range(len(kept)))
            arguments = [Parameter(next(left)) if x is None else Literal(x) for x in numbers]
            self.bound[key] = bind(node.expression, arguments)
        return replace(node, expression=self.bound[key], values=kept)


def is_zero(node: n.Node) -> bool:
    """Whether a node is the constant zero."""
    return isinstance(node, n.Constant) and not np.any(node.array)


def _uniform(node: n.Node) -> bool:
    if not isinstance(node, n.Constant) or node.array.size == 0:
        return False
    return bool(np.all(node.array == node.array.flat[0]))


def _zeros(node: n.Value) -> n.Constant:
    return n.Constant(node.shape, node.dtype, np.zeros(node.shape, node.dtype))


def _sum(node: n.Sum, terms: tuple[Part, ...]) -> n.Field:
    if len(terms) == len(node.terms):
        return node
    if len(terms) == 1 and terms[0].dims == tuple(range(len(node.shape))):
        (only,) = terms
        if isinstance(only.node, n.Field) and only.node.shape == node.shape:
            return only.node
    return replace(node, terms=terms or node.terms[:1])


def _computed(node: n.Compute) -> n.Value:
    """Zero times anything, zero over anything, and functions of constants."""
    zero = [is_zero(a) for a in node.arguments]
    if (node.name == "mul" and any(zero)) or (node.name == "div" and zero[0]):
        return _zeros(node)
    constants = [a.array for a in node.arguments if isinstance(a, n.Constant)]
    if len(constants) < len(node.arguments):
        return node
    with jax.ensure_compile_time_eval():
        array = np.asarray(node.function(*constants))
    return n.Constant(node.shape, array.dtype, array.reshape(node.shape))
