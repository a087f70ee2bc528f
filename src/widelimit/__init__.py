"""Infinite-width limits of neural networks written in JAX."""

import importlib as _importlib

from widelimit import duals as duals
from widelimit import dynamics as dynamics
from widelimit import nn as nn
from widelimit import predict as predict
from widelimit import priors as priors
from widelimit import tangent as tangent
from widelimit.dynamics import track as track
from widelimit.errors import AmbiguousScaleError as AmbiguousScaleError
from widelimit.errors import BatchStatisticsError as BatchStatisticsError
from widelimit.errors import ControlFlowError as ControlFlowError
from widelimit.errors import MisalignedWidthError as MisalignedWidthError
from widelimit.errors import NarrowWidthWarning as NarrowWidthWarning
from widelimit.errors import NotGaussianError as NotGaussianError
from widelimit.errors import OrderStatisticError as OrderStatisticError
from widelimit.errors import RandomnessError as RandomnessError
from widelimit.errors import SharedAcrossWidthError as SharedAcrossWidthError
from widelimit.errors import TransposedWeightError as TransposedWeightError
from widelimit.errors import UnknownPriorError as UnknownPriorError
from widelimit.errors import UnsupportedPrimitiveError as UnsupportedPrimitiveError
from widelimit.errors import WideLimitError as WideLimitError
from widelimit.finite import Report as VerifyReport  # noqa: F401  (a public name)
from widelimit.finite import monte_carlo as monte_carlo
from widelimit.finite import verify as verify
from widelimit.kernel import Kernel as Kernel
from widelimit.kernel import Kernels as Kernels
from widelimit.kernel import kernel as kernel
from widelimit.models import describe as describe
from widelimit.priors import Prior as Prior
from widelimit.priors import prior_of as prior_of
from widelimit.tangent import closed_path as closed_path
from widelimit.tangent import empirical_nngp as empirical_nngp
from widelimit.tangent import empirical_ntk as empirical_ntk
from widelimit.tangent import jacobian_norm as jacobian_norm
from widelimit.tangent import linearize as linearize
from widelimit.tangent import ntk_operator as ntk_operator
from widelimit.tangent import spectrum as spectrum
from widelimit.tangent import taylor as taylor

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Rooms that bring scikit-learn with them are loaded when first used."""
    if name == "estimators":
        return _importlib.import_module("widelimit.estimators")
    msg = f"module 'widelimit' has no attribute {name!r}"
    raise AttributeError(msg)
