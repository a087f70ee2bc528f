"""What is known about where an array's values come from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from widelimit.priors import Prior

_EVERYWHERE = (-math.inf, math.inf)


@dataclass(frozen=True)
class Origin:
    """The prior that a layer documents, or why there is none.

    Attributes
    ----------
    prior
        The prior, "fixed" for an array that is known as it is, or None when it is unknown.
    reason
        Why it is unknown.
    support
        An interval that contains every value the prior can take.
    stated
        Whether the layer states its prior rather than documents its initialisation: a stated
        prior is what the user asked for, whatever the current values are.
    """

    prior: Prior | str | None
    reason: str = ""
    support: tuple[float, float] = _EVERYWHERE
    stated: bool = False


def unknown(reason: str) -> Origin:
    """An array of unknown prior."""
    return Origin(None, reason)


def constant(value: float) -> Origin:
    """An array that starts as a constant fill."""
    return Origin(Prior.constant(value), support=(value, value))


def uniform(limit: float) -> Origin:
    """An array drawn uniformly from [-limit, limit]."""
    return Origin(Prior.uniform(-limit, limit), support=(-limit, limit))
