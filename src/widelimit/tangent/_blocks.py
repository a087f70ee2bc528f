"""A kernel with axes of outputs as one matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def as_square(kernel: Any) -> np.ndarray:
    """A kernel of one batch with itself as one finite matrix of NumPy.

    Raises
    ------
    ValueError
        If the matrix is not square or not finite.
    """
    k = as_matrix(np.asarray(kernel))
    if k.ndim != 2 or k.shape[0] != k.shape[1] or not k.size:
        msg = f"a kernel matrix is square, got shape {np.shape(kernel)}"
        raise ValueError(msg)
    if not np.all(np.isfinite(k)):
        msg = "the kernel contains NaN or infinite values"
        raise ValueError(msg)
    return k


def as_matrix(k: Any) -> Any:
    """From (n1, n2, *out, *out) to (n1 out, n2 out), examples first; (n1, n2) stays."""
    if k.ndim <= 2 or k.ndim % 2:
        return k
    half = (k.ndim - 2) // 2
    left, right = range(2, 2 + half), range(2 + half, k.ndim)
    rows = k.shape[0] * math.prod(k.shape[a] for a in left)
    columns = k.shape[1] * math.prod(k.shape[a] for a in right)
    return k.transpose(0, *left, 1, *right).reshape(rows, columns)
