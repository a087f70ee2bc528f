"""What a traced program is, so that equal ones are recognised."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import jax
import numpy as np

_ADDRESS = re.compile(r" at 0x[0-9a-f]+|\bid=\d+")


def fingerprint(closed: Any) -> tuple:
    """Equal for two closed jaxprs if they do the same: their text, and all constants.

    The text shows no constants. Those of functions within, such as compiled ones, belong to them.
    """
    text = _ADDRESS.sub("", str(closed))
    held = (np.asarray(c) for c in constants(closed))
    return text, *((c.shape, c.dtype.str, sha256(c.tobytes()).digest()) for c in held)


def constants(program: Any) -> Iterator[Any]:
    """The constants of a jaxpr, closed or not, and of all programs within, in order."""
    yield from getattr(program, "consts", ())
    for eqn in getattr(program, "jaxpr", program).eqns:
        for value in eqn.params.values():
            for inner in jax.tree.leaves(value, is_leaf=_is_program):
                if _is_program(inner):
                    yield from constants(inner)


def _is_program(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")
