"""What is timed: networks, sizes and precisions. Importable from both environments."""

import math
from dataclasses import dataclass

import numpy as np

from peers import spatial
from peers.networks import (
    ERF,
    GELU,
    HE,
    RELU,
    SIGMOID,
    Act,
    Dense,
    Join,
    LayerNorm,
    mlp,
    skip,
)

BOTH = ("float64", "float32")
OUT = Dense(1.0, None, 1)


@dataclass(frozen=True)
class Workload:
    """A network and the sizes it is timed at; ``square`` asks for k(x, x) besides k(x1, x2)."""

    layers: tuple
    sizes: tuple[int, ...]
    square: bool = False
    dtypes: tuple[str, ...] = BOTH
    shape: tuple[int, ...] = (784,)


def tanh(points):
    return mlp(Act("Numerical", ("tanh", points)), 3, 1.1, 0.2)


GATE = Join("prod", ((Dense(1.2, 0.1),), (Dense(0.9, 0.3), SIGMOID)))

WORKLOADS = {
    "relu, 3 layers": Workload(mlp(RELU, 3, math.sqrt(2)), (1000, 2000, 4000), square=True),
    "relu, 20 layers": Workload(mlp(RELU, 20, math.sqrt(2)), (2000,)),
    "relu, 50 layers": Workload(mlp(RELU, 50, math.sqrt(2)), (1000,)),
    "erf, 3 layers": Workload(mlp(ERF, 3, 1.3, 0.1), (2000,)),
    "gelu, 3 layers": Workload(mlp(GELU, 3, 1.5, 0.1), (2000,)),
    "residual, 10 blocks": Workload((HE, *(skip(RELU, Dense(0.8, 0.1)),) * 10, RELU, OUT), (2000,)),
    "gated (GLU), 3 layers": Workload((GATE, GATE, GATE, OUT), (2000,)),
    "layer norm and relu, 5 layers": Workload((*(Dense(1.3), LayerNorm(), RELU) * 5, OUT), (2000,)),
    # The reference's two-dimensional quadrature holds deg**2 copies of the kernel. Its error is
    # 1e-5 with 32 points, as good as float32 asks, and 3e-11 with 120.
    "tanh, 3 layers, deg 32": Workload(tanh(32), (500,), dtypes=("float32",)),
    "tanh, 3 layers, deg 120": Workload(tanh(120), (100,), dtypes=("float64",)),
}


C3 = spatial.Conv((3, 3))
POOL = spatial.Pool((2, 2), (2, 2))
MYRTLE = (C3, RELU, C3, RELU, POOL, C3, RELU, POOL, C3, RELU, POOL, POOL, POOL,
          spatial.Flatten(), spatial.Dense())
GROUP = lambda strides: (spatial.block(strides, projected=True), *(spatial.block(),) * 3)
WIDE = (C3, *GROUP((1, 1)), *GROUP((2, 2)), *GROUP((2, 2)), RELU, *spatial.POOLED)
ATTENTION = (spatial.Dense(), RELU, spatial.Attention(), RELU, *spatial.POOLED)
GRAPH = (spatial.Dense(), RELU, spatial.Aggregate(), spatial.Dense(), RELU, spatial.Aggregate(),
         *spatial.POOLED)

SPATIAL = {
    "CNN, 5 layers, flattened, 32 × 32": Workload(
        (*(C3, RELU) * 5, *spatial.TOP), (100,), square=True, shape=(32, 32, 3)),
    "Myrtle-5, pooled, 32 × 32": Workload(MYRTLE, (6,), square=True, shape=(32, 32, 3)),
    "ResNet, 4 blocks, pooled, 12 × 12": Workload(
        (C3, *(spatial.block(),) * 4, *spatial.POOLED), (4,), shape=(12, 12, 3)),
    "ResNet, 4 blocks, pooled, 16 × 16": Workload(
        (C3, *(spatial.block(),) * 4, *spatial.POOLED), (4,), shape=(16, 16, 3)),
    "WideResNet-28, pooled, 8 × 8": Workload(WIDE, (2,), shape=(8, 8, 3)),
    "attention 1/d, pooled, 64 tokens": Workload(ATTENTION, (12,), shape=(64, 16)),
    "graph, pooled, 24 nodes": Workload(GRAPH, (40,), shape=(24, 8)),
}
"""Networks over positions; what is pooled needs all pairs of positions."""


def inputs(n, shape):
    """Two sets of inputs, float32 values so that both precisions see the same numbers."""
    rng = np.random.default_rng(n)
    return (rng.normal(size=(n, *shape)).astype(np.float32) for _ in range(2))
