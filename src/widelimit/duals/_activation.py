"""Activation: an elementwise function together with what is known of its Gaussian moments."""

from functools import cached_property

import jax.numpy as jnp
import numpy as np

from ._analysis import Analysis, analyse
from ._atoms import slope_form
from ._probe import elementwise_derivative
from ._recognise import recognise

_UNKNOWN = Analysis((), (), True, False)


class Activation:
    """An elementwise function ``fn(u, *params)`` and the way its Gaussian moments are computed.

    Without parameters the function is probed once, in float64: matched by value against the
    families with closed forms, and searched for kinks. Both happen when first needed, and also
    work inside a jit trace. Activations compare by identity.

    Parameters
    ----------
    fn
        JAX-traceable elementwise function of ``u`` and ``n_params`` broadcastable parameters.
    n_params
        Number of parameters after ``u``. With parameters nothing is recognised, and ``fn`` is
        taken to be continuous in ``u`` and in its parameters.
    derivative_of
        The activation whose autodiff derivative ``fn`` is, if any: its closed form suggests one.

    Attributes
    ----------
    family
        Name of the recognised family, or None.
    parameters
        Parameters of that family, a dict.
    method
        "closed form", "hermite" (smooth: the series alone), or "quadrature" (kinked or with
        parameters: the series, and plane quadrature where it converges slowly).
    """

    def __init__(self, fn, *, n_params=0, derivative_of=None):
        self.fn = fn
        self.n_params = n_params
        self._base = derivative_of

    def __call__(self, u, *params):
        return self.fn(u, *params)

    def __repr__(self):
        name = self.family or getattr(self.fn, "__name__", "function")
        return f"Activation({name}, {self.method})"

    @cached_property
    def _match(self):
        if self.n_params:
            return None
        form = self._base.form if self._base else None
        return recognise(self.fn, slope_form(form) if form else None)

    @property
    def family(self):
        return self._match.family if self._match else None

    @property
    def parameters(self):
        return self._match.parameters if self._match else {}

    @property
    def form(self):
        """Atoms whose sum is the function, or None."""
        return self._match.form if self._match else None

    @property
    def method(self):
        if self._match:
            return "closed form"
        if self.n_params or self.analysis.kinks or not self.analysis.resolved:
            return "quadrature"
        return "hermite"

    @cached_property
    def analysis(self):
        """Kinks and panels of the function; see :class:`Analysis`."""
        if self.n_params:
            return _UNKNOWN
        return analyse(self.fn, elementwise_derivative(self.fn))

    @cached_property
    def prime(self):
        """The autodiff derivative in u, as an activation."""
        slope = elementwise_derivative(self.fn)
        return Activation(slope, n_params=self.n_params, derivative_of=self)

    @cached_property
    def euler(self):
        """The map u -> u phi'(u), as an activation."""
        derivative = elementwise_derivative(self.fn)
        return Activation(lambda u, *p: u * derivative(u, *p), n_params=self.n_params)

    @cached_property
    def _in_params(self):
        return tuple(
            Activation(elementwise_derivative(self.fn, i + 1), n_params=self.n_params)
            for i in range(self.n_params)
        )

    def in_param(self, i):
        """The autodiff derivative in parameter ``i``, as an activation."""
        return self._in_params[i]

    @cached_property
    def bends(self):
        """Whether derivative rules use autodiff's derivative: continuous, and kinked somewhere.

        Without kinks the series of the function gives its derivatives to full accuracy, and with
        jumps nothing else does.
        """
        if self.n_params:
            return True
        return self.analysis.continuous and bool(self.analysis.kinks)

    @cached_property
    def weak(self):
        """The weak derivative: autodiff's derivative, or a shifted Hermite series."""
        return self.prime if self.bends else WeakDerivative(self)


class WeakDerivative:
    """The weak derivative of a function, known by its Hermite coefficients only."""

    n_params: int
    form = None
    bends = False

    def __init__(self, base):
        self.base = base
        self.n_params = base.n_params

    @cached_property
    def weak(self):
        return WeakDerivative(self)

    def in_param(self, i):
        return WeakDerivative(self.base.in_param(i))

    def shift(self, coefficients, q):
        """a_k(f') = sqrt(k + 1) a_(k+1)(f) / sqrt(q), along the first axis."""
        k = np.arange(1, coefficients.shape[0])
        weights = np.sqrt(k).astype(coefficients.dtype).reshape((-1,) + (1,) * q.ndim)
        shifted = coefficients[1:] * weights / jnp.sqrt(q)
        return jnp.concatenate([shifted, jnp.zeros_like(coefficients[:1])])


IDENTITY = Activation(lambda u: u)
