"""Networks as plain functions of parameters and one example; they run on old and new JAX alike."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass
class Workload:
    """A network, the shapes of its parameters and of an example, and how many examples."""

    f: object
    shapes: list
    example: tuple
    n: int = 8
    outputs: int = 10

    @property
    def parameters(self):
        return sum(int(np.prod(s)) for s in self.shapes)

    def data(self, dtype="float32"):
        """Parameters in NTK scaling, and two batches."""
        rng = np.random.default_rng(0)
        draw = lambda s: rng.normal(size=s) / np.sqrt(max(np.prod(s[:-1]), 1))
        params = [jnp.asarray(draw(s), dtype) for s in self.shapes]
        return params, *(jnp.asarray(rng.normal(size=(self.n, *self.example)), dtype) for _ in "ab")


def dense(width, outputs, n=16, inputs=64, hidden=3):
    def f(p, x):
        for w, b in zip(p[:-2:2], p[1:-2:2]):
            x = jax.nn.relu(x @ w + b)
        return x @ p[-2] + p[-1]

    sizes = [inputs, *[width] * hidden, outputs]
    shapes = [s for a, b in zip(sizes, sizes[1:]) for s in ((a, b), (b,))]
    return Workload(f, shapes, (inputs,), n, outputs)


def conv(x, w, stride=1):
    return jax.lax.conv_general_dilated(
        x[None], w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]


def convolutional(channels=32, size=16, outputs=10, n=8, pooled=False):
    def f(p, x):
        for w in p[:-1]:
            x = jax.nn.relu(conv(x, w))
        x = x.mean((0, 1)) if pooled else x.reshape(-1)
        return x @ p[-1]

    last = channels if pooled else channels * size * size
    shapes = [(3, 3, 3, channels), *[(3, 3, channels, channels)] * 2, (last, outputs)]
    return Workload(f, shapes, (size, size, 3), n, outputs)


def resnet(channels=16, size=16, outputs=10, n=8):
    def f(p, x):
        x = conv(x, p[0])
        at = 1
        for stage in range(3):
            stride = 1 if stage == 0 else 2
            h = conv(jax.nn.relu(x), p[at], stride)
            h = conv(jax.nn.relu(h), p[at + 1])
            x = conv(x, p[at + 2], stride) + h
            at += 3
        return jax.nn.relu(x).mean((0, 1)) @ p[at]

    shapes, wide = [(3, 3, 3, channels)], channels
    for stage in range(3):
        out = channels * 2**stage
        shapes += [(3, 3, wide, out), (3, 3, out, out), (1, 1, wide, out)]
        wide = out
    return Workload(f, [*shapes, (wide, outputs)], (size, size, 3), n, outputs)


def transformer(tokens=32, d=64, heads=4, outputs=10, n=8):
    def norm(x, g, b):
        c = x - x.mean(-1, keepdims=True)
        return g * c / jnp.sqrt((c * c).mean(-1, keepdims=True) + 1e-5) + b

    def f(p, x):
        h = norm(x, p[0], p[1])
        q, k, v = (jnp.swapaxes((h @ w).reshape(tokens, heads, -1), 0, 1) for w in p[2:5])
        a = jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2) / np.sqrt(d // heads), -1)
        x = x + jnp.swapaxes(a @ v, 0, 1).reshape(tokens, d) @ p[5]
        h = norm(x, p[6], p[7])
        x = x + jax.nn.gelu(h @ p[8]) @ p[9]
        return x.mean(0) @ p[10]

    square = [(d, d)] * 4
    shapes = [(d,), (d,), *square, (d,), (d,), (d, 4 * d), (4 * d, d), (d, outputs)]
    return Workload(f, shapes, (tokens, d), n, outputs)


def graph(nodes=16, features=16, width=64, outputs=10, n=16):
    rng = np.random.default_rng(1)
    adjacency = (rng.random((nodes, nodes)) < 0.3) + np.eye(nodes)
    adjacency = (adjacency / adjacency.sum(1, keepdims=True)).astype(np.float32)

    def f(p, x):
        for w in p[:-1]:
            x = jax.nn.relu(adjacency @ x @ w)
        return x.sum(0) @ p[-1]

    shapes = [(features, width), (width, width), (width, width), (width, outputs)]
    return Workload(f, shapes, (nodes, features), n, outputs)


def recurrent(steps=20, width=128, features=16, outputs=10, n=8):
    def f(p, x):
        step = lambda h, r: (jnp.tanh(h @ p[0] + r @ p[1] + p[2]), None)
        h, _ = jax.lax.scan(step, jnp.zeros(width, x.dtype), x)
        return h @ p[3]

    shapes = [(width, width), (features, width), (width,), (width, outputs)]
    return Workload(f, shapes, (steps, features), n, outputs)


DENSE = ((64, 1), (64, 10), (256, 10), (1024, 1), (1024, 10), (1024, 100), (4096, 1), (4096, 10))

WORKLOADS = {
    **{
        f"dense, width {w}, {o} outputs": lambda w=w, o=o: dense(w, o, n=16 if w < 4096 else 8)
        for w, o in DENSE
    },
    "convolutional, flattened": convolutional,
    "convolutional, pooled": lambda: convolutional(pooled=True),
    "ResNet": resnet,
    "transformer block": transformer,
    "graph network": graph,
    "recurrent, 20 steps": recurrent,
    "ResNet, 100 outputs": lambda: resnet(outputs=100, n=4),
    "ResNet, 1000 outputs": lambda: resnet(outputs=1000, n=2),
    "dense, width 1024, 1000 outputs": lambda: dense(1024, 1000, n=4),
}
