"""Gaussian moments of activations: E[phi(u) psi(v)] for jointly Gaussian (u, v)."""

from ._activation import IDENTITY as IDENTITY
from ._activation import Activation as Activation
from ._arccos import arccos_of_one_minus as arccos_of_one_minus
from ._certificate import certificate as certificate
from ._geometry import default_gap as default_gap
from ._pair import Pair as Pair
from ._pair import difference as difference
from ._pair import is_closed as is_closed
from ._pair import mean as mean
from ._pair import mean_derivative as mean_derivative
from ._pair import pair as pair
from ._pair import second as second
from ._pair import slope as slope
from ._probe import probe as probe
from ._shared import shared as shared
