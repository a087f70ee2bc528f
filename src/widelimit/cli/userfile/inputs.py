"""Inputs to compare kernels at: Gaussian ones of a shape, or those in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from widelimit.cli.exits import Failure
from widelimit.cli.userfile.load import Found

_SIZES = ("in_size", "in_features")


def inputs(given: str | None, found: Found, examples: int, seed: int) -> Any:
    """A batch of inputs, shape (n, ...).

    Parameters
    ----------
    given
        The shape of one example, as in ``8x8x3``; or the name of a ``.npy`` file; or None, for
        what the network says of its input.
    examples, seed
        How many inputs are drawn, and the seed.

    Raises
    ------
    Failure
        With exit code 2.
    """
    if given is not None and given.endswith(".npy"):
        return _read(Path(given))
    shape = _shape(given) if given is not None else _expected(found.model)
    if shape is None:
        msg = (
            f"The input of {found.name} is not known; give the shape of one example, such as "
            "--x 4 or --x 8x8x3, or a file, --x inputs.npy."
        )
        raise Failure(msg, 2)
    return jax.random.normal(jax.random.fold_in(jax.random.key(seed), 1), (examples, *shape))


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Numbers between commas.

    Raises
    ------
    Failure
        With exit code 2.
    """
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as error:
        msg = f"{option} takes numbers with commas between them, not {text!r}."
        raise Failure(msg, 2) from error


def _shape(text: str) -> tuple[int, ...]:
    words = text.strip("() ").replace("×", "x").replace(",", "x").split("x")
    sizes = [word.strip() for word in words if word.strip()]
    if not sizes or not all(s.isdecimal() and int(s) > 0 for s in sizes):
        msg = (
            f"--x {text!r} is neither the shape of an example, such as 4 or 8x8x3, nor a file "
            "that ends in .npy."
        )
        raise Failure(msg, 2)
    return tuple(int(s) for s in sizes)


def _expected(model: Any) -> tuple[int, ...] | None:
    """The shape of one example that a module, or its first layer, names."""
    for _ in range(4):
        for field in _SIZES:
            size = getattr(model, field, None)
            if isinstance(size, int) and size > 0:
                return (size,)
            if size == "scalar":
                return ()
        layers = getattr(model, "layers", None)
        if not isinstance(layers, Sequence) or not layers:
            return None
        model = layers[0]
    return None


def _read(path: Path) -> np.ndarray:
    try:
        x = np.load(path, allow_pickle=False)
    except OSError as error:
        msg = f"Cannot read the inputs {path}: {error.strerror or error}."
        raise Failure(msg, 2) from error
    except (ValueError, EOFError) as error:
        msg = f"{path} is not a file of numbers that numpy.save wrote."
        raise Failure(msg, 2) from error
    if not isinstance(x, np.ndarray) or x.ndim < 1 or not len(x):
        msg = f"{path} should hold a batch of inputs, shape (n, ...)."
        raise Failure(msg, 2)
    if not np.issubdtype(x.dtype, np.number) or not np.all(np.isfinite(x)):
        msg = f"{path} should hold numbers, all of them finite."
        raise Failure(msg, 2)
    return x
