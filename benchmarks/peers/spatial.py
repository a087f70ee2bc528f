"""Networks over positions that both libraries are asked about: convolutions, pooling, attention.

As in ``networks.py`` a network is data, read by two interpreters. Arrays have their channels
last; the plain network takes one example without a batch axis.

Two things are left out because the reference is wrong there: pooling after a locally connected
layer (a sampled network of width 600 is four standard errors from it), and resizing after a
nonlinearity (its kernel is not the kernel of the resized function).
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from peers.networks import Act, activation

WIDTH = 24


@dataclass(frozen=True)
class Dense:
    W: float = 1.0
    b: float | None = None


@dataclass(frozen=True)
class Conv:
    """``kind`` is ``Conv``, ``ConvLocal`` or ``ConvTranspose``."""

    shape: tuple
    strides: tuple | None = None
    padding: str = "SAME"
    W: float = math.sqrt(2)
    b: float | None = None
    kind: str = "Conv"


@dataclass(frozen=True)
class Pool:
    """``kind`` is ``AvgPool`` or ``SumPool``."""

    window: tuple
    strides: tuple | None = None
    padding: str = "VALID"
    kind: str = "AvgPool"
    edges: bool = False


@dataclass(frozen=True)
class Global:
    """Pooling over all positions; ``kind`` is ``GlobalAvgPool`` or ``GlobalSumPool``."""

    kind: str = "GlobalAvgPool"


@dataclass(frozen=True)
class Flatten:
    pass


@dataclass(frozen=True)
class Norm:
    """Normalisation over some of the axes of one example, the last of them channels."""

    axes: tuple
    eps: float = 1e-10


@dataclass(frozen=True)
class Attention:
    """Softmax or identity attention; the 1/n scaling shares its queries and keys."""

    linear: bool = True
    map: str = "SOFTMAX"
    W: tuple = (1.0, 1.0, 1.0)
    b: float | None = None


@dataclass(frozen=True)
class Skip:
    """The sum of a shortcut and a body."""

    body: tuple
    shortcut: tuple = ()


@dataclass(frozen=True)
class Aggregate:
    """Neighbours added up by a fixed graph over the positions."""


@dataclass(frozen=True)
class Network:
    layers: tuple
    input: tuple


def graph(n):
    """A directed graph with loops, entries of any size: from the first index to the second."""
    edges = np.arange(n)[:, None] % 3 != np.arange(n)
    return np.random.default_rng(3).normal(size=(n, n)) * edges


# --- The reference -------------------------------------------------------------------------------


def stax_kernel(network):
    from neural_tangents import stax

    def build(layer):
        match layer:
            case Dense():
                return stax.Dense(WIDTH, W_std=layer.W, b_std=layer.b)
            case Act():
                return getattr(stax, layer.name)(*layer.args)
            case Conv():
                return getattr(stax, layer.kind)(
                    WIDTH, layer.shape, layer.strides, layer.padding, W_std=layer.W, b_std=layer.b
                )
            case Pool():
                options = {"normalize_edges": layer.edges} if layer.kind == "AvgPool" else {}
                return getattr(stax, layer.kind)(
                    layer.window, layer.strides, layer.padding, **options
                )
            case Global():
                return getattr(stax, layer.kind)()
            case Flatten():
                return stax.Flatten()
            case Norm():
                return stax.LayerNorm(axis=tuple(a + 1 for a in layer.axes), eps=layer.eps)
            case Attention():
                key, value, out = layer.W
                return stax.GlobalSelfAttention(
                    WIDTH, WIDTH, WIDTH, n_heads=WIDTH, linear_scaling=layer.linear,
                    attention_mechanism=layer.map, W_key_std=key, W_query_std=key,
                    W_value_std=value, W_out_std=out, b_std=layer.b,
                )
            case Skip():
                branches = [stax.serial(*map(build, b)) if b else stax.Identity()
                            for b in (layer.shortcut, layer.body)]
                return stax.serial(stax.FanOut(2), stax.parallel(*branches), stax.FanInSum())
            case Aggregate():
                return stax.Aggregate(aggregate_axis=1, batch_axis=0, channel_axis=-1)

    kernel_fn = stax.serial(*map(build, network.layers))[2]
    if any(isinstance(x, Aggregate) for x in network.layers):
        n = network.input[0]

        def with_graph(x1, x2, get):
            tile = lambda x: np.broadcast_to(graph(n), (len(x), n, n))
            second = tile(x1 if x2 is None else x2)
            return kernel_fn(x1, x2, get, pattern=(tile(x1), second))

        return with_graph
    return kernel_fn


# --- The plain network ---------------------------------------------------------------------------


def plain(network):
    """``(f, shapes)``: a JAX function of one example, and the shapes of its parameters."""
    import jax
    import jax.numpy as jnp

    dtype = jnp.zeros(()).dtype
    shapes = []

    def parameter(*shape):
        shapes.append(jax.ShapeDtypeStruct(shape, dtype))
        return len(shapes) - 1

    def affine(layer, forward, shape, fan_in):
        """``forward(x, w)`` scaled by its fan-in, and a bias."""
        w = parameter(*shape)
        b = None if layer.b is None else parameter(WIDTH)
        scale = layer.W / math.sqrt(fan_in)

        def run(p, x):
            y = scale * forward(x, p[w])
            return y if b is None else y + layer.b * p[b]

        return run

    def convolution(layer, shape):
        *space, channels = shape
        rank = len(space)
        strides = layer.strides or (1,) * rank
        fan_in = math.prod(layer.shape) * channels
        letters = "HWD"[:rank]
        layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
        padding = layer.padding

        def prepared(x):
            if padding != "CIRCULAR":
                return x, padding
            pads = jax.lax.padtype_to_pads(space, layer.shape, strides, "SAME")
            return jnp.pad(x, [*pads, (0, 0)], mode="wrap"), "VALID"

        if layer.kind == "Conv":
            def forward(x, w):
                x, pads = prepared(x)
                return jax.lax.conv_general_dilated(
                    x[None], w, strides, pads, dimension_numbers=layout
                )[0]
            kernel = (*layer.shape, channels, WIDTH)
        elif layer.kind == "ConvTranspose":
            forward = lambda x, w: jax.lax.conv_transpose(
                x[None], w, strides, padding, dimension_numbers=layout
            )[0]
            kernel = (*layer.shape, channels, WIDTH)
        else:
            def forward(x, w):
                return jax.lax.conv_general_dilated_local(
                    x[None], w, strides, padding, layer.shape, dimension_numbers=layout
                )[0]
            out = jax.eval_shape(
                lambda x: jax.lax.conv_general_dilated_patches(
                    x[None], layer.shape, strides, padding, dimension_numbers=layout
                )[0],
                jax.ShapeDtypeStruct(tuple(shape), dtype),
            ).shape[:-1]
            kernel = (*out, fan_in, WIDTH)
        out = jax.eval_shape(forward, *(jax.ShapeDtypeStruct(s, dtype)
                                        for s in (tuple(shape), kernel))).shape
        return affine(layer, forward, kernel, fan_in), out

    def pooling(layer, shape):
        rank = len(shape) - 1
        window = (*layer.window, 1)
        strides = (*(layer.strides or (1,) * rank), 1)
        total = lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, layer.padding)

        def run(_, x):
            if layer.kind == "SumPool":
                return total(x)
            return total(x) / (total(jnp.ones_like(x)) if layer.edges else math.prod(window))

        return run

    def attention(layer, shape):
        _, channels = shape
        key, value, out = layer.W
        scale = math.sqrt(channels)
        if layer.linear:
            k = q = parameter(channels, WIDTH)
            v, o = parameter(channels, WIDTH), parameter(WIDTH, WIDTH)
        else:
            k, q, v = (parameter(WIDTH, channels, WIDTH) for _ in range(3))
            o = parameter(WIDTH, WIDTH, WIDTH)
        b = None if layer.b is None else parameter(WIDTH)
        weigh = jax.nn.softmax if layer.map == "SOFTMAX" else (lambda g: g)

        def run(p, x):
            if layer.linear:
                keys, values = x @ p[k] * (key / scale), x @ p[v] * (value / scale)
                y = weigh(keys @ keys.T / WIDTH) @ values @ p[o] * (out / math.sqrt(WIDTH))
            else:
                heads = lambda w, std: jnp.einsum("tc,hcd->htd", x, w) * (std / scale)
                logits = jnp.einsum("htd,hsd->hts", heads(p[q], key), heads(p[k], key))
                mixed = weigh(logits / math.sqrt(WIDTH)) @ heads(p[v], value)
                y = jnp.einsum("htd,hdo->to", mixed, p[o]) * (out / WIDTH)
            return y if b is None else y + layer.b * p[b]

        return run

    def build(layer, shape):
        """Return the layer as a function of parameters and input, and the shape it makes."""
        match layer:
            case Dense():
                forward = lambda x, w: x @ w
                return affine(layer, forward, (shape[-1], WIDTH), shape[-1]), (*shape[:-1], WIDTH)
            case Act():
                phi = activation(layer)
                return (lambda _, x: phi(x)), shape
            case Conv():
                return convolution(layer, shape)
            case Global():
                axes = tuple(range(len(shape) - 1))
                reduce = jnp.mean if layer.kind == "GlobalAvgPool" else jnp.sum
                return (lambda _, x: reduce(x, axes)), shape[-1:]
            case Flatten():
                return (lambda _, x: x.reshape(-1)), (math.prod(shape),)
            case Norm():
                def run(_, x):
                    centred = x - x.mean(layer.axes, keepdims=True)
                    variance = (centred**2).mean(layer.axes, keepdims=True)
                    return centred / jnp.sqrt(layer.eps + variance)
                return run, shape
            case Attention():
                return attention(layer, shape), (*shape[:-1], WIDTH)
            case Skip():
                left, _ = chain(layer.shortcut, shape)
                right, out = chain(layer.body, shape)
                return (lambda p, x: left(p, x) + right(p, x)), out
            case Pool():
                run = pooling(layer, shape)
            case Aggregate():
                run = lambda _, x: jnp.asarray(graph(shape[0]).T, x.dtype) @ x
        out = jax.eval_shape(partial(run, None), jax.ShapeDtypeStruct(tuple(shape), dtype)).shape
        return run, out

    def chain(layers, shape):
        runs = []
        for layer in layers:
            run, shape = build(layer, shape)
            runs.append(run)

        def all_of_them(p, x):
            for run in runs:
                x = run(p, x)
            return x

        return all_of_them, shape

    f, _ = chain(network.layers, network.input)
    return f, shapes


# --- The networks --------------------------------------------------------------------------------

RELU, ERF, GELU = Act("Relu"), Act("Erf"), Act("Gelu")
IMAGE, LINE, BOX, TOKENS = (6, 6, 3), (9, 3), (4, 3, 4, 2), (5, 3)
C3, C1 = Conv((3, 3)), Conv((1, 1))
TOP = (Flatten(), Dense())
POOLED = (Global(), Dense())


def block(strides=(1, 1), projected=False):
    shortcut = (Conv((3, 3), strides),) if projected else ()
    return Skip((RELU, Conv((3, 3), strides), RELU, C3), shortcut)


NETWORKS = {
    "flatten": Network((C3, RELU, C3, RELU, *TOP), IMAGE),
    "pooled": Network((C3, RELU, C3, RELU, *POOLED), IMAGE),
    "dense prediction": Network((C3, RELU, C3), IMAGE),
    "valid": Network((Conv((3, 2), padding="VALID"), RELU, Conv((2, 2), padding="VALID"), RELU,
                      *TOP), IMAGE),
    "valid, pooled": Network((Conv((3, 2), padding="VALID"), RELU, *POOLED), IMAGE),
    "strides": Network((Conv((3, 3), (2, 2)), RELU, Conv((3, 3), (2, 1)), RELU, *TOP), IMAGE),
    "strides, pooled": Network((Conv((3, 3), (2, 1)), RELU, C3, RELU, *POOLED), IMAGE),
    "strides, valid, pooled": Network((Conv((3, 3), (2, 2), "VALID"), ERF, *POOLED), IMAGE),
    "circular": Network((Conv((3, 3), padding="CIRCULAR"), RELU, Conv((3, 3), padding="CIRCULAR"),
                         RELU, *POOLED), IMAGE),
    "circular, flatten": Network((Conv((3, 3), padding="CIRCULAR", b=0.2), RELU,
                                  Conv((3, 3), padding="CIRCULAR"), RELU, *TOP), IMAGE),
    "even kernel": Network((Conv((2, 4)), RELU, C3, RELU, *POOLED), IMAGE),
    "1 x 1": Network((C1, RELU, C1, RELU, *POOLED), IMAGE),
    "bias": Network((Conv((3, 3), b=0.3), RELU, Conv((3, 3), b=0.1), RELU, *TOP), IMAGE),
    "bias, pooled": Network((Conv((3, 3), b=0.3), ERF, Conv((3, 3), b=0.1), RELU, *POOLED), IMAGE),
    "gelu, pooled": Network((Conv((3, 3), b=0.3), GELU, C3, *POOLED), IMAGE),
    "average pooling": Network((C3, RELU, Pool((2, 2), (2, 2)), C3, RELU, *TOP), IMAGE),
    "average pooling, pooled": Network((C3, RELU, Pool((2, 2), (2, 2)), C3, RELU, *POOLED), IMAGE),
    "overlapping pooling": Network((C3, RELU, Pool((3, 2), (1, 2), "SAME"), C3, RELU, *TOP), IMAGE),
    "pooling with normalised edges": Network((C3, RELU, Pool((3, 3), (2, 2), "SAME", edges=True),
                                              *TOP), IMAGE),
    "sum pooling": Network((C3, ERF, Pool((2, 3), (2, 1), kind="SumPool"), *TOP), IMAGE),
    "global sum": Network((C3, ERF, Global("GlobalSumPool"), Dense()), IMAGE),
    "pooling first": Network((Pool((2, 2)), C3, RELU, *TOP), IMAGE),
    "residual": Network((C3, block(), block(), *POOLED), IMAGE),
    "residual, flatten": Network((C3, block(), block(), *TOP), IMAGE),
    "resnet": Network((C3, block((2, 2), projected=True), block(), *POOLED), IMAGE),
    "one-dimensional": Network((Conv((3,)), RELU, Conv((4,), (2,)), RELU, *POOLED), LINE),
    "one-dimensional, flatten": Network((Conv((3,), b=0.1), ERF, Conv((5,)), RELU, *TOP), LINE),
    "three-dimensional": Network((Conv((3, 2, 3)), RELU, Conv((2, 2, 2)), RELU, *POOLED), BOX),
    "three-dimensional, flatten": Network((Conv((3, 2, 3), (1, 1, 2)), RELU, *TOP), BOX),
    "transposed": Network((C3, RELU, Conv((3,) * 2, (2, 2), kind="ConvTranspose"), RELU, *TOP),
                          (4, 4, 2)),
    "transposed, pooled": Network((Conv((2, 3), (2, 1), "VALID", kind="ConvTranspose"), RELU,
                                   *POOLED), (4, 4, 2)),
    "local, line": Network((Conv((3,), b=0.2, kind="ConvLocal"), RELU, Conv((3,), (2,), "VALID",
                            kind="ConvLocal"), RELU, *TOP), LINE),
    "three-dimensional, bias": Network((Conv((2, 2, 2), padding="VALID", b=0.4), ERF, *TOP), BOX),
    "local": Network((Conv((3, 3), kind="ConvLocal"), RELU, Conv((3, 3), kind="ConvLocal"), RELU,
                      *TOP), (4, 5, 2)),
    "layer norm over channels": Network((C3, Norm((2,)), RELU, C3, RELU, *POOLED), IMAGE),
    "layer norm over all": Network((C3, Norm((0, 1, 2)), RELU, C3, RELU, *TOP), IMAGE),
    "layer norm over a row": Network((C3, Norm((1, 2)), RELU, C3, RELU, *POOLED), IMAGE),
    "attention": Network((Dense(1.3), RELU, Attention(), RELU, *POOLED), TOKENS),
    "attention, flatten": Network((Dense(1.3, 0.2), RELU, Attention(W=(0.9, 1.2, 1.1), b=0.3),
                                   RELU, *TOP), TOKENS),
    "attention, identity": Network((Dense(), RELU, Attention(map="IDENTITY"), *POOLED), TOKENS),
    "attention, identity, 1/sqrt": Network(
        (Dense(), RELU, Attention(linear=False, map="IDENTITY", W=(0.8, 1.1, 1.2)), *POOLED),
        TOKENS),
    "attention, residual": Network((Dense(), Skip((Attention(),)), Norm((1,)),
                                    Skip((Dense(), RELU, Dense())), *POOLED), TOKENS),
    "graph": Network((Dense(), RELU, Aggregate(), Dense(1.2, 0.1), RELU, *POOLED), TOKENS),
    "graph, nodes": Network((Aggregate(), Dense(), ERF, Aggregate(), Dense()), TOKENS),
}
