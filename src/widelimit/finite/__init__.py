"""Finite networks: empirical kernels, sampling, and the comparison with the limit."""

from widelimit.finite._empirical import empirical_nngp as empirical_nngp
from widelimit.finite._empirical import empirical_ntk as empirical_ntk
from widelimit.finite._empirical import sample_kernels as sample_kernels
from widelimit.finite._monte_carlo import MonteCarlo as MonteCarlo
from widelimit.finite._monte_carlo import Sampled as Sampled
from widelimit.finite._monte_carlo import monte_carlo as monte_carlo
from widelimit.finite._report import Conclusion as Conclusion
from widelimit.finite._report import Estimate as Estimate
from widelimit.finite._report import Report as Report
from widelimit.finite._report import Row as Row
from widelimit.finite._verify import verify as verify
