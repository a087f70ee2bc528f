"""Comparing an array with the prior its layer documents."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import special

from widelimit.errors import UnknownPriorError
from widelimit.priors import Prior

# Two-sided probability with which a genuine draw fails one of the tests.
_FALSE_ALARM = 1e-7
_LARGEST = 1 << 22


def require_plausible(name: str, value: Any, prior: Prior, support: tuple[float, float]) -> None:
    """Refuse a documented prior that an array's own values contradict.

    A prior is never estimated from values; they can only refute it. Compares the range with the
    support, and the second moment with the chi-squared distribution. Abstract arrays pass.
    """
    if not hasattr(value, "__array__"):
        return
    entries = np.asarray(value).reshape(-1)
    if not entries.size:
        return
    entries = entries[:: -(-entries.size // _LARGEST)].astype(float)
    tolerance = 8 * float(jnp.finfo(value.dtype).eps)
    reason = _contradiction(entries, prior, support, tolerance)
    if reason is None:
        return
    msg = f"{name} is not a draw from the initialisation its layer documents"
    raise UnknownPriorError(
        msg,
        why=f"{reason}. It was trained, or initialised in another way.",
        remedy="say how it was made: describe(model, prior=prior_of(make)) with make: key -> model,"
        f" or prior={{{name!r}: Prior(mean, std)}}; prior='documented' takes the layers'"
        " documented initialisation whatever the values are",
    )


def _contradiction(
    entries: np.ndarray, prior: Prior, support: tuple[float, float], tolerance: float
) -> str | None:
    mean, std = float(prior.mean), float(prior.std)
    if not np.all(np.isfinite(entries)):
        return "Some entries are not finite"
    if std == 0:
        if np.all(np.abs(entries - mean) <= tolerance * max(abs(mean), 1e-30)):
            return None
        return f"Its entries should all be {mean:g}"
    low, high = support
    slack = tolerance * max(abs(b) for b in support if math.isfinite(b)) if _bounded(support) else 0
    if entries.min() < low - slack or entries.max() > high + slack:
        return (
            f"Its entries reach from {entries.min():.4g} to {entries.max():.4g}, where the "
            f"{prior.distribution} initialisation stays within [{low:.4g}, {high:.4g}]"
        )
    count = entries.size
    chi2 = float(np.sum(((entries - mean) / std) ** 2))
    tails = (special.chdtr(count, chi2), special.chdtrc(count, chi2))
    offset = abs(float(entries.mean()) - mean) * math.sqrt(count) / std
    if min(tails) < _FALSE_ALARM / 2 or special.erfc(offset / math.sqrt(2)) < _FALSE_ALARM:
        return (
            f"Its {count} entries have mean {entries.mean():.4g} and standard deviation "
            f"{entries.std():.4g}, where the {prior.distribution} initialisation has "
            f"{mean:.4g} and {std:.4g}"
        )
    return None


def _bounded(support: tuple[float, float]) -> bool:
    return any(math.isfinite(b) for b in support)
