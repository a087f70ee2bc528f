"""Convolution, sums over windows and padding, by NumPy."""

import math

import numpy as np


def _spread(x, config):
    """Insert zeros between entries, then add zeros around them or crop."""
    for axis, (low, high, between) in enumerate(config):
        if between:
            wide = np.zeros(tuple(
                max((n - 1) * (between + 1) + 1, 0) if k == axis else n
                for k, n in enumerate(x.shape)
            ), x.dtype)
            wide[(slice(None),) * axis + (slice(None, None, between + 1),)] = x
            x = wide
        x = np.pad(x, [(max(low, 0), max(high, 0)) if k == axis else (0, 0)
                       for k in range(x.ndim)])
        end = x.shape[axis] + min(high, 0)
        x = x[(slice(None),) * axis + (slice(max(-low, 0), end),)]
    return x


def pad(params, x, value):
    spread = _spread(np.ones_like(x), params["padding_config"]) == 1
    return np.where(spread, _spread(x, params["padding_config"]), value)


def convolve(params, x, w):
    """Sum over the places of the kernel of one product of matrices each."""
    numbers = params["dimension_numbers"]
    x, w = x.transpose(numbers.lhs_spec), w.transpose(numbers.rhs_spec)
    around = zip(params["padding"], params["lhs_dilation"])
    x = _spread(x, [(0, 0, 0)] * 2 + [(*p, d - 1) for p, d in around])
    groups, batches = params["feature_group_count"], params["batch_group_count"]
    if batches > 1:  # each part of the batch meets its own part of the outputs
        groups = batches
        x = x.reshape(batches, -1, *x.shape[1:]).swapaxes(0, 1)
        x = x.reshape(x.shape[0], -1, *x.shape[3:])
    x = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    x = np.moveaxis(x, (1, 2), (0, -1))  # (groups, batch, *positions, channels)
    w = w.reshape(groups, -1, *w.shape[1:])
    steps, spacing = params["window_strides"], params["rhs_dilation"]
    kernel, size = w.shape[3:], x.shape[2:-1]
    counts = [max((n - (k - 1) * d - 1) // s + 1, 0)
              for n, k, d, s in zip(size, kernel, spacing, steps)]
    out = np.zeros((groups, x.shape[1] * math.prod(counts), w.shape[1]), np.result_type(x, w))
    for place in np.ndindex(*kernel):
        window = tuple(slice(k * d, k * d + (c - 1) * s + 1 if c else k * d, s)
                       for k, d, c, s in zip(place, spacing, counts, steps))
        seen = x[(slice(None), slice(None), *window)].reshape(groups, -1, x.shape[-1])
        out += seen @ w[(..., *place)].swapaxes(1, 2)
    out = out.reshape(groups, x.shape[1], *counts, w.shape[1])
    out = np.moveaxis(out, 0, -2).reshape(x.shape[1], *counts, groups * w.shape[1])
    out = np.moveaxis(out, -1, 1)  # batch, features, positions
    return out.transpose(np.argsort(numbers.out_spec))


def window_sum(params, x):
    gaps = params["base_dilation"]
    config = [(*p, d - 1) for p, d in zip(params["padding"], gaps)]
    x = _spread(x, config)
    window, steps, spacing = (params[k] for k in (
        "window_dimensions", "window_strides", "window_dilation"))
    counts = [max((n - (k - 1) * d - 1) // s + 1, 0)
              for n, k, d, s in zip(x.shape, window, spacing, steps)]
    out = np.zeros(counts, x.dtype)
    for place in np.ndindex(*window):
        out += x[tuple(slice(k * d, k * d + (c - 1) * s + 1 if c else k * d, s)
                       for k, d, c, s in zip(place, spacing, counts, steps))]
    return out


def cumsum(params, x):
    axis = params["axis"]
    return np.flip(np.cumsum(np.flip(x, axis), axis), axis) if params["reverse"] else np.cumsum(
        x, axis)
