"""Orthogonal matrices made from a QR factorisation.

For a Gaussian matrix, Q sign(diag(R)) is uniform over the matrices with orthonormal columns, and
independent of R (Mezzadri 2007, "How to generate random matrices from the classical compact
groups"). Every column is a uniform unit vector, so that the entries have variance 1/rows.
"""

from __future__ import annotations

import math
from typing import Any

from widelimit.priors._laws import Law, Moments
from widelimit.priors._moves import MOVES
from widelimit.priors._values import Known, Opaque, Random, Source, Value


def factors(name: str, eqn: Any, values: list[Value]) -> list[Value] | None:
    operands = values[1:] if name == "cond" else values
    tags = {v.factor for v in operands if isinstance(v, Opaque)}
    if len(tags) != 1 or not all(isinstance(v, Known | Opaque) for v in operands):
        return None
    (tag,) = tags
    if not tag or tag[0] == "q":
        return None
    if tag[0] == "r":
        tag = ("sign", tag[1]) if name == "sign" else tag
    elif name not in MOVES and name != "convert_element_type":
        return None
    return [Opaque("the triangular factor of a QR factorisation", tag)] * len(eqn.outvars)


def orthonormal(values: list[Value], eqn: Any) -> Random | None:
    if not all(isinstance(v, Opaque) for v in values):
        return None
    tags = {v.factor[0]: v.factor for v in values if v.factor}
    if set(tags) != {"q", "sign"} or tags["q"][1] != tags["sign"][1]:
        return None
    _, _, rows, source = tags["q"]
    law = Law(Moments(0.0, 1 / math.sqrt(rows), "orthogonal"), None)
    return Random(Source(source.draws, None), law, tuple(eqn.outvars[0].aval.shape))
