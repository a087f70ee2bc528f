"""Closed forms of E[f(u) g(v)] for pairs of atoms."""

from math import factorial, pi, sqrt

import jax.numpy as jnp

from ._arccos import arcsin
from ._atoms import Erf, ExpPoly, SignPoly, Trig, derivative_of, gaussian_mean, inverse_root
from ._geometry import geometry
from ._sign import sign_moment


def _is_even_gaussian(atom):
    return isinstance(atom, ExpPoly) and atom.alpha == 0 and not atom.polynomial


def _kinds(f, g, kind_f, kind_g):
    return isinstance(f, kind_f) and isinstance(g, kind_g)


def atom_pair(f, g, q1, q2, c, d):
    """E[f(u) g(v)] for (u, v) ~ N(0, [[q1, c], [c, q2]]); None where there is no rule."""
    if _kinds(f, g, ExpPoly, ExpPoly):
        return _exponentials(f, g, q1, q2, c)
    if isinstance(g, ExpPoly):
        return atom_pair(g, f, q2, q1, c, d)
    if isinstance(f, ExpPoly):
        if f.polynomial:
            return _polynomial(f.coefficients, g, q1, q2, c, d)
        if _is_even_gaussian(f):
            return _tilted(f, g, q1, q2, c)
        return None
    if _kinds(f, g, SignPoly, SignPoly):
        return sum(
            a * b * sign_moment(m, n, 2, q1, q2, c, d)
            for m, a in enumerate(f.coefficients)
            for n, b in enumerate(g.coefficients)
            if a and b and (m + n) % 2 == 0
        )
    if _kinds(f, g, Trig, Trig):
        return _trigonometric(f, g, q1, q2, c)
    if _kinds(f, g, Erf, Erf):
        return _errors(f, g, q1, q2, c)
    return None


def _exponentials(f, g, q1, q2, c):
    """Complete the square: the pair is Gaussian again under the tilted measure.

    E[P(u) e^(a u + b u^2) Q(v) e^(a' v + b' v^2)] has covariance (S^-1 - 2 diag(b, b'))^-1 and mean
    that covariance times (a, a').
    """
    plain = len(f.coefficients) == len(g.coefficients) == 1 and not (f.alpha or g.alpha)
    if plain:
        spread = (1 - 2 * f.beta * q1) * (1 - 2 * g.beta * q2) - 4 * f.beta * g.beta * (c * c)
        return f.coefficients[0] * g.coefficients[0] / jnp.sqrt(spread)
    if f.beta or g.beta:
        spread = (1 - 2 * f.beta * q1) * (1 - 2 * g.beta * q2) - 4 * f.beta * g.beta * c * c
        r1 = (q1 * (1 - 2 * g.beta * q2) + 2 * g.beta * c * c) / spread
        r2 = (q2 * (1 - 2 * f.beta * q1) + 2 * f.beta * c * c) / spread
        c, factor = c / spread, 1 / jnp.sqrt(spread)
    else:
        r1, r2, factor = q1, q2, 1.0
    m1, m2 = f.alpha * r1 + g.alpha * c, f.alpha * c + g.alpha * r2
    if f.alpha or g.alpha:
        factor = factor * jnp.exp((f.alpha * m1 + g.alpha * m2) / 2)
    p, q = f.coefficients, g.coefficients
    total, power, k = jnp.zeros_like(c), 1.0, 0
    while any(p) and any(q):
        term = gaussian_mean(p, m1 + 0 * r1, r1) * gaussian_mean(q, m2 + 0 * r2, r2)
        total = total + power * term / factorial(k)
        p, q, power, k = derivative_of(p), derivative_of(q), power * c, k + 1
    return factor * total


def _polynomial(p, g, q1, q2, c, d):
    """sum_k c^k / k! E[P^(k)(u)] E[g^(k)(v)], which ends at the degree of P."""
    if isinstance(g, SignPoly):
        return sum(
            a * b * sign_moment(n, m, 1, q2, q1, c, d)
            for m, a in enumerate(p)
            for n, b in enumerate(g.coefficients)
            if a and b and (m + n) % 2 == 1
        ) + jnp.zeros_like(c + q1 + q2)
    total, power, k = jnp.zeros_like(c + q1 + q2), 1.0, 0
    while any(p):
        term = gaussian_mean(p, jnp.zeros_like(q1), q1) * g.mean_of_derivative(k, q2)
        total = total + power * term / factorial(k)
        p, power, k = derivative_of(p), power * c, k + 1
    return total


def _tilted(f, g, q1, q2, c):
    """E[P(u) e^(b u^2) g(v)]: absorb the Gaussian into the measure, then P times g."""
    spread = 1 - 2 * f.beta * q1
    r1, r2, c = q1 / spread, q2 + 2 * f.beta * c * c / spread, c / spread
    return _polynomial(f.coefficients, g, r1, r2, c, r1 + r2 - 2 * c) / jnp.sqrt(spread)


def _trigonometric(f, g, q1, q2, c):
    """Use sin x sin y = (cos(x - y) - cos(x + y)) / 2, and E cos of a Gaussian."""
    size = f.amplitude * g.amplitude / 2
    spread = (f.frequency**2 * q1 + g.frequency**2 * q2) / 2
    cross = f.frequency * g.frequency * c
    near = jnp.exp(-(spread - cross)) * jnp.cos(f.phase - g.phase)
    far = jnp.exp(-(spread + cross)) * jnp.cos(f.phase + g.phase)
    return size * (near - far)


def _arcsine(f, g, q1, q2, c):
    """E[erf(a u) erf(b v)] = (2/pi) arcsin(2 a b c / sqrt((1 + 2 a^2 q1) (1 + 2 b^2 q2))).

    Williams, "Computing with infinite networks" (1997), eq. 11.
    """
    own = lambda atom, q: 1 / jnp.sqrt(1 + 2 * atom.b**2 * q)
    return 2 / pi * arcsin(2 * f.b * g.b * c * (own(f, q1) * own(g, q2)))


def _half(f, g, q1, q2, c):
    """E[(erf(a u))' v erf(b v)]: tilt by the Gaussian derivative, then integrate by parts."""
    spread = 1 + 2 * f.b**2 * q1
    r2 = q2 - 2 * f.b**2 * c * c / spread
    constant = 4 * f.b * g.b / pi
    return constant * r2 / jnp.sqrt(spread) / jnp.sqrt(1 + 2 * g.b**2 * r2)


def _other_half(f, g, q1, q2, c):
    """E[erf(a u) v (erf(b v))'], by the same two steps."""
    spread = 1 + 2 * g.b**2 * q2
    r1 = q1 - 2 * g.b**2 * c * c / spread
    constant = 4 * f.b * g.b / pi
    return constant * (c / spread) / jnp.sqrt(spread) / jnp.sqrt(1 + 2 * f.b**2 * r1)


def _errors(f, g, q1, q2, c):
    """E[u^i erf(a u) v^j erf(b v)]; for i = j = 1 by parts, E[u x] = q1 E[x_u] + c E[x_v]."""
    size = f.amplitude * g.amplitude
    if f.power != g.power:
        return jnp.zeros_like(c + q1 + q2)
    if f.power == 0:
        return size * _arcsine(f, g, q1, q2, c)
    first = q1 * _half(f, g, q1, q2, c)
    return size * (first + c * (_arcsine(f, g, q1, q2, c) + _other_half(f, g, q1, q2, c)))


def form_pair(form1, form2, q1, q2, c, d):
    """E[f(u) g(v)] for sums of atoms; None unless every pair of atoms has a rule."""
    if form1 is None or form2 is None:
        return None
    total = jnp.zeros(jnp.broadcast_shapes(q1.shape, q2.shape, c.shape), c.dtype)
    for f in form1:
        for g in form2:
            term = atom_pair(f, g, q1, q2, c, d)
            if term is None:
                return None
            total = total + term
    return total.astype(c.dtype)


def form_mean(form, q):
    """E[f(u)] for a sum of atoms."""
    return sum((atom.mean(q) for atom in form), jnp.zeros_like(q)).astype(q.dtype)


def form_slope(form, q):
    """E[f(u) u] / q = E[f'(u)], weak derivative, for a sum of atoms."""
    terms = (atom.mean_of_derivative(1, q) for atom in form)
    return sum(terms, jnp.zeros_like(q)).astype(q.dtype)


def is_affine_kinked(form):
    """Whether every atom is a polynomial or signed polynomial of degree one at most."""
    return form is not None and all(
        (isinstance(a, SignPoly) or (isinstance(a, ExpPoly) and a.polynomial))
        and not any(a.coefficients[2:])
        for a in form
    )


def affine_kinked_difference(form, q1, q2, c, d):
    """E[(f(u) - f(v))^2] for f = a + b u + e |u| + h sign(u), to relative precision.

    E(|u| - |v|)^2 = d - (4/pi) s1 s2 (sin t - t cos t), E(sign u - sign v)^2 = 4 t / pi, and
    E(u - v)(sign u - sign v) = sqrt(2/pi) (s1 + s2 - c/s1 - c/s2).
    """
    geo = geometry(q1, q2, c, d)
    smooth = [(*a.coefficients, 0.0) for a in form if isinstance(a, ExpPoly)]
    signed = [(*a.coefficients, 0.0) for a in form if isinstance(a, SignPoly)]
    slope = sum(a[1] for a in smooth)
    jump, bend = sum(a[0] for a in signed), sum(a[1] for a in signed)
    t = geo.theta
    small = t < 0.3
    s = jnp.where(small, t, 0)
    series = s**3 / 3 * (1 - s**2 / 10 * (1 - s**2 / 28 * (1 - s**2 / 54 * (1 - s**2 / 88))))
    bow = jnp.where(small, series, geo.sine - t * geo.rho)
    total = slope**2 * d
    if bend:
        total = total + bend**2 * (d - 4 / pi * geo.s1 * geo.s2 * bow)
    if jump:
        total = total + jump**2 * 4 * t / pi
        if slope:
            # (s1 - c/s2) + (s2 - c/s1) = gap (1/s1 + 1/s2)
            near = geo.gap * (inverse_root(q1) + inverse_root(q2))
            total = total + 2 * slope * jump * sqrt(2 / pi) * near
    return total
