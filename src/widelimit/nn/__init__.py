"""Thin Equinox layers that state their own prior, and ready-made networks.

A module of your own states its prior in the same way as these: with a method
``__widelimit_prior__(self)`` that returns a mapping from field name to ``Prior``. It answers for
the arrays in those fields; modules in other fields answer for themselves.
"""

from widelimit.nn import zoo as zoo
from widelimit.nn._affine import Parameterization as Parameterization
from widelimit.nn._attention import Attention as Attention
from widelimit.nn._conv import Conv as Conv
from widelimit.nn._embedding import Embedding as Embedding
from widelimit.nn._embedding import Positions as Positions
from widelimit.nn._layers import Linear as Linear
from widelimit.nn._layers import Residual as Residual
from widelimit.nn._layers import Sequential as Sequential
from widelimit.nn._networks import mlp as mlp
from widelimit.nn._networks import normalised_mlp as normalised_mlp
from widelimit.nn._networks import residual_mlp as residual_mlp
from widelimit.nn._spatial import AvgPool as AvgPool
from widelimit.nn._spatial import Positionwise as Positionwise
from widelimit.nn._spatial import flatten as flatten
from widelimit.nn._spatial import global_average as global_average
