"""One process, one library, one network: obeys commands on standard input.

``run.py`` starts it in either environment. Commands, one JSON object a line, name a method and what
to do: ``call`` answers the seconds of one call after another one, ``memory`` the peak in MB of one
more call above what was held before it, ``flops`` the compiler's count, ``save`` writes the kernel.
"""

import ctypes
import functools
import json
import os
import resource
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))

import jax
import jax.numpy as jnp
import numpy as np
from workloads import WORKLOADS

LONG = 0.5
"""Seconds of a call that is not worth another one before it, to warm up."""
PEER = {"jacobian": 1, "vector_products": 2, "structured": 3}


def ours(workload, method, eager=False):
    import widelimit as wl

    run = lambda p, a, b: wl.empirical_ntk(workload.f, p, a, b, method=method, memory=1 << 32)
    return run if eager else jax.jit(run)


def peer(workload, method):
    import stub

    stub.install()
    import neural_tangents as nt

    batched = jax.vmap(workload.f, (None, 0))
    fn = nt.empirical_ntk_fn(
        lambda p, x: batched(p, x), trace_axes=(), vmap_axes=0, implementation=PEER[method]
    )
    return jax.jit(lambda p, a, b: fn(a, b, p))


def recipe(workload, method):
    """Jacobians of both batches, contracted parameter by parameter."""
    del method

    @jax.jit
    def run(p, a, b):
        jacobians = lambda x: jax.vmap(jax.jacrev(workload.f), (None, 0))(p, x)
        total = 0.0
        for j, k in zip(jacobians(a), jacobians(b)):
            j, k = (x.reshape(*x.shape[:2], -1) for x in (j, k))
            total = total + jnp.einsum("nip,mjp->nmij", j, k)
        return total

    return run


def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if name in line) / 1e3


def peak_of(run):
    """The peak of one call above what the process held before it."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    jax.block_until_ready(run())
    return status("VmHWM") - before


def main():
    spec = json.loads(sys.argv[1])
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    limit = int(spec["gigabytes"] * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    workload = WORKLOADS[spec["workload"]]()
    arguments = workload.data()
    eager = functools.partial(ours, eager=True)
    make = {"ours": ours, "eager": eager, "peer": peer, "recipe": recipe}[spec["library"]]
    functions, answers_in, result = {}, {}, None
    for line in sys.stdin:
        command = json.loads(line)
        method = command["method"]
        if method not in functions:
            functions[method] = make(workload, method)
        function = functions[method]
        match command["do"]:
            case "call":
                result = None
                if answers_in.get(method, LONG) < LONG:
                    # The call before may have been another library's, or left the caches full.
                    jax.block_until_ready(function(*arguments))
                start = time.perf_counter()
                result = jax.block_until_ready(function(*arguments))
                answer = answers_in[method] = time.perf_counter() - start
            case "memory":
                result = None
                answer = peak_of(functools.partial(function, *arguments))
            case "flops":
                answer = flops(function, arguments)
            case "save":
                result = function(*arguments)
                np.save(command["to"], np.asarray(result))
                answer = command["to"]
        print(json.dumps(answer), file=answers, flush=True)


def flops(function, arguments):
    if not hasattr(function, "lower"):
        function = jax.jit(function)
    found = function.lower(*arguments).compile().cost_analysis()
    found = found[0] if isinstance(found, list) else found
    return float((found or {}).get("flops", 0.0))


if __name__ == "__main__":
    main()
