# ruff: noqa: E501
"""Functions of parameters and one example, and a batch of inputs: a row is a test of every method.

Together they hold every primitive that has a rule, weights used in several ways, and control flow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

ZOO: dict[str, Callable[[], "Case"]] = {}


@dataclass
class Case:
    f: Callable
    params: Any
    x: Any
    backwards: bool = True


def case(make):
    ZOO[make.__name__] = make
    return make


def normal(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    out = [jnp.asarray(rng.normal(size=s)) for s in shapes]
    return out if len(out) > 1 else out[0]


def add(name, f, shapes, inputs=(4,), n=5):
    """A case with Gaussian parameters and inputs."""
    def make():
        params = jax.tree.map(
            lambda s: normal(s, seed=hash(s) % 1000), shapes, is_leaf=lambda s: isinstance(s, tuple)
        )
        params = [p + 0.1 * k for k, p in enumerate(params)] if isinstance(params, list) else params
        return Case(f, params, normal((n, *inputs), seed=7))
    ZOO[name] = make


# ---------------------------------------------------------------- dense layers

add("linear", lambda p, x: p[0] @ x, [(3, 4)])
add("linear_scalar_output", lambda p, x: p[0] @ x, [(4,)])
add("row_vector", lambda p, x: x @ p[0] + p[1], [(4, 3), (3,)])
add("mlp", lambda p, x: p[2] @ jnp.tanh(p[1] @ jax.nn.relu(p[0] @ x)) + p[3],
    [(6, 4), (5, 6), (3, 5), (3,)])
add("mlp_gelu_scaled", lambda p, x: p[1] @ jax.nn.gelu(p[0] @ x / 2) / np.sqrt(6), [(6, 4), (2, 6)])
add("transposed_weight", lambda p, x: p[0].T @ jnp.tanh(p[0] @ x), [(6, 4)])
add("tied_autoencoder", lambda p, x: p[0].T @ jax.nn.sigmoid(p[0] @ x + p[1]) + p[2],
    [(3, 4), (3,), (4,)])
add("shared_three_times", lambda p, x: p[0] @ jnp.sin(p[0] @ jnp.sin(p[0] @ x)), [(4, 4)])
add("shared_and_squared", lambda p, x: (p[0] @ p[0]) @ x, [(4, 4)])
add("weight_times_own_transpose", lambda p, x: (p[0] @ p[0].T) @ x, [(4, 3)])
add("gram_of_weight_trace", lambda p, x: jnp.sum(p[0] * p[0]) * x, [(4, 3)])
add("quadratic_form", lambda p, x: x @ p[0] @ x, [(4, 4)])
add("bilinear", lambda p, x: jnp.einsum("i,kij,j->k", x, p[0], jnp.cos(x)), [(3, 4, 4)])
add("product_of_weights", lambda p, x: p[2] @ (p[0] @ p[1]) @ x, [(5, 3), (3, 4), (2, 5)])
add("low_rank_update", lambda p, x: (p[0] + p[1] @ p[2]) @ x, [(3, 4), (3, 2), (2, 4)])
add("einsum_heads", lambda p, x: jnp.einsum("hdi,i->hd", p[0], x), [(2, 3, 4)])
add("gated", lambda p, x: p[2] @ (jax.nn.silu(p[0] @ x) * (p[1] @ x)), [(6, 4), (6, 4), (2, 6)])
add("residual", lambda p, x: x + p[1] @ jnp.tanh(p[0] @ x), [(6, 4), (4, 6)])
add("matrix_output", lambda p, x: jnp.outer(p[0] @ x, p[1] @ x), [(2, 4), (3, 4)])
add("no_dependence_on_x", lambda p, x: jnp.tanh(p[0]) + 0 * x[:3], [(3,)])
add("part_of_output_constant", lambda p, x: jnp.concatenate([p[0] @ x, x]), [(2, 4)])
add("outputs_shared_over_positions", lambda p, x: jax.vmap(lambda r: p[1] @ jnp.tanh(p[0] @ r))(x),
    [(5, 2), (3, 5)], (4, 2))
add("mean_over_positions", lambda p, x: (jnp.tanh(x @ p[0]) @ p[1]).mean(0), [(2, 5), (5, 3)], (4, 2))
add("unused_parameter", lambda p, x: p[0] @ x, [(3, 4), (7,)])

# ---------------------------------------------------------------- reparameterised weights

add("weight_norm", lambda p, x: (p[1] * p[0] / jnp.linalg.norm(p[0], axis=1, keepdims=True)) @ x,
    [(3, 4), (3, 1)])
add("exponential_weights", lambda p, x: jnp.exp(p[0]) @ x, [(3, 4)])
add("softplus_weights", lambda p, x: jax.nn.softplus(p[0]) @ x, [(3, 4)])
add("masked_weight", lambda p, x: (p[0] * (np.arange(12).reshape(3, 4) % 2)) @ x, [(3, 4)])
add("triangular_weight", lambda p, x: jnp.tril(p[0]) @ x, [(4, 4)])
add("where_weight", lambda p, x: jnp.where(p[0] > 0, p[0], 0.1 * p[1]) @ x, [(3, 4), (3, 4)])
add("choice_by_example", lambda p, x: jnp.where(x[0] > 0, p[0], p[1]) @ x, [(3, 4), (3, 4)])
add("weight_scaled_by_example", lambda p, x: (p[0] * x) @ jnp.cos(x), [(3, 4)])
add("symmetrised", lambda p, x: (p[0] + p[0].T) @ x, [(4, 4)])
add("cumulative_weight", lambda p, x: jnp.cumsum(p[0], axis=1) @ x, [(3, 4)])
add("sorted_weight", lambda p, x: jnp.sort(p[0], axis=1) @ x, [(3, 4)])
add("fourier_weight", lambda p, x: jnp.fft.rfft(p[0]).real @ x[:3], [(3, 4)])
add("solve", lambda p, x: jnp.linalg.solve(p[0] @ p[0].T + jnp.eye(4), x), [(4, 4)])
add("hypernetwork", lambda p, x: (jnp.tanh(p[0] @ p[1])).reshape(3, 4) @ x, [(12, 5), (5,)])
add("complex_inside", lambda p, x: jnp.abs((p[0] + 1j * p[1]) @ x), [(3, 4), (3, 4)])

# ---------------------------------------------------------------- arrangement

add("reshaped", lambda p, x: p[0].reshape(3, 4) @ x, [(2, 6)])
add("reshaped_across", lambda p, x: p[0].reshape(4, 3).T @ x + p[0].reshape(3, 4) @ x, [(2, 6)])
add("two_views", lambda p, x: p[0] @ x + p[0].reshape(4, 3).T @ jnp.sin(x), [(3, 4)])
add("split_heads", lambda p, x: jnp.sin((p[0] @ x).reshape(2, 3)).sum(0), [(6, 4)])
add("moved_axes", lambda p, x: jnp.einsum("kji,i->jk", jnp.moveaxis(p[0], 0, 2), x), [(4, 3, 2)])
add("sliced", lambda p, x: p[0][1:4, ::2] @ x[:2] + p[0][0, 3], [(5, 4)])
add("sliced_and_shared", lambda p, x: p[0][:3] @ x + p[0][2:] @ jnp.sin(x), [(5, 4)])
add("packed_projections", lambda p, x: sum(w @ jnp.sin((k + 1) * x)
    for k, w in enumerate(jnp.split(p[0], 3))), [(6, 4)])
add("flat_parameters", lambda p, x: p[0][15:].reshape(2, 3) @ jnp.tanh(
    p[0][:12].reshape(3, 4) @ x + p[0][12:15]), [(21,)])
add("padded", lambda p, x: jnp.pad(p[0], ((0, 1), (1, 0))) @ x, [(2, 3)])
add("padded_inside", lambda p, x: lax.pad(p[0], 0.0, ((1, 0, 1), (0, 1, 0))) @ x, [(2, 3)])
add("padded_negative", lambda p, x: lax.pad(p[0], 0.0, ((0, 0, 0), (-1, 0, 0))) @ x, [(2, 5)])
add("concatenated", lambda p, x: jnp.concatenate([p[0], p[1]], 1) @ x, [(3, 1), (3, 3)])
add("stacked", lambda p, x: jnp.stack(p, 0) @ x, [(4,), (4,), (4,)])
add("reversed", lambda p, x: p[0][::-1, ::-1] @ x, [(3, 4)])
add("rolled", lambda p, x: jnp.roll(p[0], 1, axis=1) @ x, [(3, 4)])
add("repeated", lambda p, x: jnp.repeat(p[0], 2, axis=0) @ x, [(2, 4)])
add("broadcast_weight", lambda p, x: jnp.broadcast_to(p[0], (3, 4)) @ x, [(4,)])
add("row_sums", lambda p, x: p[0].sum(0) * x + p[0].mean(), [(3, 4)])
add("diagonal_of_weight", lambda p, x: jnp.diag(p[0]) * x, [(4, 4)])
add("size_one_axes", lambda p, x: (p[0] @ x[:, None])[..., 0].squeeze(), [(1, 3, 4)])
add("wide_circulant", lambda p, x: p[0][(np.arange(4)[:, None] - np.arange(4)) % 4] @ x, [(4,)])
add("max_of_weights", lambda p, x: jnp.max(p[0], axis=0) * x, [(3, 4)])
add("dynamic_slice", lambda p, x: lax.dynamic_slice(p[0], (jnp.argmax(x), 1), (3, 2)) @ x[:2],
    [(5, 4)])
add("dynamic_update", lambda p, x: lax.dynamic_update_slice(p[0], p[1], (1, 1)) @ x,
    [(3, 4), (2, 2)])
add("scattered", lambda p, x: jnp.zeros((3, 4)).at[np.array([0, 2]), np.array([1, 3])].set(p[0]) @ x,
    [(2,)])
add("expert_by_example", lambda p, x: p[0][jnp.argmax(x)] @ x, [(4, 3, 4)])

# ---------------------------------------------------------------- convolutions


def conv(x, w, strides=(1,), padding="SAME", numbers=("NHC", "HIO", "NHC"), **kw):
    return lax.conv_general_dilated(x[None], w, strides, padding, dimension_numbers=numbers, **kw)[0]


IMAGE = ("NHWC", "HWIO", "NHWC")
add("conv1d", lambda p, x: jnp.tanh(conv(x, p[0])).sum(0) @ p[1], [(3, 2, 4), (4, 2)], (6, 2))
add("conv_positions_out", lambda p, x: conv(x, p[0]), [(3, 2, 2)], (4, 2))
add("conv_strided_dilated", lambda p, x: conv(x, p[0], (2,), "VALID", rhs_dilation=(2,)).mean(0),
    [(3, 2, 4)], (9, 2))
add("conv_transposed", lambda p, x: conv(x, p[0], (1,), [(2, 1)], lhs_dilation=(2,)).mean(0),
    [(3, 2, 4)], (5, 2))
add("conv_grouped", lambda p, x: jnp.sin(conv(x, p[0], feature_group_count=2)).mean(0),
    [(3, 2, 6)], (5, 4))
add("conv_depthwise", lambda p, x: jnp.sin(conv(x, p[0], feature_group_count=4)).mean(0),
    [(3, 1, 4)], (5, 4))
add("conv_cropping", lambda p, x: conv(x, p[0], (1,), [(-1, 1)]).sum(0), [(3, 2, 4)], (6, 2))
add("cnn2d_flat", lambda p, x: p[1] @ jax.nn.relu(
    conv(x, p[0], (1, 2), numbers=IMAGE)).reshape(-1), [(3, 3, 2, 3), (2, 36)], (4, 6, 2))
add("cnn2d_pooled_shared", lambda p, x: jnp.mean(conv(jnp.tanh(conv(x, p[0], (1, 1), numbers=IMAGE)),
    p[0], (1, 1), numbers=IMAGE), (0, 1)), [(3, 3, 2, 2)], (4, 3, 2))
add("conv_channels_first", lambda p, x: conv(x, p[0], (1, 1), "SAME", ("NCHW", "OIHW", "NCHW")).sum(
    (1, 2)), [(4, 2, 3, 2)], (2, 4, 3))
add("max_pooled", lambda p, x: lax.reduce_window(conv(x, p[0]), -jnp.inf, lax.max, (2, 1), (2, 1),
    "VALID").sum(0), [(3, 2, 3)], (6, 2))
add("average_pooled", lambda p, x: lax.reduce_window(jnp.sin(conv(x, p[0])), 0.0, lax.add, (2, 1),
    (2, 1), "VALID").sum(0), [(3, 2, 3)], (6, 2))
add("weight_convolved", lambda p, x: conv(p[0], p[1]).sum(0) * x[:3], [(5, 2), (3, 2, 3)])

# ---------------------------------------------------------------- normalisation, attention


def layer_norm(x, scale, offset):
    c = x - x.mean(-1, keepdims=True)
    return scale * c / jnp.sqrt((c * c).mean(-1, keepdims=True) + 1e-5) + offset


add("layer_norm", lambda p, x: p[3] @ layer_norm(p[0] @ x, p[1], p[2]), [(6, 4), (6,), (6,), (2, 6)])


def attention(p, x):
    q, k, v = (jnp.einsum("td,hde->hte", x, w) for w in p[:3])
    a = jax.nn.softmax(q @ k.transpose(0, 2, 1) / np.sqrt(3), axis=-1)
    return jnp.einsum("hte,hed->td", a @ v, p[3])


def block(p, x):
    x = x + attention(p, layer_norm(x, p[4], p[5]))
    return (x + jax.nn.gelu(layer_norm(x, p[4], p[5]) @ p[6]) @ p[7]).mean(0)


add("attention", lambda p, x: attention(p, x), [(2, 4, 3), (2, 4, 3), (2, 4, 3), (2, 3, 4)], (3, 4))
add("transformer_block", block,
    [(2, 4, 3), (2, 4, 3), (2, 4, 3), (2, 3, 4), (4,), (4,), (4, 8), (8, 4)], (3, 4))
add("graph_network", lambda p, x: (lambda a: jnp.tanh(a @ jnp.tanh(a @ x @ p[0]) @ p[1]).sum(0))(
    jax.nn.softmax(x @ x.T)), [(3, 5), (5, 2)], (4, 3))
add("log_softmax_output", lambda p, x: jax.nn.log_softmax(p[0] @ x), [(5, 4)])


@case
def embedding():
    def f(p, tokens):
        return jnp.tanh(p["table"][tokens] @ p["w"]).sum(0)

    tokens = np.random.default_rng(0).integers(0, 6, size=(5, 7))
    return Case(f, {"table": normal((6, 3)), "w": normal((3, 2), seed=1)}, jnp.asarray(tokens))


@case
def tied_embedding():
    def f(p, tokens):
        h = jnp.tanh(p["table"][tokens] @ p["w"]).mean(0)
        return p["table"] @ h

    tokens = np.random.default_rng(0).integers(0, 6, size=(4, 5))
    return Case(f, {"table": normal((6, 3)), "w": normal((3, 3), seed=1)}, jnp.asarray(tokens))


@case
def embedding_out_of_range():
    def f(p, tokens):
        clipped = jnp.take(p, tokens, axis=0, mode="clip")
        filled = jnp.take(p, tokens, axis=0, mode="fill", fill_value=0.0)
        return clipped.sum(0) + filled.sum(0) ** 2

    return Case(f, normal((4, 3)), jnp.asarray([[0, 3, 9], [5, -7, -1], [2, 2, 1]]))


@case
def integer_inputs_one_hot():
    def f(p, x):
        return p @ jax.nn.one_hot(x, 5).sum(0)

    return Case(f, normal((3, 5)), jnp.asarray([[0, 1], [1, 1], [4, 2]]))


@case
def pytree_everything():
    def f(p, x):
        h = jnp.tanh(p["in"]["w"] @ x["a"] + p["in"]["b"] * x["b"])
        return {"y": p["out"][0] @ h, "z": (h.sum() * p["out"][1],)}

    params = {"in": {"w": normal((5, 3)), "b": normal((5,))}, "out": (normal((2, 5)), normal((2, 2)))}
    return Case(f, params, {"a": normal((4, 3)), "b": normal((4,))})


@case
def constants_among_parameters():
    def f(p, x):
        return p["power"] * (p["w"][p["rows"]] @ x) + p["shift"]

    params = {"w": normal((4, 3)), "rows": np.array([2, 0]), "power": 2, "shift": 0.5}
    return Case(f, params, normal((4, 3)))


# ---------------------------------------------------------------- control flow


def recurrent(p, x, **kw):
    step = lambda h, r: ((new := jnp.tanh(p[0] @ h + p[1] @ r + p[2])), new.sum())
    h, sums = lax.scan(step, jnp.zeros(4), x, **kw)
    return jnp.concatenate([p[3] @ h, sums[:2]])


RNN = [(4, 4), (4, 2), (4,), (3, 4)]
add("recurrent", recurrent, RNN, (5, 2))
add("recurrent_reverse", lambda p, x: recurrent(p, x, reverse=True), RNN, (5, 2))
add("recurrent_one_step", recurrent, RNN, (2, 2))
add("recurrent_no_steps", lambda p, x: p[1] @ lax.scan(
    lambda h, r: (p[0] @ h, None), x[0], x[:0])[0], [(2, 2), (3, 2)], (5, 2))


def unrolled(p, x):
    h = jnp.zeros(3)
    for row in x:
        h = jnp.tanh(p[0] @ h + p[1] @ row)
    return p[2] @ h


add("recurrent_python_loop", unrolled, [(3, 3), (3, 3), (2, 3)], (4, 3))
add("layers_in_scan", lambda p, x: lax.scan(
    lambda h, w: (jnp.tanh(w[0] @ h + w[1]), None), x, (p[0], p[1]))[0], [(5, 4, 4), (5, 4)])
add("layers_in_scan_reverse_shared", lambda p, x: lax.scan(
    lambda h, w: (jnp.tanh((w + p[1]) @ h), h.sum()), x, p[0], reverse=True)[1], [(3, 4, 4), (4, 4)])
add("layers_by_counter", lambda p, x: lax.fori_loop(0, 3, lambda k, h: jnp.tanh(p[0][k] @ h), x),
    [(3, 4, 4)])
add("weights_made_in_scan", lambda p, x: lax.scan(
    lambda w, k: (jnp.tanh(w @ p[0]), None), p[0], jnp.arange(3))[0] @ x, [(4, 4)])
add("nested_scan", lambda p, x: lax.scan(lambda h, r: (lax.scan(
    lambda g, s: (jnp.tanh(p[0] @ g + s * p[1]), None), h, r)[0], None), jnp.zeros(3), x)[0],
    [(3, 3), (3,)], (4, 2))
add("scan_carries_weight", lambda p, x: lax.scan(
    lambda c, r: ((c[0] * 0.9, jnp.tanh(c[0] @ c[1] + r)), None), (p[0], jnp.zeros(3)), x)[0][1],
    [(3, 3)], (4, 3))
add("checkpointed", lambda p, x: jax.checkpoint(lambda h: p[1] @ jnp.tanh(p[0] @ h))(x),
    [(6, 4), (2, 6)])
add("jitted_inside", lambda p, x: jax.jit(lambda w, h: w[1] @ jnp.tanh(w[0] @ h))(p, x),
    [(6, 4), (2, 6)])
add("cond", lambda p, x: lax.cond(x[0] > 0, lambda h: p[0] @ h, lambda h: jnp.tanh(p[1] @ h) + p[0][0],
    x), [(4, 4), (4, 4)])
add("cond_division", lambda p, x: lax.cond(x[0] > 0, lambda h: p[0] @ h / jnp.sqrt(h[0]),
    lambda h: p[0] @ (h * 2), x), [(3, 4)])
add("switch", lambda p, x: lax.switch(jnp.argmax(x[:3]), [
    lambda w, h: w[0] @ h, lambda w, h: w[1] @ jnp.sin(h), lambda w, h: w[0] @ w[1].T @ h[:3]], p, x),
    [(3, 4), (3, 4)])
add("cond_in_scan", lambda p, x: lax.scan(lambda h, r: (lax.cond(
    r[0] > 0, lambda g: jnp.tanh(p[0] @ g), lambda g: g + p[1], h + r), None), jnp.ones(3), x)[0],
    [(3, 3), (3,)], (5, 3))
add("while_without_parameters", lambda p, x: p[0] @ lax.while_loop(
    lambda h: jnp.sum(h * h) > 1, lambda h: h / 2, x), [(3, 4)])


@case
def while_through_parameters():
    def f(p, x):
        return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.tanh(p @ c[1])), (0, x))[1]

    return Case(f, normal((4, 4)), normal((3, 4)), backwards=False)


@case
def custom_jvp():
    @jax.custom_jvp
    def odd(x):
        return jnp.sin(x)

    odd.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), 3 * tangents[0]))
    return Case(lambda p, x: p[1] @ odd(p[0] @ x), normal((5, 4), (2, 5)), normal((4, 4)))


@case
def custom_jvp_holding_a_weight():
    @jax.custom_jvp
    def layer(w, x):
        return w @ x

    layer.defjvp(lambda a, t: (a[0] @ a[1], t[0] @ a[1] + 2 * (a[0] @ t[1])))
    return Case(lambda p, x: layer(p[1], jnp.tanh(layer(p[0], x))), normal((5, 4), (2, 5)),
                normal((4, 4)))


@case
def custom_vjp():
    @jax.custom_vjp
    def clipped(x):
        return jnp.tanh(x)

    clipped.defvjp(lambda x: (jnp.tanh(x), x), lambda x, c: (c * jnp.cos(x),))
    return Case(lambda p, x: p[1] @ clipped(p[0] @ x), normal((5, 4), (2, 5)), normal((4, 4)))


@case
def stop_gradient():
    def f(p, x):
        h = p[0] @ x
        return p[1] @ jnp.tanh(h - lax.stop_gradient(h.mean())) + lax.stop_gradient(p[1]) @ h

    return Case(f, normal((5, 4), (2, 5)), normal((4, 4)))


# ---------------------------------------------------------------- zero-size axes

add("zero_size_input", lambda p, x: p[0] @ x + p[1], [(3, 0), (3,)], (0,))
add("zero_size_hidden", lambda p, x: p[1] @ (p[0] @ x) + p[2], [(0, 4), (3, 0), (3,)])
add("zero_size_parameter", lambda p, x: p[0] @ x + p[1].sum(), [(3, 4), (0, 2)])
add("zero_size_output", lambda p, x: p[0] @ x, [(0, 4)])
add("zero_examples", lambda p, x: p[0] @ x, [(3, 4)], n=0)
add("zero_size_sum", lambda p, x: (p[0][:0] @ x).sum() + p[0].sum(0), [(3, 4)])


# ---------------------------------------------------------------- modules


@case
def equinox_mlp():
    model = eqx.nn.MLP(4, 3, 8, 2, key=jax.random.key(0), dtype=jnp.float64)
    return Case(lambda m, x: m(x), model, normal((5, 4)))


@case
def equinox_conv():
    k1, k2 = jax.random.split(jax.random.key(0))
    model = eqx.nn.Sequential([
        eqx.nn.Conv2d(2, 3, 3, padding=1, key=k1, dtype=jnp.float64), eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.AvgPool2d(2, 2), eqx.nn.Lambda(jnp.ravel),
        eqx.nn.Linear(12, 2, key=k2, dtype=jnp.float64),
    ])
    return Case(lambda m, x: m(x), model, normal((3, 2, 4, 4)))


@case
def equinox_gru():
    class Net(eqx.Module):
        cell: eqx.nn.GRUCell
        out: eqx.nn.Linear

        def __call__(self, x):
            h, _ = lax.scan(lambda h, r: (self.cell(r, h), None), jnp.zeros(3), x)
            return self.out(h)

    k1, k2 = jax.random.split(jax.random.key(0))
    model = Net(eqx.nn.GRUCell(2, 3, key=k1, dtype=jnp.float64),
                eqx.nn.Linear(3, 2, key=k2, dtype=jnp.float64))
    return Case(lambda m, x: m(x), model, normal((4, 5, 2)))


@case
def equinox_attention():
    model = eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0), dtype=jnp.float64)
    return Case(lambda m, x: m(x, x, x), model, normal((3, 3, 4)))


class Flax(nnx.Module):
    def __init__(self, rngs):
        kw = {"rngs": rngs, "param_dtype": jnp.float64}
        self.conv = nnx.Conv(2, 4, (3, 3), **kw)
        self.norm = nnx.LayerNorm(4, **kw)
        self.out = nnx.Linear(4, 3, **kw)

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.conv(x))).mean((-3, -2)))


@case
def flax_cnn():
    return Case(lambda m, x: m(x), Flax(nnx.Rngs(0)), normal((3, 4, 4, 2)))


@case
def flax_embedding():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(7, 4, rngs=rngs, param_dtype=jnp.float64)

        def __call__(self, tokens):
            return self.embed.attend(self.embed(tokens).mean(0))

    tokens = np.random.default_rng(1).integers(0, 7, size=(4, 3))
    return Case(lambda m, x: m(x), Net(nnx.Rngs(0)), jnp.asarray(tokens))
