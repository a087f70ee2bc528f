"""Errors that say what broke, where in the user's code, why, and what to do instead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Where:
    """A line of the user's code, and the lines that called it."""

    file: str
    line: int
    function: str = ""
    callers: tuple[Where, ...] = ()

    def __str__(self) -> str:
        inside = f", in {self.function}" if self.function else ""
        return f"{self.file}:{self.line}{inside}"


class WideLimitError(Exception):
    """The infinite-width limit of this network cannot be taken as written.

    Attributes
    ----------
    what
        The primitive or the assumption that failed.
    where
        The line of the user's code that caused it, when it is known.
    why
        The reason, in one or two sentences.
    remedy
        What to do instead.
    """

    def __init__(self, what: str, *, why: str, remedy: str, where: Where | None = None):
        self.what = what
        self.where = where
        self.why = why
        self.remedy = remedy
        place = ""
        if where is not None:
            place = f"\n  at      {where}"
            place += "".join(f"\n  from    {above}" for above in where.callers)
        super().__init__(f"{what}{place}\n  why     {why}\n  instead {remedy}")


class UnsupportedPrimitiveError(WideLimitError):
    """A JAX primitive for which there is no rule."""


class NotGaussianError(WideLimitError):
    """A nonlinearity meets a value that is not a function of Gaussian fields we can integrate."""


class TransposedWeightError(WideLimitError):
    """One parameter is used both as W and as its transpose."""


class OrderStatisticError(WideLimitError):
    """A maximum, minimum, sort or arg-maximum over random values."""


class RandomnessError(WideLimitError):
    """Random numbers are drawn inside the network."""


class BatchStatisticsError(WideLimitError):
    """The network's output for one example depends on the rest of the batch."""


class AmbiguousScaleError(WideLimitError):
    """A sum over width is scaled so that neither the law of large numbers nor a limit applies."""


class SharedAcrossWidthError(WideLimitError):
    """One random number is shared by all channels, so that they are not independent."""


class MisalignedWidthError(WideLimitError):
    """Two different channels of the same random field meet in one expression."""


class ControlFlowError(WideLimitError):
    """The path through the program depends on random values or on the input."""


class UnknownPriorError(WideLimitError):
    """The prior of a parameter cannot be determined."""


class NarrowWidthWarning(UserWarning):
    """A very short axis is treated as infinitely wide."""
