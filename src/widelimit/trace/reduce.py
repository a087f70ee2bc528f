"""Reductions: sums over width become known values, sums over positions stay linear."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from widelimit.graph import channels as chan
from widelimit.graph import nodes as n
from widelimit.graph.build import Builder
from widelimit.trace.arrays import Array, Atom, Channel, Position, Repeat
from widelimit.trace.averages import SMALLEST, Average
from widelimit.trace.dependence import refuse_copies
from widelimit.trace.leaves import NARROW_MEAN, narrow
from widelimit.trace.pointwise import elementwise, nonnegative


def reduce_sum(b: Builder, a: Array, axes: tuple[int, ...]) -> Array:
    """``lax.reduce_sum``.

    A sum over a wide axis is its expectation times the width, with a record of its
    size. A sum over positions is a linear map.
    """
    gone = [x for k in axes for x in a.axes[k]]
    wide = [x for x in gone if isinstance(x, Channel) or (isinstance(x, Position) and x.wide)]
    if not a.known and wide:
        return _over_width(b, a, axes)
    kept_axes = tuple(ax for k, ax in enumerate(a.axes) if k not in axes)
    repeats = math.prod(x.size for x in gone if isinstance(x, Repeat))
    positions = tuple(x.axis for x in gone if isinstance(x, Position))
    if a.average is not None and gone:
        count = math.prod(a.size(x) for x in gone)
        a = replace(a, average=replace(a.average, size=a.average.size + math.log(count)))
    result = Array(a.node, kept_axes, a.average)
    if positions:
        result = _over_positions(b, a, kept_axes, positions)
    if repeats != 1:
        factor = Array(b.constant(np.asarray(float(repeats), _dtype(a))), ())
        average = result.average
        plain = replace(result, average=None)
        result = elementwise(b, "mul", lambda x, y: x * y, [factor, plain], _dtype(a))
        result = replace(result, average=average)
    return result


def _dtype(a: Array) -> Any:
    return a.value.dtype if a.known else np.float64


def _over_positions(
    b: Builder, a: Array, kept_axes: tuple[tuple[Atom, ...], ...], positions: tuple[int, ...]
) -> Array:
    left = [k for k in range(len(a.node.shape)) if k not in positions]
    rename = {k: i for i, k in enumerate(left)}
    axes = tuple(
        tuple(replace(x, axis=rename[x.axis]) if isinstance(x, Position) else x for x in ax)
        for ax in kept_axes
    )
    if a.known:
        shape = tuple(a.node.shape[k] for k in left)
        total = lambda t: jnp.sum(t, positions)
        node: n.Node = b.compute("reduce_sum", total, (a.value,), shape, a.value.dtype)
        if isinstance(a.node, n.Constant):
            node = b.constant(np.sum(a.node.array, axis=positions))
    else:
        node = b.map(a.field, positions, (), jnp.sum, name="reduce_sum")
    return Array(node, axes, a.average)


def _over_width(b: Builder, a: Array, axes: tuple[int, ...]) -> Array:
    gone = [x for k in axes for x in a.axes[k]]
    channels = [a.size(x) for x in gone if isinstance(x, Channel)]
    wide = [a.size(x) for x in gone if isinstance(x, Position) and x.wide]
    refuse_copies(b, a.field, {x.axis for x in gone if isinstance(x, Channel)})
    width = math.prod(channels) * math.prod(wide)
    narrow(b, width, NARROW_MEAN)
    mean = b.expectation(a.field, np.dtype(np.float64))
    # Copies along the wide axes that remain share the value that all tend to.
    as_value = tuple(
        tuple(Repeat(a.size(x)) if isinstance(x, Channel) else x for x in ax) for ax in a.axes
    )
    value = Array(mean, as_value)
    total = reduce_sum(b, value, axes)
    positions = math.prod(a.size(x) for x in gone if isinstance(x, Position) and not x.wide)
    size = max(b.sizes.of(a.node).kept, -SMALLEST) + math.log(positions)
    vanishing = n.zero_mean(a.node)
    positive = nonnegative(a.node)
    # The mean of anything else may be zero, as that of an odd function is.
    summands = () if positive else (a.node,)
    record = Average(
        width, 1.0, positive, vanishing, size, cancels=not positive, summands=summands
    )
    if vanishing:
        # Of a sum that may stay random, small constants inside count as those outside do.
        inside = max(min(b.sizes.factor(a.node), 0.0), -SMALLEST)
        exponent = 1.0 + inside / math.log(max(width, 2))
        record = replace(record, exponent=exponent, size=size - inside)
    if vanishing and all(isinstance(x, Channel) for x in gone):
        record = replace(record, overlap=_overlap(b, a, axes))
    return replace(total, average=record)


def _overlap(b: Builder, a: Array, axes: tuple[int, ...]) -> Array:
    """The sum over width as a random field."""
    kept = [x for k, ax in enumerate(a.axes) if k not in axes for x in ax]
    gone = [x for k in axes for x in a.axes[k]]
    order = [x.axis for x in (*kept, *gone) if isinstance(x, Channel)]
    field = b.overlap(chan.permute(b, a.field, tuple(order)), len(gone))
    seen = lambda x: Channel(order.index(x.axis)) if isinstance(x, Channel) else x
    left = tuple(tuple(seen(x) for x in ax) for k, ax in enumerate(a.axes) if k not in axes)
    return Array(field, left)
