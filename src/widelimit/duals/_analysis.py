"""Where a scalar function stops being analytic, and where a polynomial resolves it.

The function is bisected until sixteen Chebyshev points resolve every piece. Pieces that shrink to
nothing sit on a kink or jump, of whatever derivative order; away from those, the piece boundaries
are the panels a quadrature needs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

from ._probe import probe

REACH = 72.0
_ORDER = 16
_NARROW = 2e-3
_MOST_PIECES = 6000
_MOST_KINKS = 16


@dataclass(frozen=True)
class Analysis:
    """Kinks and panels of a scalar function on [-REACH, REACH].

    ``kinks`` are points of non-analyticity, ``panels`` points that include the kinks and between
    which the function is a polynomial to rounding, ``continuous`` says whether the function has
    no jump and its autodiff derivative integrates back to it, and ``resolved`` whether the
    analysis found an end.
    """

    kinks: tuple
    panels: tuple
    continuous: bool
    resolved: bool


_NODES = np.cos(np.pi * (np.arange(_ORDER) + 0.5) / _ORDER)
_INTERPOLATE = np.linalg.inv(chebyshev.chebvander(_NODES, _ORDER - 1))
_TEST = np.concatenate([np.cos(np.pi * np.arange(1, 8) / 8.03 + 0.01), [-0.9999, 0.9999]])
_TEST_BASIS = chebyshev.chebvander(_TEST, _ORDER - 1)


def _errors(fn, left, right):
    """Interpolation error of each piece, and the size of the function on it."""
    middle, half = (left + right) / 2, (right - left) / 2
    points = middle[:, None] + half[:, None] * np.concatenate([_NODES, _TEST])
    values = probe(fn, points)
    nodes, tests = values[:, :_ORDER], values[:, _ORDER:]
    guess = nodes @ _INTERPOLATE.T @ _TEST_BASIS.T
    with np.errstate(all="ignore"):
        error = np.max(np.abs(guess - tests), axis=1)
    return np.where(np.isfinite(error), error, np.inf), np.max(np.abs(values), axis=1)


def _bisect(fn, edges, tolerance, narrowest):
    """Split the pieces between edges until resolved; return pieces and whether each is."""
    left, right = np.asarray(edges[:-1]), np.asarray(edges[1:])
    done_left, done_right, done_ok = [], [], []
    total, scale = 0, None
    while left.size:
        error, size = _errors(fn, left, right)
        if scale is None:
            near = (right > -4) & (left < 4)
            scale = np.max(size[near], initial=1e-30)
        ok = error <= tolerance * np.maximum(scale, size)
        stop = ok | (right - left <= narrowest * np.maximum(1, np.abs(left)))
        done_left.append(left[stop])
        done_right.append(right[stop])
        done_ok.append(ok[stop])
        total += stop.sum()
        left, right = left[~stop], right[~stop]
        middle = (left + right) / 2
        left, right = np.concatenate([left, middle]), np.concatenate([middle, right])
        if total + left.size > _MOST_PIECES:
            return None
    left, right = np.concatenate(done_left), np.concatenate(done_right)
    order = np.argsort(left)
    return left[order], right[order], np.concatenate(done_ok)[order]


def _locate(left, right):
    """One point per run of narrow pieces: the middle of its narrowest, or the nearby decimal."""
    narrow = right - left < _NARROW
    kinks, i = [], 0
    while i < len(left):
        if not narrow[i]:
            i += 1
            continue
        j = i
        while j + 1 < len(left) and (narrow[j + 1] or right[j + 1] - left[i] < 2 * _NARROW):
            j += 1
        widths = right[i : j + 1] - left[i : j + 1]
        k = i + int(np.argmin(widths))
        least = np.flatnonzero(widths <= widths.min() * 1.5) + i
        low, high = left[least[0]], right[least[-1]]
        point = (left[k] + right[k]) / 2 if high - low > 20 * widths.min() else (low + high) / 2
        width = max(high - low, 1e-12)
        for digits in range(9):
            if abs(point - round(point, digits)) <= 4 * width:
                point = round(point, digits) + 0.0
                break
        kinks.append(float(point))
        i = j + 1
    return kinks


def _start(points=()):
    # Edges that no ordinary kink coincides with, so that a kink always lies inside a piece.
    ladder = np.array([0.0143, 0.3187, 0.7291, 1.2713, 2.1371, 3.4127, 5.3713, 8.713, 14.37])
    ladder = np.concatenate([ladder, [24.13, 41.71, REACH]])
    # Close enough near zero that a narrow feature falls on some test point.
    close = np.arange(-9.0, 9.0, 0.0913) + 0.00317
    base = np.concatenate([-ladder[::-1] * 1.0007, ladder, close])
    return np.unique(np.clip(np.concatenate([base, points]), -REACH, REACH))


def _merge(fn, edges, kinks, tolerance):
    """Join neighbouring panels, never across a kink, while one polynomial still resolves them."""
    edges = list(edges)
    changed = True
    while changed:
        changed = False
        triples = [i for i in range(1, len(edges) - 1) if edges[i] not in kinks]
        if not triples:
            break
        left = np.array([edges[i - 1] for i in triples])
        right = np.array([edges[i + 1] for i in triples])
        error, size = _errors(fn, left, right)
        good = {i for i, e, s in zip(triples, error, size) if e <= tolerance * max(s, 1e-30)}
        kept, skip = [edges[0]], False
        for i in range(1, len(edges) - 1):
            if i in good and not skip:
                skip = changed = True
                continue
            kept.append(edges[i])
            skip = False
        edges = [*kept, edges[-1]]
    return edges


def analyse(fn, derivative):
    """Return the :class:`Analysis` of ``fn`` with autodiff derivative ``derivative``."""
    pieces = _bisect(fn, _start(), 1e-12, 3e-13)
    if pieces is None:
        return Analysis((), tuple(_start()), False, False)
    kinks = _locate(pieces[0], pieces[1])
    if len(kinks) > _MOST_KINKS:
        return Analysis((), tuple(_start()), False, False)
    edges = np.unique(np.concatenate([_start(), kinks]))
    pieces = _bisect(fn, edges, 3e-11, 1e-4)
    if pieces is None:
        return Analysis(tuple(kinks), tuple(edges), False, False)
    edges = np.append(pieces[0], pieces[1][-1])
    # Crumbs beside a kink are the kink's own uncertainty.
    keep = [e for e in edges if e in kinks or all(abs(e - k) > 2e-3 for k in kinks)]
    edges = _merge(fn, keep, set(kinks), 3e-11)
    continuous = _is_integral(fn, derivative, edges)
    return Analysis(tuple(kinks), tuple(map(float, edges)), continuous, True)


def _is_integral(fn, derivative, edges):
    """Whether fn(b) - fn(a) equals the integral of the autodiff derivative on every panel."""
    edges = np.unique(np.clip(edges, -30.0, 30.0))
    x, w = np.polynomial.legendre.leggauss(24)
    left, right = edges[:-1, None], edges[1:, None]
    integral = (probe(derivative, (left + right) / 2 + (right - left) / 2 * x) @ w) * (
        (right - left)[:, 0] / 2
    )
    ends = probe(fn, np.stack([edges - 1e-9, edges + 1e-9]))
    size = np.max(np.abs(ends))
    inside = np.abs(ends[0, 1:] - ends[1, :-1] - integral)
    jumps = np.abs(ends[1] - ends[0])
    tolerance = 1e-6 * (size + np.max(np.abs(integral)) + 1e-12)
    return bool(np.all(inside < tolerance) and np.all(jumps < tolerance))
