"""The way covered along an eigenvector, against the recurrences in 120 digits."""

from decimal import Decimal, localcontext

import jax.numpy as jnp
import numpy as np
import pytest

from widelimit.dynamics._method import METHODS, Method, read_method

RATE = 0.3


def exact(name, beta, x, steps):
    """The optimizer's own update of (u, v), to a power, in decimal numbers."""
    with localcontext() as context:
        context.prec = 120
        rate, beta, x = Decimal(RATE), Decimal(beta), Decimal(x)
        first, carry = (1 + beta, beta**2) if name == "nesterov" else (Decimal(1), beta)
        matrix = [[1 - first * rate * x, carry, first * rate], [-rate * x, beta, rate], [0, 0, 1]]
        multiply = lambda a, b: [
            [sum(a[i][j] * b[j][k] for j in range(3)) for k in range(3)] for i in range(3)
        ]
        total = [[Decimal(i == j) for j in range(3)] for i in range(3)]
        while steps:
            total = multiply(matrix, total) if steps & 1 else total
            matrix, steps = multiply(matrix, matrix), steps >> 1
        return float(total[0][2])


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["descent", "momentum", "nesterov"])
def test_matches_the_recurrence_in_120_digits(name, beta):
    if name == "descent" and beta:
        return
    method = read_method(name, RATE, None if name == "descent" else beta)
    edge, twice = (1 - beta) ** 2 / 8 / RATE, (1 - beta**0.5) ** 2 / RATE
    x = np.array([
        0, 1e-15, 1e-8, 1e-3, edge * 0.999, edge * 1.001, twice, twice * (1 + 1e-9), 0.1, 1,
        *(method.limit / RATE * np.array([0.3, 0.5, 0.9, 0.99])),
    ])  # fmt: skip
    tolerance = 2e-13 / (1 - beta) ** 1.2
    for steps in [0, 1, 2, 3, 7, 100, 12_345, 10**10 + 1, 10**15 + 7]:
        found = np.asarray(method.moved(jnp.asarray(x), jnp.asarray(float(steps))))
        expected = np.array([exact(name, beta, float(v), steps) for v in x])
        with np.errstate(divide="ignore"):
            scale = np.maximum(np.abs(expected), np.minimum(1 / x, RATE * steps))
        assert np.all(np.abs(found - expected) <= tolerance * scale)
        small = x * steps * RATE < 0.1 * (1 - beta)
        np.testing.assert_allclose(found[small], expected[small], rtol=tolerance)


@pytest.mark.parametrize("name", METHODS)
def test_ends_at_the_minimum(name):
    method = Method(name, RATE, 0.5 if name in ("momentum", "nesterov") else 0.0)
    x = jnp.array([0.0, 1e-9, 0.2, 2.0])
    end = method.moved(x, jnp.asarray(np.inf))
    np.testing.assert_allclose(end[1:], 1 / x[1:], rtol=1e-15)
    assert end[0] == np.finfo(float).max
    np.testing.assert_allclose(method.moved(x, jnp.asarray(1e14))[1:], 1 / x[1:], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keeps_the_dtype(dtype):
    method = Method("momentum", np.float64(0.1), 0.9)
    x = jnp.asarray([0.0, 1.0], dtype)
    assert method.moved(x, jnp.asarray(5, dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("sgd", 0.1, None), "there are flow, descent, momentum, nesterov"),
        (("descent", 0.1, 0.9), "has no momentum"),
        (("flow", 0.1, 0.9), "has no momentum"),
        (("momentum", 0.1, None), "momentum= at least 0 and below 1"),
        (("nesterov", 0.1, 1.0), "momentum= at least 0 and below 1"),
        (("descent", -0.1, None), "one positive number"),
        (("descent", np.nan, None), "one positive number"),
        (("descent", [0.1], None), "one positive number"),
    ],
)
def test_refuses_what_is_no_method(given, message):
    with pytest.raises(ValueError, match=message):
        read_method(*given)
