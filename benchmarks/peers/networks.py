"""The networks that both libraries are asked about.

A network is data: a tuple of layers. Two short interpreters turn it into the reference library's
``stax`` layers (:func:`stax_kernel`) and into an ordinary JAX function of one example
(:func:`plain`). Nothing is imported at module level that only one environment has.
"""

import math
from dataclasses import dataclass, replace

INPUT_WIDTH = 8


# --- What a network is made of -------------------------------------------------------------------


@dataclass(frozen=True)
class Dense:
    """``W_std / sqrt(fan_in) * x @ W + b_std * b``, or the standard parameterization.

    Under ``"standard"`` the scales belong to the prior and, with the width multipliers ``s`` of
    the input and the output, the layer is ``x @ W / sqrt(s[0]) + b``.
    """

    W: float = 1.0
    b: float | None = None
    width: int = 64
    parameterization: str = "ntk"
    s: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Act:
    """An activation: the reference library's name for it, and its arguments.

    The name ``Numerical`` takes the name of a function without a closed form and the number of
    quadrature points per dimension that the reference library integrates it with.
    """

    name: str
    args: tuple = ()


@dataclass(frozen=True)
class LayerNorm:
    """Subtract the mean over channels and divide by ``sqrt(eps + variance)``; no affine part."""

    eps: float = 1e-12


@dataclass(frozen=True)
class Join:
    """Feed the same input to several branches; ``how`` is ``sum``, ``prod`` or ``concat``."""

    how: str
    branches: tuple[tuple, ...]


@dataclass(frozen=True)
class Network:
    """A named network, and where the reference library's answer can be trusted.

    Attributes
    ----------
    name
        A unique name.
    layers
        The layers, first to last, readout included.
    diagonal
        Whether the diagonal of k(x, x) can be compared. False where the reference is wrong there.
    """

    name: str
    layers: tuple
    diagonal: bool = True


# --- Activations in plain JAX --------------------------------------------------------------------


def activation(act):
    """Return the activation as a function of an array of channels."""
    import jax
    import jax.numpy as jnp

    erf = jax.scipy.special.erf

    def abrelu(a, b):
        return lambda h: a * jnp.minimum(h, 0) + b * jnp.maximum(h, 0)

    def affine_erf(a=1.0, b=1.0, c=0.0):
        return lambda h: a * erf(b * h) + c

    def exp_normalized(gamma=1.0, shift=-1.0):
        # sqrt(q q') exp(gamma (rho + shift)) is the dual of an exponential in units of the
        # root mean square over channels.
        def phi(h):
            unit = jnp.sqrt(jnp.mean(h**2))
            return unit * jnp.exp(math.sqrt(gamma) * h / unit + gamma * (shift - 1) / 2)

        return phi

    def hermite(degree):
        import numpy as np

        descending = np.polynomial.hermite_e.herme2poly([0] * degree + [1])[::-1]
        scale = math.sqrt(math.factorial(degree))
        return lambda h: sum(float(c) * h ** (degree - i) for i, c in enumerate(descending)) / scale

    functions = {
        "Relu": lambda: jax.nn.relu,
        "LeakyRelu": lambda alpha: lambda h: jnp.where(h > 0, h, alpha * h),
        "Abs": lambda: jnp.abs,
        "ABRelu": abrelu,
        "Erf": affine_erf,
        "Sigmoid_like": lambda: lambda h: 0.5 * erf(h / 2.4020563531719796) + 0.5,
        "Sin": lambda a=1.0, b=1.0, c=0.0: lambda h: a * jnp.sin(b * h + c),
        "Cos": lambda a=1.0, b=1.0, c=0.0: lambda h: a * jnp.cos(b * h + c),
        "Rbf": lambda g=1.0: lambda h: math.sqrt(2) * jnp.sin(math.sqrt(2 * g) * h + math.pi / 4),
        "Gelu": lambda: lambda h: jax.nn.gelu(h, approximate=False),
        "Exp": lambda a=1.0, b=1.0: lambda h: a * jnp.exp(b * h),
        "Gaussian": lambda a=1.0, b=-1.0: lambda h: a * jnp.exp(b * h**2),
        "Gabor": lambda: lambda h: jnp.exp(-(h**2)) * jnp.sin(h),
        "Sign": lambda: jnp.sign,
        "ExpNormalized": exp_normalized,
        "Hermite": hermite,
        "Monomial": lambda degree: lambda h: h**degree,
        "RectifiedMonomial": lambda degree: lambda h: (h >= 0) * h**degree,
        "Polynomial": lambda c: lambda h: sum(a * h**i for i, a in enumerate(c)),
        "Numerical": lambda name, _: {
            "tanh": jnp.tanh,
            "silu": jax.nn.silu,
            "softplus": jax.nn.softplus,
        }[name],
    }
    return functions[act.name](*act.args)


# --- The two interpreters ------------------------------------------------------------------------


def stax_kernel(network):
    """Return the reference library's ``kernel_fn`` for a network."""
    from neural_tangents import stax

    joins = {"sum": stax.FanInSum, "prod": stax.FanInProd, "concat": stax.FanInConcat}

    def build(layer):
        match layer:
            case Dense():
                return stax.Dense(
                    layer.width,
                    W_std=layer.W,
                    b_std=layer.b,
                    parameterization=layer.parameterization,
                    s=layer.s,
                )
            case Act(name="Numerical"):
                return stax.ElementwiseNumerical(activation(layer), deg=layer.args[1])
            case Act():
                return getattr(stax, layer.name)(*layer.args)
            case LayerNorm():
                return stax.LayerNorm(eps=layer.eps)
            case Join():
                branches = [
                    stax.serial(*map(build, branch)) if branch else stax.Identity()
                    for branch in layer.branches
                ]
                return stax.serial(
                    stax.FanOut(len(branches)), stax.parallel(*branches), joins[layer.how]()
                )

    _, _, kernel_fn = stax.serial(*map(build, network.layers))
    return kernel_fn


def plain(network, input_width=INPUT_WIDTH):
    """Return ``(f, shapes, stds)``: a JAX function of one example and two matching pytrees.

    ``shapes`` holds the shape of every parameter array as a ``jax.ShapeDtypeStruct`` and ``stds``
    the standard deviation of its entries, which is 1 except in the standard parameterization.
    """
    import operator
    from functools import reduce

    import jax.numpy as jnp

    joins = {
        "sum": lambda parts: reduce(operator.add, parts),
        "prod": lambda parts: reduce(operator.mul, parts),
        "concat": jnp.concatenate,
    }

    def build(layer, width):
        """Return (forward, shapes, stds, output width)."""
        match layer:
            case Dense():
                return dense(layer, width)
            case Act():
                phi = activation(layer)
                return (lambda _, x: phi(x)), (), (), width
            case LayerNorm():
                return (lambda _, x: normalize(x, layer.eps)), (), (), width
            case Join():
                forwards, shapes, stds, widths = zip(*(chain(b, width) for b in layer.branches))
                join = joins[layer.how]
                out = sum(widths) if layer.how == "concat" else widths[0]
                return (
                    lambda params, x: join([f(p, x) for f, p in zip(forwards, params)]),
                    shapes,
                    stds,
                    out,
                )

    def chain(layers, width):
        forwards, shapes, stds = [], [], []
        for layer in layers:
            forward, shape, std, width = build(layer, width)
            forwards.append(forward)
            shapes.append(shape)
            stds.append(std)

        def run(params, x):
            for forward, p in zip(forwards, params):
                x = forward(p, x)
            return x

        return run, tuple(shapes), tuple(stds), width

    forward, shapes, stds, _ = chain(network.layers, input_width)
    return forward, shapes, stds


def dense(layer, fan_in):
    import jax
    import jax.numpy as jnp

    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.zeros(()).dtype)
    width = layer.width
    if layer.parameterization == "standard":
        width *= layer.s[1]
        std = {"w": layer.W / math.sqrt(fan_in / layer.s[0])}
        bias_std = layer.b
        divisor = math.sqrt(layer.s[0])

        def forward(p, x):
            y = x @ p["w"] / divisor if divisor != 1 else x @ p["w"]
            return y if layer.b is None else y + p["b"]

    else:
        std = {"w": 1.0}
        bias_std = 1.0

        def forward(p, x):
            y = layer.W / math.sqrt(fan_in) * (x @ p["w"])
            return y if layer.b is None else y + layer.b * p["b"]

    shapes = {"w": shape(fan_in, width)}
    if layer.b is not None:
        shapes["b"] = shape(width)
        std["b"] = bias_std
    return forward, shapes, std, width


def normalize(x, eps):
    import jax.numpy as jnp

    centred = x - jnp.mean(x)
    return centred / jnp.sqrt(eps + jnp.mean(centred**2))


# --- The networks --------------------------------------------------------------------------------

RELU, ERF, GELU, SIN = Act("Relu"), Act("Erf"), Act("Gelu"), Act("Sin")
SIGMOID = Act("Sigmoid_like")
HE = Dense(math.sqrt(2))


def mlp(act, depth, W=1.0, b=None, readout=None):
    """``depth`` hidden layers of one activation, and a readout with the same scales."""
    layer = Dense(W, b)
    return (layer, act) * depth + (readout or replace(layer, width=1),)


def skip(*body, shortcut=()):
    return Join("sum", (shortcut, body))


def depths():
    for depth in (1, 2, 3, 5, 10, 20, 50):
        # At depth 50 the reference's diagonal is off by 1.5e-7 from its closed form.
        yield Network(f"relu-depth-{depth}", mlp(RELU, depth, math.sqrt(2)), diagonal=depth < 50)
        yield Network(f"erf-depth-{depth}", mlp(ERF, depth, 1.3, 0.1))
    for depth in (1, 3, 10):
        yield Network(f"relu-bias-depth-{depth}", mlp(RELU, depth, 1.4, 0.3))
    for depth in (1, 3):
        yield Network(f"linear-depth-{depth}", (Dense(1.1, 0.2),) * depth + (Dense(0.9, None, 1),))


def activations():
    """Every activation with a closed form in the reference library."""
    one_layer = {
        "leaky-relu": Act("LeakyRelu", (0.1,)),
        "leaky-relu-steep": Act("LeakyRelu", (0.7,)),
        "abs": Act("Abs"),
        "abrelu": Act("ABRelu", (-0.5, 1.3)),
        "erf-affine": Act("Erf", (0.7, 1.6, 0.4)),
        "sigmoid-like": SIGMOID,
        "sin": SIN,
        "sin-affine": Act("Sin", (1.5, 0.8, 0.3)),
        "cos": Act("Cos"),
        "cos-affine": Act("Cos", (0.6, 1.7, -0.4)),
        "rbf": Act("Rbf"),
        "rbf-wide": Act("Rbf", (0.3,)),
        "gelu": GELU,
        "exp": Act("Exp", (0.8, 0.5)),
        "gaussian": Act("Gaussian"),
        "gaussian-scaled": Act("Gaussian", (1.7, -0.4)),
        "gabor": Act("Gabor"),
        "sign": Act("Sign"),
        "exp-normalized": Act("ExpNormalized"),
        "exp-normalized-half": Act("ExpNormalized", (0.5, -0.7)),
        "polynomial-cubic": Act("Polynomial", ((0.5, -1.0, 0.3, 0.2),)),
        "polynomial-quintic": Act("Polynomial", ((0.0, 1.0, 0.0, -0.3, 0.1, 0.02),)),
    }
    for name, act in one_layer.items():
        yield Network(name, mlp(act, 1, 1.2, 0.2))
    for degree in range(6):
        yield Network(f"monomial-{degree}", mlp(Act("Monomial", (degree,)), 1, 0.9, 0.3))
    for degree in range(4):
        # On the diagonal of k(x, x) the reference returns NaN, or numbers that its own Relu denies.
        act = Act("RectifiedMonomial", (degree,))
        yield Network(f"rectified-monomial-{degree}", mlp(act, 1, 0.9, 0.3), diagonal=False)
    for degree in (1, 2, 3, 5):
        # The reference assumes unit variance, which a LayerNorm provides. The fifth polynomial
        # makes so much of the statistics' fluctuation that few channels are too few to read.
        layers = (Dense(1.2, 0.2, 512), LayerNorm(), Act("Hermite", (degree,)), Dense(1.0, 0.1, 1))
        yield Network(f"hermite-{degree}", layers)

    deeper = {
        "leaky-relu": Act("LeakyRelu", (0.2,)),
        "abs": Act("Abs"),
        "sigmoid-like": SIGMOID,
        "sin": SIN,
        "cos": Act("Cos"),
        "rbf": Act("Rbf", (0.7,)),
        "gelu": GELU,
        "gaussian": Act("Gaussian"),
        "gabor": Act("Gabor"),
        "sign": Act("Sign"),
        "exp-normalized": Act("ExpNormalized"),
    }
    for name, act in deeper.items():
        # Each sign takes the square root of the rounding error on the reference's diagonal.
        yield Network(f"{name}-depth-3", mlp(act, 3, 1.3, 0.2), diagonal=name != "sign")
    yield Network("exp-depth-2", mlp(Act("Exp"), 2, 0.4, 0.1))
    yield Network("monomial-2-depth-2", mlp(Act("Monomial", (2,)), 2, 0.7, 0.3))
    yield Network("monomial-3-depth-2", mlp(Act("Monomial", (3,)), 2, 0.6))
    yield Network("polynomial-depth-2", mlp(Act("Polynomial", ((0.3, 1.0, 0.2),)), 2, 0.8, 0.1))
    yield Network("gelu-depth-10", mlp(GELU, 10, 1.5, 0.1))
    yield Network("sin-depth-10", mlp(SIN, 10, 1.2))
    mixed = (HE, RELU, Dense(1.1, 0.2), ERF, Dense(1.3), GELU, Dense(0.8, 0.5), SIN, Dense(1.0))
    yield Network("mixed-activations", (*mixed, Act("Abs"), Dense(0.7, 0.1, 1)))


def quadratures():
    """Smooth functions without a closed form, where the reference integrates on a grid."""
    for name in ("tanh", "silu", "softplus"):
        act = Act("Numerical", (name, 240))
        yield Network(name, mlp(act, 1, 0.7, 0.2))
    yield Network("tanh-depth-3", mlp(Act("Numerical", ("tanh", 240)), 3, 0.8, 0.1))


def scales():
    relu, erf = RELU, ERF
    yield Network("relu-small-weights", mlp(relu, 3, 0.3))
    yield Network("relu-large-weights", mlp(relu, 3, 3.0, 0.01))
    yield Network("relu-large-bias", mlp(relu, 3, 0.8, 2.0))
    yield Network("erf-chaotic", mlp(erf, 4, 4.0))
    yield Network("erf-ordered", mlp(erf, 4, 0.5, 0.5))
    graded = (Dense(0.5), relu, Dense(1.0, 0.3), relu, Dense(2.0), relu, Dense(1.5, 1.0, 1))
    yield Network("relu-graded-scales", graded)
    middle = (HE, relu, Dense(1.4, 0.7), relu, replace(HE, width=1))
    yield Network("relu-bias-in-the-middle", middle)


def residuals():
    out = Dense(1.0, None, 1)
    yield Network("residual", (HE, skip(RELU, HE), RELU, out))
    yield Network("residual-last", (HE, skip(RELU, HE), out))
    yield Network("residual-bias", (Dense(1.2, 0.3), skip(RELU, Dense(1.2, 0.3)), RELU, out))
    for blocks in (3, 10):
        block = skip(RELU, Dense(0.8, 0.1))
        yield Network(f"residual-{blocks}-blocks", (HE, *(block,) * blocks, RELU, out))
    two = skip(RELU, HE, RELU, Dense(0.7))
    yield Network("residual-two-layer-body", (HE, two, two, two, RELU, out))
    projected = skip(RELU, Dense(1.1, 0.2), shortcut=(Dense(0.9),))
    yield Network("residual-projected", (HE, projected, projected, RELU, out))
    downward = skip(RELU, Dense(1.1, None, 32), shortcut=(Dense(0.9, 0.1, 32),))
    yield Network("residual-projected-narrower", (HE, downward, RELU, out))
    yield Network("residual-erf", (Dense(1.3, 0.1), *(skip(ERF, Dense(1.0, 0.2)),) * 4, ERF, out))
    yield Network("residual-gelu", (HE, *(skip(GELU, Dense(1.2, 0.2)),) * 4, GELU, out))
    three = Join("sum", ((), (RELU, Dense(0.8)), (ERF, Dense(0.6, 0.2))))
    yield Network("residual-three-branches", (HE, three, three, RELU, out))
    two_dense = Join("sum", ((Dense(0.8),), (Dense(0.6, 0.2),)))
    yield Network("sum-of-two-layers", (HE, RELU, two_dense, RELU, out))
    parallel = Join("sum", ((Dense(1.1), RELU, Dense(0.8)), (Dense(0.9, 0.2), SIN, Dense(1.2))))
    yield Network("parallel-towers", (parallel, RELU, out))
    nested = skip(RELU, HE, skip(RELU, Dense(0.5)), RELU, Dense(0.9))
    yield Network("residual-nested", (HE, nested, RELU, out))


def gates():
    out = Dense(1.1, 0.2, 1)
    value, gate = Dense(1.2, 0.1), Dense(0.9, 0.3)

    def gated(*branches):
        return Join("prod", branches)

    glu = gated((value,), (gate, SIGMOID))
    yield Network("glu", (glu, out))
    yield Network("glu-after-relu", (HE, RELU, glu, out))
    yield Network("glu-depth-3", (glu, glu, glu, out))
    yield Network("geglu", (HE, RELU, gated((value,), (gate, GELU)), out))
    yield Network("reglu", (HE, ERF, gated((value,), (gate, RELU)), out))
    yield Network("bilinear", (gated((value,), (gate,)), out))
    yield Network("bilinear-depth-3", (*(gated((value,), (gate,)),) * 3, out))
    yield Network("product-of-activations", (HE, RELU, gated((value, SIN), (gate, ERF)), out))
    yield Network("product-of-deep-branches", (gated((HE, RELU, value, RELU), (gate, ERF)), out))
    three = gated((value,), (gate, SIGMOID), (Dense(0.7), Act("Cos")))
    yield Network("product-of-three", (HE, RELU, three, out))
    residual = skip(RELU, HE, gated((value,), (gate, SIGMOID)), Dense(0.6))
    yield Network("residual-gated", (HE, residual, residual, RELU, out))


def concatenations():
    out = Dense(1.1, 0.2, 1)
    a, b = Dense(1.2, 0.1), Dense(0.9, 0.3)

    def concat(*branches):
        return Join("concat", branches)

    yield Network("concat", (concat((a, RELU), (b, ERF)), out))
    narrow = replace(b, width=32)
    yield Network("concat-unequal-widths", (concat((a, RELU), (narrow, ERF)), out))
    yield Network("concat-gaussians", (HE, RELU, concat((a,), (b,)), out))
    same_layer = (HE, concat((RELU, a), (SIN, narrow)), out)
    yield Network("concat-two-views-of-one-layer", same_layer)
    three = concat((a, RELU), (narrow, GELU), (replace(a, width=16), Act("Cos")))
    yield Network("concat-three", (HE, RELU, three, out))
    yield Network("concat-then-deep", (concat((a, RELU), (narrow, ERF)), HE, RELU, HE, ERF, out))
    yield Network("concat-input", (concat((), (a, RELU)), out))
    dense_block = concat((a,), (narrow, RELU))
    yield Network("concat-gaussian-and-relu", (HE, RELU, dense_block, HE, RELU, out))


def normalizations():
    out = Dense(1.1, 0.2, 1)
    norm = LayerNorm()
    yield Network("layernorm-relu", (Dense(1.3, 0.2), norm, RELU, out))
    yield Network("layernorm-erf", (Dense(1.3, 0.2), norm, ERF, out))
    yield Network("layernorm-last", (HE, RELU, Dense(1.2, 0.1), norm, out))
    yield Network("layernorm-large-eps", (Dense(1.3, 0.2), LayerNorm(0.1), GELU, out))
    yield Network("layernorm-depth-5", (*(Dense(1.3, 0.2), norm, RELU) * 5, out))
    yield Network("layernorm-linear", (*(Dense(1.3, 0.2), norm) * 2, out))
    pre = skip(norm, RELU, Dense(0.9, 0.1))
    yield Network("layernorm-residual", (HE, pre, pre, pre, norm, RELU, out))
    gated = Join("prod", ((Dense(1.2), norm), (Dense(0.9, 0.3), SIGMOID)))
    yield Network("layernorm-gated", (HE, RELU, gated, out))


def standard():
    """The standard parameterization, whose tangent kernel depends on the actual widths."""

    def layer(W, b, width, s=(1, 1)):
        return Dense(W, b, width, "standard", s)

    he = math.sqrt(2)
    yield Network("standard-relu", (layer(he, None, 64), RELU, layer(he, None, 1)))
    deep = (layer(he, None, 64), RELU, layer(1.2, None, 32), RELU, layer(0.9, None, 48), RELU)
    yield Network("standard-relu-unequal-widths", (*deep, layer(1.0, None, 1)))
    erf = (layer(1.3, 0.2, 64), ERF, layer(1.1, 0.4, 128), ERF, layer(0.8, 0.1, 1))
    yield Network("standard-erf-bias", erf)
    block = skip(RELU, layer(0.9, 0.1, 64))
    yield Network("standard-residual", (layer(he, 0.2, 64), block, block, RELU, layer(1, None, 1)))
    scaled = (layer(1.3, 0.2, 16, (1, 4)), GELU, layer(1.1, 0.1, 16, (4, 2)), GELU)
    yield Network("standard-width-multipliers", (*scaled, layer(0.9, 0.3, 1, (2, 1))))
    mixed = (Dense(1.3, 0.2), RELU, layer(1.1, 0.4, 32), RELU, Dense(0.9, None, 1))
    yield Network("standard-inside-ntk", mixed)


FAMILIES = (
    depths,
    activations,
    quadratures,
    scales,
    residuals,
    gates,
    concatenations,
    normalizations,
    standard,
)
NETWORKS = {network.name: network for family in FAMILIES for network in family()}
