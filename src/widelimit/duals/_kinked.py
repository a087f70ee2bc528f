"""The pair moments of a u + b |u|: ReLU, leaky ReLU, the absolute value and the identity.

The arc-cosine kernels of Cho and Saul (2009), value and derivative from one angle, with their own
derivatives: differentiating arccos would give NaN at correlation one.
"""

from math import pi

import jax
import jax.numpy as jnp
from jax.lax import optimization_barrier

from ._arccos import arccos_of_one_minus
from ._atoms import ExpPoly, SignPoly
from ._geometry import root


def kink_of(phi, derivative):
    """(a, b) when phi(u) = a u + b |u|, and its autodiff derivative a + b sign(u), else None."""
    own = _degree(phi.form, 1)
    if own is None or not derivative:
        return own
    prime = _degree(phi.prime.form, 0)
    same = prime is not None and max(abs(x - y) for x, y in zip(own, prime)) < 1e-12
    return own if same else None


def _degree(form, power):
    """(a, b) when the form is a u^power + b u^power sign(u), else None."""
    if form is None:
        return None
    total = {ExpPoly: 0.0, SignPoly: 0.0}
    for atom in form:
        if type(atom) not in total or not (isinstance(atom, SignPoly) or atom.polynomial):
            return None
        if any(c for k, c in enumerate(atom.coefficients) if k != power):
            return None
        total[type(atom)] += (*atom.coefficients, 0.0, 0.0)[power]
    return total[ExpPoly], total[SignPoly]


def kinked_pair(one, two, q1, q2, c, d, derivative):
    """E[phi(u) psi(v)] and E[phi'(u) psi'(v)] for phi = a u + b |u| and psi alike.

    a a' c + b b' E|u v| and a a' + b b' E[sign(u) sign(v)].
    """
    (a1, b1), (a2, b2) = one, two
    smooth, bent = a1 * a2, b1 * b2
    if not bent:
        value = smooth * c + 0 * (q1 + q2)
        return value, (jnp.full_like(value, smooth) if derivative else None)
    absolute, sign = _absolute_and_sign(q1, q2, c, d)
    value = smooth * c + bent * absolute if smooth else bent * absolute
    return value, (smooth + bent * sign if derivative else None)


@jax.custom_jvp
def _absolute_and_sign(q1, q2, c, d):
    """E|u v| = (2/pi)(r + c arcsin rho) and E[sign u sign v] = (2/pi) arcsin rho."""
    r, theta = _height_and_angle(q1, q2, c, d)
    sign = 1 - 2 / pi * theta
    return 2 / pi * r + c * sign, sign


def _height_and_angle(q1, q2, c, d):
    """Return sqrt(q1 q2 - c^2) and arccos(rho), from the gap s1 s2 - c where it is known."""
    s1, s2 = root(q1), root(q2)
    product = s1 * s2
    gap = product - c
    if d is not None:
        # Half the squared distance beyond the difference of lengths: no cancellation.
        unlike = (s1 - s2) ** 2
        gap = jnp.where((c > 0) & (unlike < product), (d - unlike) / 2, gap)
    gap = jnp.maximum(gap, 0)
    both = jnp.maximum(product + c, 0)
    over = lambda s: jnp.where(s > 0, 1 / jnp.where(s > 0, s, 1), 0)
    # Computed once: where the gap is rounding, a compiler's second way to compute it would give a
    # height and an angle that do not belong together.
    g = optimization_barrier(jnp.where(c > 0, gap, both) * (over(s1) * over(s2)))
    angle = arccos_of_one_minus(g)
    theta = jnp.where(c > 0, angle, pi - angle)
    # Computed once, for the moment of the function and that of its slope.
    theta = optimization_barrier(jnp.where(product > 0, theta, pi / 2))
    return product * jnp.sqrt(g * jnp.maximum(2 - g, 0)), theta.astype(product.dtype)


@_absolute_and_sign.defjvp
def _absolute_and_sign_jvp(primals, tangents):
    """Price's theorem: dE|u v|/dc = E[sign sign], dE|u v|/dq1 = r / (pi q1); d has no tangent."""
    q1, q2, c, d = primals
    dq1, dq2, dc, _ = tangents
    absolute, sign = _absolute_and_sign(q1, q2, c, d)
    s1, s2 = root(q1), root(q2)
    product = s1 * s2
    squared = jnp.maximum((product - c) * (product + c), 0)
    some = squared > 0
    r = jnp.where(some, jnp.sqrt(jnp.where(some, squared, 1)), 0)
    inverse = jnp.where(some, 1 / jnp.where(some, r, 1), 0)
    over = lambda q: jnp.where(q > 0, 1 / jnp.where(q > 0, q, 1), 0)
    shrink = dq1 * over(q1) + dq2 * over(q2)
    d_absolute = sign * dc + r / pi * shrink
    d_sign = 2 / pi * inverse * (dc - c / 2 * shrink)
    return (absolute, sign), (d_absolute, d_sign)


def kinked_second(one, two, q, derivative):
    """E[phi(u) psi(u)] = (a a' + b b') q, and the same without q for the derivatives."""
    both = one[0] * two[0] + one[1] * two[1]
    return both * q, (jnp.full_like(q, both) if derivative else None)
