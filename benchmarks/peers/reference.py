"""Write the reference library's kernels of every network to ``tests/peer``.

    PEER/bin/python benchmarks/peers/reference.py

Runs in the environment that ``build.py`` makes, in float64. With ``--check`` it writes nothing and
only computes one network, to see that the environment works; with ``--spatial`` it writes the
networks of ``spatial.py``, to ``spatial.npz``.
"""

import argparse
import sys
import warnings
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from peers import spatial, stub
from peers.networks import INPUT_WIDTH, NETWORKS, stax_kernel

SPATIAL = Path(__file__).parents[2] / "tests" / "peer" / "spatial.npz"
OUTPUT = Path(__file__).parents[2] / "tests" / "peer" / "reference.npz"


def inputs():
    rng = np.random.default_rng(20)
    return rng.normal(size=(12, INPUT_WIDTH)), rng.normal(size=(9, INPUT_WIDTH))


def kernels(kernel_fn, x1, x2):
    """NNGP and NTK of k(x1, x1) and k(x1, x2) side by side, in one array."""
    square = kernel_fn(x1, None, ("nngp", "ntk"))
    cross = kernel_fn(x1, x2, ("nngp", "ntk"))
    both = [np.concatenate([a, b], axis=1) for a, b in zip(square, cross)]
    return np.stack(both).astype(np.float64)


def write_spatial():
    """Each network's kernels of k(x1, x1) and k(x1, x2) on inputs of its own shape."""
    arrays = {}
    for name, network in spatial.NETWORKS.items():
        rng = np.random.default_rng(20)
        x1, x2 = rng.normal(size=(3, *network.input)), rng.normal(size=(2, *network.input))
        arrays[name] = kernels(spatial.stax_kernel(network), x1, x2)
        if not np.isfinite(arrays[name]).all():
            raise SystemExit(f"{name}: the reference is not finite")
    np.savez_compressed(SPATIAL, **arrays)
    print(f"{len(arrays)} networks, {SPATIAL.stat().st_size / 1e3:.0f} kB: {SPATIAL}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compute one network, write nothing")
    parser.add_argument("--spatial", action="store_true", help="the networks of spatial.py")
    arguments = parser.parse_args()
    check = arguments.check

    warnings.simplefilter("ignore")
    jax.config.update("jax_enable_x64", True)
    stub.install()
    if arguments.spatial:
        write_spatial()
        return
    x1, x2 = inputs()
    arrays = {"x1": x1, "x2": x2}
    for name, network in NETWORKS.items():
        arrays[name] = kernels(stax_kernel(network), x1, x2)
        if check:
            print("the reference library works:", name, arrays[name][:, 0, 1])
            return
        compared = arrays[name].copy()
        if not network.diagonal:
            compared[:, range(12), range(12)] = 0
        if not np.isfinite(compared).all():
            raise SystemExit(f"{name}: the reference is not finite")
    np.savez_compressed(OUTPUT, **arrays)
    print(f"{len(NETWORKS)} networks, {OUTPUT.stat().st_size / 1e3:.0f} kB: {OUTPUT}")


if __name__ == "__main__":
    main()
