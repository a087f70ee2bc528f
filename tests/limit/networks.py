"""The contract table: one row per network that must read, checked against sampled networks.

A row is a name, a function of one example, and the shapes of its parameters. A new layer, node
kind or spelling adds one row and is then checked in every reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

N = 96
OUT = 16


def struct(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float64)


def dense(w: Any, h: Any) -> Any:
    return w @ h / np.sqrt(h.shape[0])


def norm(h: Any, scale: Any = 1.0, offset: Any = 0.0) -> Any:
    return (h - h.mean()) / jnp.sqrt(h.var() + 1e-5) * scale + offset


@dataclass(frozen=True)
class Row:
    name: str
    f: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    x: tuple[int, ...] = (5,)
    vocabulary: int = 0
    drawn: bool = False

    @property
    def params(self) -> list[jax.ShapeDtypeStruct]:
        return [struct(*s) for s in self.shapes]

    def inputs(self, rng: np.random.Generator, count: int = 3) -> np.ndarray:
        if self.vocabulary:
            return rng.integers(0, self.vocabulary, size=(count, *self.x))
        return rng.normal(size=(count, *self.x))


BODY = ((N, 5), (N, N), (N, N), (OUT, N))
relu, gelu, silu, erf = jax.nn.relu, jax.nn.gelu, jax.nn.silu, jax.lax.erf
"""Mostly activations with closed forms, which compile fast; gelu and silu take the series."""


def gate(x: Any) -> Any:
    return 0.5 * (1 + erf(x))


def _first(p: Any, x: Any) -> Any:
    return dense(p[0], x)


def _scan(p: Any, xs: Any, pool: Callable[..., Any]) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = erf(dense(p[1], h) + dense(p[0], x))
        return h, h

    return pool(*jax.lax.scan(step, jnp.zeros(p[1].shape[0]), xs))


@jax.custom_jvp
def straight_through(x: Any) -> Any:
    return jnp.sign(x)


straight_through.defjvp(lambda p, t: (jnp.sign(p[0]), t[0]))


def _unrolled(p: Any, xs: Any) -> Any:
    h = jnp.zeros(p[1].shape[0])
    for t in range(xs.shape[0]):
        h = erf(dense(p[1], h) + dense(p[0], xs[t]))
    return dense(p[3], h)


ROWS = (
    Row("linear", lambda p, x: dense(p[3], dense(p[1], _first(p, x))), BODY),
    Row("gelu", lambda p, x: dense(p[3], gelu(dense(p[1], gelu(_first(p, x))))), BODY),
    Row("relu_plus_identity", lambda p, x: (lambda h: dense(p[3], relu(h) + h))(_first(p, x)),
        BODY),
    Row("residual", lambda p, x: (lambda h: dense(p[3], relu(h + dense(p[1], erf(h)))))(
        _first(p, x)), BODY),
    Row("weighted_skip", lambda p, x: (lambda h: dense(p[3], relu(
        0.6 * h + 0.8 * dense(p[1], erf(h)))))(_first(p, x)), BODY),
    Row("raw_input_residual", lambda p, x: dense(p[3], relu(dense(p[1], x + dense(
        p[2], relu(_first(p, x)))))), ((N, 64), (N, 64), (64, N), (OUT, N)), (64,)),
    Row("parallel_branches", lambda p, x: (lambda h: dense(
        p[3], relu(dense(p[1], relu(h))) + erf(dense(p[2], h))))(_first(p, x)), BODY),
    Row("same_root_branches", lambda p, x: (lambda h: dense(p[3], relu(h) - erf(h)))(
        _first(p, x)), BODY),
    Row("concatenate", lambda p, x: (lambda h: dense(p[3], jnp.concatenate(
        [relu(h), erf(dense(p[2], h))])))(_first(p, x)), (*BODY[:3], (OUT, 2 * N))),
    Row("concatenate_input", lambda p, x: dense(p[3], jnp.concatenate([relu(_first(p, x)), x])),
        (*BODY[:3], (OUT, N + 5))),
    Row("glu", lambda p, x: (lambda h: dense(p[3], gate(dense(p[1], h)) * dense(p[2], h)))(
        erf(_first(p, x))), BODY),
    Row("swiglu_fused", lambda p, x: (lambda ab: dense(p[2], silu(ab[0]) * ab[1]))(
        jnp.split(dense(p[1], erf(_first(p, x))), 2)), ((N, 5), (2 * N, N), (OUT, N))),
    Row("bilinear", lambda p, x: (lambda h: dense(p[3], dense(p[1], h) * dense(p[2], h)))(
        erf(_first(p, x))), BODY),
    Row("self_gate", lambda p, x: (lambda h: dense(p[3], gate(h) * dense(p[2], erf(h))))(
        _first(p, x)), BODY),
    Row("three_factors", lambda p, x: (lambda h: dense(p[3], h * erf(h) * dense(p[1], h)))(
        _first(p, x)), BODY),
    Row("where_gate", lambda p, x: (lambda h: dense(p[3], jnp.where(h > 0, dense(p[1], erf(h)),
        0.3 * dense(p[2], erf(h)))))(_first(p, x)), BODY),
    Row("max_of_two", lambda p, x: (lambda h: dense(p[3], jnp.maximum(
        dense(p[1], h), dense(p[2], h))))(relu(_first(p, x))), BODY),
    Row("layer_norm_gaussian", lambda p, x: dense(p[3], relu(norm(_first(p, x)))), BODY),
    Row("layer_norm_after_relu", lambda p, x: dense(p[3], norm(relu(_first(p, x)))), BODY),
    Row("layer_norm_scaled", lambda p, x: dense(p[3], norm(relu(_first(p, x)), p[4], p[5])),
        (*BODY, (N,), (N,))),
    Row("rms_norm", lambda p, x: (lambda h: dense(p[3], h / jnp.sqrt(jnp.mean(h**2) + 1e-6)))(
        relu(_first(p, x))), BODY),
    Row("l2_norm", lambda p, x: (lambda h: dense(p[3], h / jnp.linalg.norm(h) * np.sqrt(N)))(
        erf(_first(p, x))), BODY),
    Row("biases", lambda p, x: dense(p[3], relu(dense(p[1], relu(
        _first(p, x) + 0.3 * p[4])) + 0.2 * p[5])), (*BODY, (N,), (N,))),
    Row("shifted_bias", lambda p, x: dense(p[3], erf(dense(p[1], relu(
        _first(p, x) + 0.5 * (p[4] + 1.0))) - 0.8 * (0.3 - p[5]))), (*BODY, (N,), (N,))),
    Row("shifted_tokens", lambda p, xs: dense(p[2], relu(
        jnp.cos(jnp.arange(12.0)).reshape(3, 4) @ (xs @ p[0].T + 0.5 * (p[1] + 1.0))).sum(0)),
        ((N, 5), (N,), (OUT, N)), (4, 5)),
    Row("shifted_gate", lambda p, x: (lambda h: dense(p[3], (0.5 * (dense(p[1], h) + 1.0))
        * (0.7 * (2.0 - dense(p[2], h)))))(erf(_first(p, x))), BODY),
    Row("shared_weights", lambda p, x: dense(p[3], erf(dense(p[1], erf(dense(
        p[1], _first(p, x)))))), BODY),
    Row("shared_residual", lambda p, x: (lambda h: dense(p[3], erf(
        dense(p[1], erf(h)) + h)))(_first(p, x)), BODY),
    Row("reshape_reordered", lambda p, x: dense(p[3], relu(dense(p[1], jax.lax.reshape(
        relu(_first(p, x)).reshape(8, 12), (N,), (1, 0))) + _first(p, x))), BODY),
    Row("rnn_last", lambda p, xs: _scan(p, xs, lambda h, hs: dense(p[3], h)), BODY, (4, 5)),
    Row("rnn_pooled", lambda p, xs: _scan(p, xs, lambda h, hs: dense(p[3], hs.mean(0))), BODY,
        (4, 5)),
    Row("rnn_per_step", lambda p, xs: _scan(
        p, xs, lambda h, hs: jax.vmap(lambda t: dense(p[3], t))(hs)), BODY, (3, 5)),
    Row("rnn_unrolled", _unrolled, BODY, (3, 5)),
    Row("stacked_layers_scan", lambda p, x: dense(p[1], jax.lax.scan(
        lambda h, w: (relu(dense(w, h)), None), dense(p[2], x), p[0])[0]),
        ((3, N, N), (OUT, N), (N, 5))),
    Row("tokens_flattened", lambda p, xs: dense(p[1], jax.vmap(
        lambda x: relu(_first(p, x)))(xs).reshape(-1)), ((N, 5), (OUT, 4 * N)), (4, 5)),
    Row("tokens_pooled", lambda p, xs: dense(p[2], relu(
        xs @ p[0].T / np.sqrt(5) + p[1]).mean(0)), ((N, 5), (4, N), (OUT, N)), (4, 5)),
    Row("tokens_mixed", lambda p, xs: dense(p[1], (jnp.cos(jnp.arange(12.0)).reshape(3, 4)
        @ relu(xs @ p[0].T))[1]), ((N, 5), (OUT, N)), (4, 5)),
    Row("post_activation", lambda p, x: (lambda h: dense(p[3], relu(h + dense(p[2], erf(h)))))(
        relu(dense(p[1], _first(p, x)) + erf(_first(p, x)))), BODY, drawn=True),
    Row("gate_between_layers", lambda p, x: (lambda h: dense(p[3], erf(dense(p[1], h) + gate(h)
        * dense(p[2], h))))(erf(_first(p, x))), BODY, drawn=True),
    Row("remat_and_jit", lambda p, x: dense(p[3], jax.jit(jax.checkpoint(
        lambda h: jnp.sin(h)))(_first(p, x))), BODY),
    Row("straight_through", lambda p, x: dense(p[3], straight_through(_first(p, x))), BODY),
    Row("stop_gradient", lambda p, x: (lambda h: dense(p[3], h * jax.lax.stop_gradient(
        gate(h))))(_first(p, x)), BODY),
    Row("heads", lambda p, x: jnp.einsum("ohd,hd->o", p[1], relu(
        jnp.einsum("hdi,i->hd", p[0], x))) / np.sqrt(N), ((8, N // 8, 5), (OUT, 8, N // 8))),
    Row("batched_weights", lambda p, xs: dense(p[1], jax.vmap(lambda w, x: relu(w @ x))(
        p[0], xs).sum(0)), ((3, N, 5), (OUT, N)), (3, 5)),
)
