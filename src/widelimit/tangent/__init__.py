"""Finite networks at given parameters: tangent kernels, expansions, sensitivity, spectra."""

from widelimit.tangent._expand import linearize as linearize
from widelimit.tangent._expand import taylor as taylor
from widelimit.tangent._ntk import empirical_nngp as empirical_nngp
from widelimit.tangent._ntk import empirical_ntk as empirical_ntk
from widelimit.tangent._operator import ntk_operator as ntk_operator
from widelimit.tangent._sensitivity import JacobianNorm as JacobianNorm
from widelimit.tangent._sensitivity import closed_path as closed_path
from widelimit.tangent._sensitivity import jacobian_norm as jacobian_norm
from widelimit.tangent._spectrum import LearningCurve as LearningCurve
from widelimit.tangent._spectrum import Spectrum as Spectrum
from widelimit.tangent._spectrum import spectrum as spectrum
