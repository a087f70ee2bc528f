"""The way back through a program, with all the rules there are."""

from widelimit.tangent import _arithmetic, _arrange, _control
from widelimit.tangent._bottleneck import backwards as backwards

MODULES = (_arithmetic, _arrange, _control)
"""Where rules are registered."""
