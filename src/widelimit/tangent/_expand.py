"""A network's expansion around its present parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.models import parts
from widelimit.tangent._vectors import forward


def linearize(f: Any, params: Any) -> Callable[[Any, Any], Any]:
    r"""The network's first-order expansion, as a function of parameters and one example.

    .. math:: f_{lin}(\theta, x) = f(\theta_0, x) + \partial_\theta f(\theta_0, x)(\theta-\theta_0)

    Parameters
    ----------
    f, params
        As for :func:`widelimit.empirical_ntk`; ``params`` is θ₀.

    Returns
    -------
    A function of (params, x) like ``f``; its parameters have the structure of ``params``. Arrays
    that are no parameters stay as they are in ``params``.

    Notes
    -----
    Lee et al., Wide neural networks of any depth evolve as linear models, 2019.

    Examples
    --------
    >>> import jax.numpy as jnp, widelimit as wl
    >>> g = wl.linearize(lambda w, x: jnp.sum(w**2) * x, jnp.ones(2))
    >>> float(g(jnp.array([2.0, 1.0]), 1.0))
    4.0
    """

    def expand(line: Callable[[Any], Any], start: Any, direction: Any) -> Any:
        value = line(start)
        slope = forward(line, start)(direction)
        return jax.tree.map(jnp.add, value, slope)

    return _around(f, params, expand)


def taylor(f: Any, params: Any, degree: int) -> Callable[[Any, Any], Any]:
    r"""The network's expansion of any degree, as a function of parameters and one example.

    .. math::
        \sum_{k=0}^{d} \frac{1}{k!} \frac{d^k}{dt^k} f(\theta_0 + t(\theta-\theta_0), x)\Big|_{t=0}

    By nested forward derivatives along the line, whose cost doubles with each degree.

    Parameters
    ----------
    f, params
        As for :func:`widelimit.linearize`.
    degree
        At least 0; 1 is the linearisation.

    Raises
    ------
    ValueError
        If the degree is negative.
    """
    if degree < 0:
        msg = f"degree is at least 0, got {degree}"
        raise ValueError(msg)

    def expand(line: Callable[[Any], Any], start: Any, direction: Any) -> Any:
        along = lambda t: line(tuple(s + t * d for s, d in zip(start, direction)))
        dtype = jnp.result_type(*start)
        zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
        total = along(zero)
        derivative = along
        for k in range(1, degree + 1):
            derivative = _slope(derivative, one)
            now = derivative(zero)
            total = jax.tree.map(lambda a, b, k=k: a + b / math.factorial(k), total, now)
        return total

    return _around(f, params, expand)


def _slope(g: Callable[[Any], Any], one: Any) -> Callable[[Any], Any]:
    return lambda t: jax.jvp(g, (t,), (one,))[1]


def _around(f: Any, params: Any, expand: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    origin = parts(f, params)

    def expanded(new: Any, x: Any) -> Any:
        moved = parts(f, new)
        shapes = lambda p: [(n, v.shape) for n, v in zip(p.names, p.values)]
        if shapes(moved) != shapes(origin):
            msg = f"parameters {shapes(moved)} are not those expanded around, {shapes(origin)}"
            raise ValueError(msg)
        direction = tuple(a - b for a, b in zip(moved.values, origin.values))
        line = lambda values: origin.apply(values, origin.constants, x)
        return expand(line, origin.values, direction)

    return expanded
