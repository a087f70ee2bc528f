"""One process, one library, one workload: obeys JSON commands, one a line, on standard input.

``run.py`` starts it, in either environment. The commands are ``call`` (answer the seconds that one
call took), ``memory`` (the peak in MB) and ``save`` (write the two kernels of the last call).
"""

import json
import math
import os
import resource
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))

import jax
import jax.numpy as jnp
import numpy as np
import workloads

from peers import networks, spatial, stub


def ours(layers, shape):
    import widelimit as wl

    if len(shape) > 1:
        f, shapes = spatial.plain(spatial.Network(layers, shape))
    else:
        f, shapes, _ = networks.plain(networks.Network("workload", layers), *shape)
    kernel = wl.kernel(f, shapes)
    return kernel.both


def peer(layers, shape):
    stub.install()
    if len(shape) > 1:
        kernel_fn = spatial.stax_kernel(spatial.Network(layers, shape))
    else:
        kernel_fn = networks.stax_kernel(networks.Network("workload", layers))
    return jax.jit(lambda x1, x2=None: kernel_fn(x1, x2, ("nngp", "ntk")))


def gemm(layers, shape):
    """The matrix product that every dense kernel contains."""
    del layers, shape
    flat = lambda x: x.reshape(len(x), -1)
    return jax.jit(lambda x1, x2=None: flat(x1) @ flat(x1 if x2 is None else x2).T)


def copy(layers, shape):
    """Read one kernel, write two."""
    del layers, shape
    state = {}

    def run(x1, x2=None):
        if not state:
            n, m = len(x1), len(x1 if x2 is None else x2)
            state["k"] = jax.block_until_ready(jnp.ones((n, m), x1.dtype))
            state["f"] = jax.jit(lambda k: (k + 1, k + 2))
        return state["f"](state["k"])

    return run


def peak_megabytes():
    # The peak of this program alone. ru_maxrss would include what the parent held at the fork.
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if "VmHWM" in line) / 1e3
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main():
    spec = json.loads(sys.argv[1])
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print must not be mistaken for an answer

    workload = {**workloads.WORKLOADS, **workloads.SPATIAL}[spec["workload"]]
    shape = tuple(spec.get("shape", workload.shape))
    jax.config.update("jax_enable_x64", spec["dtype"] == "float64")
    x1, x2 = (jnp.asarray(x, spec["dtype"]) for x in workloads.inputs(spec["n"], shape))
    arguments = (x1,) if spec["square"] else (x1, x2)
    layers = workload.layers
    if "depth" in spec:
        layers = networks.mlp(networks.RELU, spec["depth"], math.sqrt(2))
    libraries = {"ours": ours, "peer": peer, "gemm": gemm, "copy": copy}

    function, result = None, None
    for line in sys.stdin:
        command = json.loads(line)
        match command["do"]:
            case "call":
                result = None
                start = time.perf_counter()
                if function is None:  # the first call includes reading the network
                    function = libraries[spec["library"]](layers, shape)
                result = jax.block_until_ready(function(*arguments))
                answer = time.perf_counter() - start
            case "memory":
                answer = peak_megabytes()
            case "save":
                np.save(command["to"], np.stack([np.reshape(k, (len(x1), -1)) for k in result]))
                answer = command["to"]
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
