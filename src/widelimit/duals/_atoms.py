"""Atoms: scalar functions whose Gaussian moments have closed forms.

An activation with a closed form is a sum of atoms. Each atom knows its mean and the means of its
weak derivatives, E[f^(k)(v)] for v ~ N(0, q), which is all that a product with a polynomial needs.
"""

from dataclasses import dataclass
from math import factorial, pi, sqrt

import jax.numpy as jnp
import numpy as np
from numpy.polynomial import polynomial as npoly
from scipy.special import erf

from ._geometry import floor_of, root


def derivative_of(coefficients):
    """Coefficients, lowest first, of the derivative of a polynomial."""
    return tuple(k * a for k, a in enumerate(coefficients))[1:] or (0.0,)


def erf_derivative_at_zero(k):
    """d^k/dx^k erf(x) at x = 0."""
    if k % 2 == 0:
        return 0.0
    half = (k - 1) // 2
    return 2 / sqrt(pi) * (-1) ** half * factorial(k - 1) / factorial(half)


def absolute_moment(k):
    """E|z|^k for z ~ N(0, 1)."""
    value = 1.0 if k % 2 == 0 else sqrt(2 / pi)
    for j in range(2, k + 1):
        if (k - j) % 2 == 0:
            value *= j - 1
    return value


def horner(coefficients, x):
    """Evaluate a polynomial, lowest coefficient first."""
    total = jnp.zeros_like(x)
    for a in reversed(coefficients):
        total = total * x + a
    return total


def gaussian_mean(coefficients, mean, variance):
    """E[P(x)] for x ~ N(mean, variance), as sum_j P^(2j)(mean) (variance/2)^j / j!."""
    total, power, j = 0.0, 1.0, 0
    while True:
        total = total + horner(coefficients, mean) * power / factorial(j)
        coefficients = derivative_of(derivative_of(coefficients))
        if not any(coefficients):
            return total
        power, j = power * (variance / 2), j + 1


def inverse_root(q):
    """1 / sqrt(q), finite at zero."""
    return 1 / jnp.sqrt(jnp.maximum(q, floor_of(jnp.result_type(q))))


@dataclass(frozen=True)
class ExpPoly:
    """P(u) exp(alpha u + beta u^2) with beta <= 0; a polynomial when alpha = beta = 0."""

    coefficients: tuple
    alpha: float = 0.0
    beta: float = 0.0

    def __call__(self, u):
        value = np.polynomial.polynomial.polyval(u, self.coefficients)
        return value * np.exp(self.alpha * u + self.beta * u * u)

    @property
    def polynomial(self):
        return self.alpha == 0 and self.beta == 0

    def derivative(self):
        inner = npoly.polymul(self.coefficients, (self.alpha, 2 * self.beta))
        total = npoly.polyadd(derivative_of(self.coefficients), inner)
        return ExpPoly(tuple(float(a) for a in total), self.alpha, self.beta)

    def pieces(self):
        return (self.derivative(),)

    def mean(self, q):
        spread = 1 - 2 * self.beta * q
        variance = q / spread
        factor = jnp.exp(self.alpha**2 * variance / 2) / jnp.sqrt(spread)
        return factor * gaussian_mean(self.coefficients, self.alpha * variance, variance)

    def mean_of_derivative(self, k, q):
        atom = self
        for _ in range(k):
            atom = atom.derivative()
        return atom.mean(q)


@dataclass(frozen=True)
class SignPoly:
    """P(u) sign(u)."""

    coefficients: tuple

    def __call__(self, u):
        return np.polynomial.polynomial.polyval(u, self.coefficients) * np.sign(u)

    def pieces(self):
        return (SignPoly(derivative_of(self.coefficients)),)

    def mean_of_derivative(self, k, q):
        """Odd terms give E|u|^j; each derivative of the sign gives a Dirac at zero."""
        total = jnp.zeros_like(q)
        s, density = root(q), sqrt(2 / pi) * inverse_root(q)
        coefficients = self.coefficients
        # f^(k) = P^(k) sign + sum_j P^(j)(0) 2 delta^(k-1-j); E[delta^(m)] = (-1)^m p^(m)(0).
        for j in range(k):
            order = k - 1 - j
            if order % 2 == 0:
                half = order // 2
                slope = (-1) ** half * factorial(order) / (factorial(half) * 2**half)
                total = total + coefficients[0] * density * slope * inverse_root(q) ** order
            coefficients = derivative_of(coefficients)
        for j, a in enumerate(coefficients):
            if j % 2 == 1 and a:
                total = total + a * absolute_moment(j) * s**j
        return total

    def mean(self, q):
        return self.mean_of_derivative(0, q)


@dataclass(frozen=True)
class Trig:
    """amplitude sin(frequency u + phase)."""

    amplitude: float
    frequency: float
    phase: float

    def __call__(self, u):
        return self.amplitude * np.sin(self.frequency * u + self.phase)

    def pieces(self):
        return (Trig(self.amplitude * self.frequency, self.frequency, self.phase + pi / 2),)

    def mean_of_derivative(self, k, q):
        factor = self.amplitude * self.frequency**k * np.sin(self.phase + k * pi / 2)
        return float(factor) * jnp.exp(-(self.frequency**2) * q / 2)

    def mean(self, q):
        return self.mean_of_derivative(0, q)


@dataclass(frozen=True)
class Erf:
    """amplitude u^power erf(b u), with power 0 or 1."""

    amplitude: float
    b: float
    power: int = 0

    def __call__(self, u):
        return self.amplitude * u**self.power * erf(self.b * u)

    def pieces(self):
        height = 2 * self.b / sqrt(pi) * self.amplitude
        bell = ExpPoly((0.0,) * self.power + (height,), beta=-self.b * self.b)
        return (Erf(self.amplitude, self.b), bell) if self.power else (bell,)

    def mean_of_derivative(self, k, q):
        """From E[erf(b (v + m))] = erf(r m), r = b / sqrt(1 + 2 b^2 q), differentiated in m."""
        r = self.b / jnp.sqrt(1 + 2 * self.b**2 * q)
        if self.power == 0:
            return self.amplitude * erf_derivative_at_zero(k) * r**k
        total = q * erf_derivative_at_zero(k + 1) * r ** (k + 1)
        if k:
            total = total + k * erf_derivative_at_zero(k - 1) * r ** (k - 1)
        return self.amplitude * total

    def mean(self, q):
        return self.mean_of_derivative(0, q)


def slope_form(form):
    """The atoms of the derivative of a sum of atoms, away from its jumps."""
    polynomials, others = {}, []
    for piece in (piece for atom in form for piece in atom.pieces()):
        if isinstance(piece, ExpPoly):
            exponent = piece.alpha, piece.beta
            polynomials[exponent] = npoly.polyadd(
                polynomials.get(exponent, (0.0,)), piece.coefficients
            )
        elif not isinstance(piece, SignPoly) or any(piece.coefficients):
            others.append(piece)
    sums = [ExpPoly(tuple(map(float, p)), *e) for e, p in polynomials.items() if np.any(p)]
    return tuple(sums) + tuple(others) or (ExpPoly((0.0,)),)
