"""Build the environment of the reference library, from nothing.

    python3.11 benchmarks/peers/build.py TARGET

The last release of neural-tangents imports only on versions of JAX that want NumPy 1 and
Python 3.11 or older, so it lives in an environment of its own.
"""

import argparse
import subprocess
import sys
import venv
from pathlib import Path

FOUNDATION = ("jax==0.4.25", "jaxlib==0.4.25", "numpy<2", "scipy<1.13", "frozendict")
REFERENCE = "neural-tangents==0.6.5"
HERE = Path(__file__).parent


def run(*command):
    print("+", *command, flush=True)
    subprocess.run(command, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", type=Path, help="directory of the new environment")
    target = parser.parse_args().target

    if sys.version_info >= (3, 12):
        raise SystemExit("jaxlib 0.4.25 and NumPy 1 are for Python 3.9 to 3.11; run this with 3.11")
    print(f"new environment in {target}, Python {sys.version.split()[0]}", flush=True)
    venv.create(target, with_pip=True)
    python = str(target / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", *FOUNDATION)
    # Without its dependencies: they would bring TensorFlow, which stub.py makes unnecessary.
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", REFERENCE)
    run(python, str(HERE / "stub.py"), str(HERE / "reference.py"), "--check")
    print(f"done: {python}")


if __name__ == "__main__":
    main()
