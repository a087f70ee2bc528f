"""How to train, as asked for and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from widelimit.dynamics._loss import Loss
from widelimit.dynamics._method import Method, decay_rate, read_method

TOWARDS = ("start", "zero")


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes
    ----------
    method
        Flow, descent, or with momentum.
    loss
        None is the squared loss, in closed form.
    decay, to_zero
        Weight decay, and whether it pulls to zero rather than to the start.
    rtol, atol, solver, max_steps
        Of the ODE solver.
    """

    method: Method
    loss: Loss | None
    decay: float
    to_zero: bool
    rtol: float
    atol: float
    solver: Any
    max_steps: int

    @classmethod
    def of(
        cls, *, method: str, learning_rate: Any, momentum: Any, weight_decay: Any,
        decay_towards: str, loss: Any, rtol: float, atol: float, solver: Any, max_steps: int,
    ) -> Plan:  # fmt: skip
        """From what the caller gave.

        Raises
        ------
        ValueError
            If something is not understood.
        """
        if decay_towards not in TOWARDS:
            msg = f"decay_towards is 'start' or 'zero', got {decay_towards!r}"
            raise ValueError(msg)
        if loss is not None and not callable(loss):
            msg = f"loss is a function of (outputs, targets), or None, got {loss!r}"
            raise ValueError(msg)
        chosen = read_method(method, learning_rate, momentum)
        decay = decay_rate(weight_decay)
        return cls(chosen, loss, decay, decay_towards == "zero", rtol, atol, solver, max_steps)
