"""Tangent kernels of finite networks, at given parameters."""

from widelimit.tangent._ntk import empirical_nngp as empirical_nngp
from widelimit.tangent._ntk import empirical_ntk as empirical_ntk
