"""What a user holds: a network's kernels as functions of batches of inputs."""

from widelimit.kernel._kernel import Kernel as Kernel
from widelimit.kernel._kernel import Kernels as Kernels
from widelimit.kernel._kernel import kernel as kernel
