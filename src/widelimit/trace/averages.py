"""Sums over width: how large they are, and when the law of large numbers may be used.

A sum of n channels is its expectation times n, up to a fluctuation of order sqrt(n). Divided by n
the fluctuation vanishes; multiplied by sqrt(n) again it does not. Every known value that came from
such a sum carries a record, so that a factor of the width cannot bring back what was dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from widelimit.errors import AmbiguousScaleError, Where
from widelimit.graph import nodes as n
from widelimit.graph.build import Builder
from widelimit.graph.sizes import NOTHING, Doubt, Size

SETTLED = 0.3
"""A value that grows slower than width to this power is taken to have converged."""

SMALLEST = 50.0
"""Logarithms of sizes are cut off here: a product with zero has none."""

LINEAR = {"neg", "copy", "copy_p", "convert_element_type", "stop_gradient", "reduce_precision",
          "abs", "real"}
POWERS = {"sqrt": 0.5, "rsqrt": -0.5, "cbrt": 1 / 3, "square": 2.0}
ODD = {"tanh", "sin", "sinh", "tan", "asin", "atan", "asinh", "atanh", "erf", "expm1", "log1p"}
JUMPS = {"sign", "gt", "ge", "lt", "le", "eq", "ne", "floor", "ceil", "round", "log", "not", "rem"}


@dataclass(frozen=True)
class Average:
    """The record of a value that came from a sum over width.

    Attributes
    ----------
    width
        The number of channels summed.
    exponent
        The value grows as width to this power: 1 for a plain sum, 0 for a mean.
    relative
        The fluctuation vanishes relative to the value, whatever its size: the summand is nowhere
        negative.
    vanishing
        The value is zero in the limit, and at finite width nothing but fluctuation.
    size
        The logarithm of the value's size, apart from its growth with the width.
    cancels
        The value may be zero in the limit: it is a difference of such values, or what was summed
        takes both signs.
    spread
        The logarithm of what powers have made of the relative fluctuation.
    overlap
        The sum as a random field, as the program shows it: what the value is at 1/sqrt(width).
    summands
        What was summed, where the value is zero only if the mean of one of these is.
    """

    width: int
    exponent: float
    relative: bool
    vanishing: bool
    size: float = 0.0
    cancels: bool = False
    spread: float = 0.0
    overlap: Any = None
    summands: tuple[n.Node, ...] = ()

    @property
    def random(self) -> bool:
        """Whether the sum stays random in the limit, by the central limit theorem."""
        return self.overlap is not None and SETTLED < self.exponent < 1 - SETTLED

    @property
    def settled(self) -> bool:
        """Whether the value itself, not only its relative size, has converged.

        A mean over width and over positions is divided by both their numbers: what the exponent
        shows too much of is then in the size.
        """
        offset = max(self.size, -SMALLEST) / math.log(max(self.width, 2))
        return self.exponent + (0.0 if self.vanishing else min(offset, 0.0)) <= SETTLED

    @property
    def steady(self) -> bool:
        """Whether it has converged although what was summed may itself grow with the width."""
        growth = max(self.size, 0.0) / math.log(max(self.width, 2))
        return self.settled and (not self.vanishing or self.exponent + growth <= SETTLED)

    def times(self, factor: float) -> Average | None:
        """After multiplication with a constant."""
        if factor == 0 or not math.isfinite(factor):
            return None
        change = math.log(abs(factor)) / math.log(max(self.width, 2))
        return replace(self, exponent=self.exponent + change)


@dataclass(frozen=True)
class Seen:
    """One operand: its record, and its size if it is a constant of the program."""

    average: Average | None
    constant: float | None
    nonnegative: bool


def refuse(what: str, average: Average, where: Where | None) -> AmbiguousScaleError:
    """The error for a sum over width whose fluctuation matters."""
    if average.vanishing and average.settled:
        return AmbiguousScaleError(
            f"`{what}` of a mean over {average.width} channels that vanishes in the limit",
            why="at finite width the value is nothing but fluctuation, and this operation does "
            "not let it vanish.",
            remedy="leave the term out, or average something whose mean is not zero.",
            where=where,
        )
    return AmbiguousScaleError(
        f"`{what}` of a sum over {average.width} channels that grows as "
        f"width^{average.exponent:.2g}",
        why="only a sum divided by the width is deterministic in the limit (law of large "
        "numbers); with 1/sqrt(width) it stays random, and without a factor it diverges.",
        remedy="divide the sum by the width (for attention logits: 1/d), or contract with a "
        "parameter of its own.",
        where=where,
    )


def after(name: str, operands: list[Seen], where: Where | None) -> Average | None:
    """The record of an elementwise result, or an error where the limit would be wrong."""
    records = [o.average for o in operands if o.average is not None]
    result = _after(name, operands, records, where) if records else None
    if result is None:
        return None
    return replace(result, spread=max(result.spread, *(r.spread for r in records)))


def _after(
    name: str, operands: list[Seen], records: list[Average], where: Where | None
) -> Average | None:
    first = records[0]
    worst = max(records, key=lambda r: r.exponent)
    settled = all(r.steady for r in records)
    if name in LINEAR:
        return first
    if name == "mul":
        return _product(operands)
    if name == "div":
        return _quotient(operands, where)
    if name in ("add", "sub", "add_any", "max", "min", "clamp", "select_n"):
        grows = name in ("add", "add_any", "max")
        relative = grows and all(
            o.average.relative if o.average is not None else o.nonnegative for o in operands
        )
        if name not in ("add", "sub", "add_any") and not settled and not relative:
            raise refuse(name, worst, where)
        vanishing = len(records) == len(operands) and all(r.vanishing for r in records)
        size = max(r.size for r in records)
        differs = name in ("add", "sub", "add_any") and not relative
        gone = differs or any(r.cancels or r.vanishing for r in records)
        return Average(worst.width, worst.exponent, relative, vanishing, size, gone)
    if name in ("pow", "integer_pow") or name in POWERS:
        return _power(name, operands, where)
    if not settled or (name in JUMPS and any(r.vanishing for r in records)):
        raise refuse(name, worst, where)
    return Average(
        worst.width, max(worst.exponent, 0.0) if worst.exponent > 0 else 0.0,
        name in ("exp", "logistic", "exp2"), name in ODD and first.vanishing,
        cancels=name in ODD and first.cancels,
    )


def _product(operands: list[Seen]) -> Average | None:
    left, right = operands
    if left.average is None:
        left, right = right, left
    assert left.average is not None
    if right.average is not None:
        return Average(
            max(left.average.width, right.average.width),
            left.average.exponent + right.average.exponent,
            left.average.relative and right.average.relative,
            left.average.vanishing or right.average.vanishing,
            left.average.size + right.average.size,
            left.average.cancels or right.average.cancels,
            summands=_both(left.average, right.average),
        )
    return left.average if right.constant is None else left.average.times(right.constant)


def _both(left: Average, right: Average) -> tuple[n.Node, ...]:
    """The summands of a product, unless one factor may be zero for another reason."""
    known = all(r.summands or not r.cancels for r in (left, right))
    return left.summands + right.summands if known else ()


def _quotient(operands: list[Seen], where: Where | None) -> Average | None:
    top, bottom = operands
    if bottom.average is None:
        assert top.average is not None
        return top.average if not bottom.constant else top.average.times(1 / bottom.constant)
    below = bottom.average
    if below.vanishing or not (below.relative or below.settled):
        raise refuse("div", below, where)
    drop = below.exponent if below.relative else min(below.exponent, 0.0)
    if top.average is None:
        return Average(below.width, -drop, below.relative, False, -below.size)
    return Average(
        max(below.width, top.average.width), top.average.exponent - drop,
        top.average.relative and below.relative, top.average.vanishing,
        top.average.size - below.size, top.average.cancels, summands=top.average.summands,
    )


def _power(name: str, operands: list[Seen], where: Where | None) -> Average:
    record = operands[0].average
    power = POWERS.get(name)
    if power is None:
        power = operands[1].constant if len(operands) > 1 else None
    if record is None or power is None:
        worst = max((o.average for o in operands if o.average), key=lambda r: r.exponent)
        raise refuse(name, worst, where)
    whole = power >= 1 and float(power).is_integer()
    if not whole and (record.vanishing or not (record.relative or record.settled)):
        raise refuse(name, record, where)
    even = whole and power % 2 == 0 and not record.vanishing and record.settled
    return replace(
        record, exponent=record.exponent * power, relative=record.relative or even,
        size=record.size * power, cancels=record.cancels and power > 0,
        spread=record.spread + max(math.log(abs(power)), 0.0) if power else record.spread,
    )


def follow(b: Builder, node: n.Node, average: Average | None) -> None:
    """Remember the size of a value; refuse a field that consists of what was dropped.

    Raises
    ------
    AmbiguousScaleError
        If a factor of the width makes the fluctuation of a mean matter.
    """
    if isinstance(node, n.Value):
        if average is not None:
            log = math.log(max(average.width, 2))
            gone = average.vanishing or average.cancels
            whole = average.exponent * log + max(average.size, -SMALLEST)
            kept, dropped = NOTHING if gone else whole, whole - log / 2 + average.spread
            size = Size(kept, dropped, average.width)
            if average.cancels and average.summands and not average.vanishing:
                b.sizes.doubt(node, size, Doubt(whole, average.summands))
            else:
                b.sizes.note(node, size)
        return
    size = b.sizes.of(node)
    certain = is_scaled_up(size, size.kept)
    if certain and not size.unknown:
        raise scaled_up(size.width, b.where)
    if certain or (size.cancels and is_scaled_up(size, NOTHING)):
        assert isinstance(node, n.Field)
        b.suspects.append((node, b.where))


def is_scaled_up(size: Size, kept: float) -> bool:
    """Whether what was dropped matters beside what is kept, a logarithm."""
    if size.dropped == NOTHING:
        return False
    small = (SETTLED - 0.5) * math.log(max(size.width, 2))
    return size.dropped > small and size.dropped - kept > small


def scaled_up(width: int, where: Where | None) -> AmbiguousScaleError:
    """The error for a field that consists of what was dropped."""
    return AmbiguousScaleError(
        f"the fluctuation of a mean over {width} channels is scaled up",
        why="in the limit the mean is replaced by its expectation; what is left out shrinks "
        "as 1/sqrt(width), but a factor that grows with the width makes it as large as the "
        "rest.",
        remedy="drop the factor, or add the mean to something that is scaled with it.",
        where=where,
    )
