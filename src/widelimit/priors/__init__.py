"""Which arrays are random, and with what mean and standard deviation."""

from widelimit.priors._prior import STANDARD_NORMAL as STANDARD_NORMAL
from widelimit.priors._prior import Prior as Prior
