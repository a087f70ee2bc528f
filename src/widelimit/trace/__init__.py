"""From a JAX function to a graph; the only package that touches jaxprs."""

from widelimit.trace.leaves import Leaf as Leaf
from widelimit.trace.reader import Graph as Graph
from widelimit.trace.reader import read as read
