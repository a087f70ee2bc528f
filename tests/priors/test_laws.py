import math

import numpy as np
import pytest
from scipy import special, stats

from widelimit.priors import _laws


@pytest.mark.parametrize(
    ("f", "exact"),
    [
        (lambda u: u**3, 0.25),
        (lambda u: -np.log1p(-u), 1.0),
        (lambda u: np.log(u) ** 2, 2.0),
        (lambda u: (u > 0.3).astype(float), 0.7),
        (lambda u: special.ndtri(u) ** 4, 3.0),
        (lambda u: np.where(u < 1 / 3, -1.0, 2.0) * u, -1 / 18 + 8 / 9),
        (lambda u: np.sin(2 * np.pi * u), 0.0),
    ],
)
def test_integrals(f, exact):
    assert _laws.integrate(f) == pytest.approx(exact, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("f", [lambda u: np.tan(np.pi * (u - 0.5)) ** 2, lambda u: 1 / u])
def test_divergent_integrals_raise(f):
    with pytest.raises(ArithmeticError, match="converge"):
        _laws.integrate(f)


@pytest.mark.parametrize(("low", "high"), [(-2, 2), (-1, 3), (0.5, np.inf), (-np.inf, 0), (3, 4)])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (-2.0, 0.3)])
def test_truncated_moments_against_scipy(low, high, scale, shift):
    mean, std = _laws.Truncated(0.0, 1.0, low, high).affine(scale, shift).moments()
    exact = stats.truncnorm(low, high)
    assert mean == pytest.approx(scale * exact.mean() + shift, rel=1e-9)
    assert std == pytest.approx(abs(scale) * exact.std(), rel=1e-9)


def test_probabilities_and_supports():
    law = _laws.Truncated(1.0, 2.0, -1.0, 1.0)
    assert law.below(1.0) == pytest.approx(0.5)
    assert law.support() == (-1.0, 3.0)
    uniform = _laws.Uniform(3.0, -1.0)
    assert uniform.support() == (-1.0, 3.0)
    assert uniform.below(0.0) == pytest.approx(0.25)
    assert uniform.moments() == (1.0, pytest.approx(4 / math.sqrt(12)))
    assert math.isnan(_laws.Moments(0.0, 1.0, "sum").below(0.0))
