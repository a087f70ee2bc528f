"""Models written in plain JAX, Equinox or Flax NNX as functions of one example."""

from widelimit.models._describe import Description as Description
from widelimit.models._describe import describe as describe
from widelimit.models._parts import Parts as Parts
from widelimit.models._parts import parts as parts
from widelimit.models._sample import sample as sample
from widelimit.priors import assign as assign
