"""Import the reference library without TensorFlow.

``neural_tangents`` imports its TensorFlow bridge unconditionally. Nothing compared here uses it,
so an empty module stands in for it, and neither TensorFlow nor tf2jax needs to be installed.

    python stub.py script.py [arguments]

runs a script with the stand-in already in place; ``stub.install()`` does the same from inside.
"""

import runpy
import sys
import types

BRIDGE = "neural_tangents.experimental"


def install():
    """Put the stand-in where ``import neural_tangents`` will find it."""
    sys.modules.setdefault(BRIDGE, types.ModuleType(BRIDGE))


if __name__ == "__main__":
    install()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
