"""How long a program will take, from its jaxpr.

The compiler's own count takes the body of a loop once, however often it runs; recurrent networks
and the loop over kernel columns would look cheaper than they are. Here steps are multiplied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from widelimit.tangent._order import BATCH, MATMUL

FREE = {
    "reshape", "squeeze", "expand_dims", "broadcast_in_dim", "iota", "convert_element_type", "copy",
    "stop_gradient", "slice", "eq", "ge", "gt", "le", "lt", "select_n", "optimization_barrier",
}
"""Primitives that are usually fused with what uses them."""

SLOW = {"exp", "tanh", "logistic", "erf", "sin", "cos", "log", "log1p", "pow", "erf_inv"}

STEP = 2000.0
"""What one step of a loop costs, in entries read or written."""


@dataclass(frozen=True)
class Cost:
    """Time in units of one entry of an array read or written, and floating-point operations."""

    time: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.time + other.time, self.flops + other.flops)

    def __mul__(self, count: float) -> Cost:
        return Cost(self.time * count, self.flops * count)


def cost(jaxpr: Any) -> Cost:
    """The cost of a program."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    total = Cost()
    for eqn in jaxpr.eqns:
        total += _equation(eqn)
    return total


def _equation(eqn: Any) -> Cost:
    name, p = eqn.primitive.name, eqn.params
    if name == "scan":
        return (cost(p["jaxpr"]) + Cost(STEP)) * p["length"]
    if name == "while":
        return cost(p["body_jaxpr"]) + cost(p["cond_jaxpr"])
    if name == "cond":
        return max((cost(b) for b in p["branches"]), key=lambda c: c.time)
    for inside in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if inside in p and hasattr(p[inside], "eqns"):
            return cost(p[inside])
    out = sum(_entries(v) for v in eqn.outvars)
    if name in FREE:
        return Cost()
    into = sum(_entries(v) for v in eqn.invars)
    if name == "dot_general":
        return _dot(eqn, out, into)
    if name == "conv_general_dilated":
        rhs = eqn.invars[1].aval.shape
        work = 2.0 * out * math.prod(rhs) / max(rhs[p["dimension_numbers"].rhs_spec[0]], 1)
        groups = p["feature_group_count"] * p["batch_group_count"]
        rate = MATMUL / 2 if groups == 1 else 1.0
        return Cost(work / 2 / rate + out + into, work)
    return Cost((8.0 if name in SLOW else 1.0) * max(out, into / 2), float(max(out, into)))


def _dot(eqn: Any, out: float, into: float) -> Cost:
    (lc, _), (lb, _) = eqn.params["dimension_numbers"]
    left, right = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape
    depth = math.prod(left[k] for k in lc)
    batch = math.prod(left[k] for k in lb)
    rows = math.prod(left) / max(depth * batch, 1)
    columns = math.prod(right) / max(depth * batch, 1)
    work = float(batch * rows * columns * depth)
    rate = MATMUL * min(1.0, min(rows, columns) / 8) * min(1.0, depth / 8)
    time = work / max(rate, 1.0) + out + into
    if batch > 1:
        time += min(batch * BATCH, work)
    return Cost(time, 2 * work)


def _entries(v: Any) -> float:
    return float(math.prod(getattr(v.aval, "shape", ())))
