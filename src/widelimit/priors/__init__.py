"""Which arrays are random, and with what mean and standard deviation."""

from widelimit.priors._assign import assign as assign
from widelimit.priors._names import Leaves as Leaves
from widelimit.priors._names import leaves as leaves
from widelimit.priors._prior import FIXED as FIXED
from widelimit.priors._prior import STANDARD_NORMAL as STANDARD_NORMAL
from widelimit.priors._prior import Prior as Prior
from widelimit.priors._prior import as_prior as as_prior
from widelimit.priors._prior_of import Priors as Priors
from widelimit.priors._prior_of import of_initializer as of_initializer
from widelimit.priors._prior_of import of_initializer_with_support as of_initializer_with_support
from widelimit.priors._prior_of import prior_of as prior_of
