"""The ready-made networks: their limits, and that they are the networks of the papers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from limit.sampling import assert_agree, sampled
from widelimit import nn
from widelimit.models import describe
from widelimit.nn import zoo

KEY = jax.random.key(11)
RELU, ERF = jax.nn.relu, jax.lax.erf
SMALL, MEDIUM, TOKENS = (4, 4, 3), (6, 6, 3), (3, 4)
GRAPH = np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]], float)
EDGES = np.stack(np.nonzero(GRAPH))


def images(*shape):
    return lambda rng: rng.normal(size=(2, *shape))


def graphs(graph):
    return lambda rng: (rng.normal(size=(2, 4, 3)), np.stack([graph, graph]))


def characters(rng):
    return rng.integers(0, 16, (2, 3))


NETWORKS = {
    "lenet": (lambda n, **o: zoo.lenet((12, 12, 1), 16, n // 16, activation=ERF, **o),
              images(12, 12, 1)),
    "myrtle": (lambda n, **o: zoo.myrtle(5, 3, 16, n, **o), images(*SMALL)),
    "resnet": (lambda n, **o: zoo.resnet(3, 16, n, blocks=(1, 1), **o), images(*SMALL)),
    "wide resnet": (lambda n, **o: zoo.wide_resnet(
        10, n // 16, 3, 16, stem=n, **o), images(*SMALL)),
    "convnext": (lambda n, **o: zoo.convnext(
        3, 16, n, depths=(1,), patch=2, window=3, activation=RELU, **o), images(*MEDIUM)),
    "vit": (lambda n, **o: zoo.vit((4, 4, 3), 16, n, 1, patch=2, heads=2, activation=RELU, **o),
            images(*SMALL)),
    "character transformer": (lambda n, **o: zoo.character_transformer(
        16, 3, n, 1, activation=RELU, **o), characters),
    "rnn, last": (lambda n, **o: zoo.RNN(4, 16, n, activation=ERF, **o), images(*TOKENS)),
    "rnn, mean": (lambda n, **o: zoo.RNN(4, 16, n, readout="mean", activation=ERF, **o),
                  images(*TOKENS)),
    "rnn, each": (lambda n, **o: zoo.RNN(4, 16, n, readout="each", activation=ERF, **o),
                  images(*TOKENS)),
    "gcn": (lambda n, **o: zoo.GCN(3, 16, n, 3, **o), graphs(GRAPH)),
    "gcn, pooled, edges": (lambda n, **o: zoo.GCN(3, 16, n, 2, pool=True, **o), graphs(EDGES)),
}
QUICK = {"myrtle", "rnn, last", "gcn", "gcn, pooled, edges"}


@pytest.mark.parametrize("name", [
    pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NETWORKS
])
def test_limit_agrees_with_sampled_networks(name, rng):
    build, inputs = NETWORKS[name]
    model = eqx.filter_eval_shape(lambda: build(64, weight_std=1.2, bias_std=0.2, key=KEY))
    d, x = describe(model), inputs(rng)
    # Scales and offsets of normalisations are constants; they stay so here.
    random = [p.std > 0 for p in d.priors]
    limit = wl.kernel(model, trainable=lambda name, _: random[d.names.index(name)]).both(x)
    f = lambda p, x: d.apply([w if r else jnp.full(w.shape, prior.mean) for w, r, prior in zip(
        p, random, d.priors)], x)
    assert_agree(limit, over_batch(f, d.arrays, x))


def over_batch(f, params, x):
    """Sampled kernels of inputs that may be tuples: the index of an example stands for it."""
    parts = [jnp.asarray(part) for part in (x if isinstance(x, tuple) else (x,))]
    one = lambda p, i: f(p, tuple(part[i] for part in parts) if len(parts) > 1 else parts[0][i])
    return sampled(one, params, jnp.arange(len(parts[0])))


@pytest.mark.parametrize("name", NETWORKS)
def test_finite_networks_run(name, rng):
    build, inputs = NETWORKS[name]
    model, x = build(32, key=KEY), inputs(rng)
    y = jax.vmap(model)(*x) if isinstance(x, tuple) else jax.vmap(model)(x)
    assert y.shape[-1] == 16
    assert jnp.isfinite(y).all()
    assert float(y.std()) > 0


# --- The same networks by hand -------------------------------------------------------------------
# Smooth ones: at equal inputs a kink turns rounding into relative errors of 1e-9.

N = 32
LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv(w, x, strides=1):
    y = jax.lax.conv_general_dilated(x[None], w, (strides,) * 2, "SAME", dimension_numbers=LAYOUT)
    return y[0] / np.sqrt(np.prod(w.shape[:3]))


def halve(x):
    h, w, c = x.shape
    return x.reshape(h // 2, 2, w // 2, 2, c).mean((1, 3))


def dense(w, x):
    return x @ w / np.sqrt(len(w))


def myrtle5(p, x):
    h = halve(ERF(conv(p[1], ERF(conv(p[0], x)))))
    h = halve(ERF(conv(p[2], h)))
    return dense(p[4], ERF(conv(p[3], h)).mean((0, 1)))


def wide_resnet10(p, x):
    h = conv(p[0], x)
    for i, strides in ((1, 1), (4, 2), (7, 2)):
        h = ERF(h)
        h = conv(p[i], h, strides) + conv(p[i + 2], ERF(conv(p[i + 1], h, strides)))
    return dense(p[10], ERF(h).mean((0, 1)))


def gcn(p, x):
    a = GRAPH + np.eye(4)
    a = a / np.sqrt(np.outer(a.sum(0), a.sum(1)))
    return dense(p[1], a @ ERF(dense(p[0], a @ x)))


def rnn(p, x):
    h = ERF(dense(p[1], x[0]))
    for t in (1, 2):
        h = ERF(dense(p[0], h) + dense(p[1], x[t]))
    return dense(p[2], h)


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float64)


def block(a, b):
    return [struct(1, 1, a, b), struct(3, 3, a, b), struct(3, 3, b, b)]


SAME = {
    "myrtle": (
        zoo.myrtle(5, 3, 10, N, activation=ERF, key=KEY), images(*SMALL), myrtle5,
        [struct(3, 3, 3, N), *[struct(3, 3, N, N)] * 3, struct(N, 10)],
    ),
    "wide resnet": (
        zoo.wide_resnet(10, 2, 3, 10, activation=ERF, key=KEY), images(*SMALL), wide_resnet10,
        [struct(3, 3, 3, 16), *block(16, 32), *block(32, 64), *block(64, 128),
         struct(128, 10)],
    ),
    "gcn": (zoo.GCN(3, 10, N, activation=ERF, key=KEY), graphs(GRAPH), gcn,
            [struct(3, N), struct(N, 10)]),
    "gcn, edges": (zoo.GCN(3, 10, N, activation=ERF, key=KEY), graphs(EDGES), gcn,
                   [struct(3, N), struct(N, 10)]),
    "rnn": (zoo.RNN(4, 10, N, activation=ERF, key=KEY), images(*TOKENS), rnn,
            [struct(N, N), struct(4, N), struct(N, 10)]),
}


@pytest.mark.parametrize("name", SAME)
def test_kernel_is_that_of_the_network_by_hand(name, rng):
    model, inputs, f, params = SAME[name]
    x = inputs(rng)
    ours = wl.kernel(model).both(x)
    plain = wl.kernel(f, params).both(x[0] if isinstance(x, tuple) else x)
    for a, b in zip(ours, plain):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13 * float(jnp.abs(b).max()))


def test_networks_have_the_layers_of_their_papers():
    make = lambda f: eqx.filter_eval_shape(f)
    convolutions = lambda m: [x for x in jax.tree.leaves(m, is_leaf=is_layer) if is_layer(x)]
    is_layer = lambda x: isinstance(x, nn.Conv)
    wide = make(lambda: zoo.wide_resnet(28, 10, 3, 10, key=KEY))
    assert len(convolutions(wide)) == 25 + 3
    weights = sum(np.prod(a.shape) for a in describe(wide).arrays)
    assert weights == pytest.approx(36.5e6, rel=2e-3)
    plain = make(lambda: zoo.resnet(3, 10, key=KEY))
    assert sum(c.window == (3, 3) for c in convolutions(plain)) == 17
    for depth in (5, 7, 10):
        model = make(lambda d=depth: zoo.myrtle(d, 3, 10, 8, key=KEY))
        assert len(convolutions(model)) + 1 == depth
    tiny = make(lambda: zoo.convnext(3, 1000, 96, key=KEY))
    assert sum(np.prod(a.shape) for a in describe(tiny).arrays) == pytest.approx(28.6e6, rel=1e-2)
    le = make(lambda: zoo.lenet((28, 28, 1), 10, 6, key=KEY))
    shapes = [a.shape for a in describe(le).arrays]
    assert shapes == [(5, 5, 1, 6), (5, 5, 6, 16), (120, 400), (84, 120), (10, 84)]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: zoo.myrtle(6, 3, 10, 8, key=KEY), "depth is one of 5, 7, 10"),
        (lambda: zoo.wide_resnet(27, 1, 3, 10, key=KEY), r"6 n \+ 4"),
        (lambda: zoo.vit((5, 4, 3), 10, 8, 1, patch=2, key=KEY), "do not divide"),
        (lambda: zoo.RNN(3, 10, 8, readout="first", key=KEY), "'last', 'mean' or 'each'"),
        (lambda: zoo.GCN(3, 10, 8, 0, key=KEY), "depth is at least 1"),
        (lambda: zoo.lenet((8, 8, 1), 10, 6, key=KEY), "at least 12 × 12"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("name", ["gcn", "rnn"])
def test_single_precision_gives_the_same_kernels(name, rng):
    model, inputs, _, _ = SAME[name]
    x = inputs(rng)
    low = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), x)
    for a, b in zip(wl.kernel(model).both(low), wl.kernel(model).both(x)):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=2e-6 * float(jnp.abs(b).max()))
