"""Random networks as Python source, written as functions of the width ``n``.

A network is text, so that a failing one can be read, cut down and filed as it is.
"""

from __future__ import annotations

import linecache
import random
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ACTIVATIONS = (
    "jax.nn.relu({v})",
    "jnp.maximum({v}, 0.0)",
    "{v} * ({v} > 0)",
    "jnp.where({v} > 0, {v}, 0.0)",
    "jnp.where({v} > 0.4, {v} - 0.4, 0.1 * {v})",
    "jax.nn.leaky_relu({v}, 0.2)",
    "jnp.abs({v})",
    "jnp.sign({v})",
    "jnp.tanh({v})",
    "jnp.tanh(2 * {v})",
    "jax.nn.gelu({v}, approximate=False)",
    "jax.nn.gelu({v})",
    "jax.nn.silu({v})",
    "{v} * jax.nn.sigmoid(1.7 * {v})",
    "jax.nn.sigmoid({v})",
    "jax.nn.softplus({v})",
    "jnp.logaddexp({v}, 0.0)",
    "jax.nn.elu({v})",
    "jax.nn.selu({v})",
    "jax.nn.celu({v}, 1.3)",
    "jax.nn.hard_tanh({v})",
    "jnp.clip({v}, -0.5, 1.2)",
    "jax.nn.relu6({v})",
    "jax.nn.hard_swish({v})",
    "jax.nn.soft_sign({v})",
    "jax.nn.squareplus({v})",
    "jax.nn.mish({v})",
    "jax.lax.erf({v})",
    "jax.scipy.special.erf({v} / jnp.sqrt(2.0))",
    "jnp.sin({v})",
    "jnp.cos({v} + 0.3)",
    "jnp.sin(3 * {v}) * jnp.exp(-({v} ** 2))",
    "jnp.exp(-({v} ** 2) / 2)",
    "{v} ** 2",
    "jnp.square({v}) - 1.0",
    "jax.lax.integer_pow({v}, 3) / 4",
    "0.5 * {v} ** 2 - {v}",
    "jax.nn.relu({v}) ** 2",
    "jnp.arctan({v})",
    "jnp.log1p({v} ** 2)",
    "{v} / (1 + jnp.abs({v}))",
    "{v} / jnp.sqrt(1 + {v} ** 2)",
    "jax.lax.rsqrt(1 + jnp.square({v}))",
    "jnp.minimum({v}, 1.0)",
    "jnp.maximum({v}, -0.7) - jnp.maximum({v}, 0.9)",
    "jnp.where(jnp.abs({v}) < 1, {v} ** 2, 2 * jnp.abs({v}) - 1)",
    "jax.lax.select({v} > 0, jnp.tanh({v}), jax.lax.expm1(jnp.minimum({v}, 0.0)))",
    "jnp.floor(2 * {v}) / 2",
    "jnp.heaviside({v}, 0.5)",
    "jnp.round({v})",
    "jnp.exp(0.4 * {v})",
    "jax.nn.relu({v}) + 0.3 * {v}",
    "jax.nn.relu({v}) - jax.nn.relu(-2 * {v})",
    "jnp.sinh(jnp.clip({v}, -1, 1))",
    "jax.nn.log_sigmoid({v})",
    "jnp.cbrt(1 + {v} ** 2)",
    "jnp.float_power(1 + {v} ** 2, 0.3)",
    "jnp.hypot({v}, 1.0)",
    "(({v} > -1) & ({v} < 0.5)) * 1.0",
    "jnp.where(({v} > 1) | ({v} < -1), 0.0, {v})",
    "straight({v})",
    "clipped({v})",
    "double({v})",
    "jnp.sinc({v})",
    "jnp.exp2(-jnp.abs({v}))",
    "jax.nn.sparse_plus({v})",
    "jnp.nan_to_num({v}) * jax.nn.tanh({v})",
)
"""Pointwise functions in many spellings; kinks, jumps and derivatives of their own among them."""

PRELUDE = '''
@jax.custom_jvp
def straight(u):
    return jnp.sign(u)

straight.defjvp(lambda u, du: (straight(*u), du[0] * (jnp.abs(u[0]) < 1)))

@jax.custom_vjp
def clipped(u):
    return jnp.tanh(u)

clipped.defvjp(lambda u: (jnp.tanh(u), u), lambda u, g: (g / (1 + u ** 2),))

@jax.custom_jvp
def double(u):
    return jnp.where(u > 0, u, 0.5 * u)

double.defjvp(lambda u, du: (double(*u), du[0] * jnp.where(u[0] > 0, 1.0, 0.5)))
'''

INPUTS = (
    "{x}", "{x}", "{x}", "{x}", "{x} ** 2", "jnp.sin({x})", "2 * {x} - 0.5",
    "jnp.concatenate([{x}, jnp.cos({x})], -1)",
    "{x} / jnp.linalg.norm({x}, axis=-1, keepdims=True)",
    "({x} - {x}.mean(-1, keepdims=True)) / jnp.std({x}, axis=-1, keepdims=True)",
    "jax.nn.softmax({x}, -1)", "jnp.sort({x}, -1)", "jnp.cumsum({x}, -1)",
    "jax.nn.one_hot(jnp.argmax({x}, -1), {d})", "{x}[..., ::-1]", "{x}[..., 1:]",
    "jnp.where({x} > 0, {x}, 0.2)", "jnp.stack([{x}, {x} ** 2], -1).reshape(*{x}.shape[:-1], -1)",
    "jnp.tanh({x}) * {x}.max()", "jax.lax.stop_gradient({x})", "jnp.fft.rfft({x}).real",
    "jnp.pad({x}, [(0, 0)] * ({x}.ndim - 1) + [(1, 1)])",
)

ILLEGAL = (
    "max_pool", "sort", "softmax", "transpose", "sum_of_activations", "sqrt_logits", "roll",
    "random_gate", "noise", "argmax", "tie", "overlap", "constant_matrix", "norm_power", "while",
    "shared_columns", "mean_weight", "top", "flip", "prod", "repeat_channels", "data_cond",
    "difference_of_sums", "stacked_sums", "rescaled_mean", "mean_on_a_field", "difference_of_means", "unscaled_bilinear", "amplified_norm", "mixed_sums", "sum_readout",
    "cumsum_width", "pole",
)


@dataclass
class Value:
    """A name in the program: its width as text, its positions, whether it is Gaussian."""

    name: str
    width: str
    positions: int | None
    gaussian: bool


@dataclass
class Program:
    """A network as source text."""

    seed: int
    shapes: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    input_shapes: Any = None
    features: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        """The text of ``f(p, x)``."""
        return "def f(p, x):\n" + "\n".join("    " + line for line in self.lines) + "\n"

    def at(self, n: int) -> tuple[Any, dict[str, tuple[int, ...]]]:
        """The function and its parameter shapes at width ``n``."""
        name = f"<network {self.seed} at {n}>"
        text = PRELUDE + self.source
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        space: dict[str, Any] = {"jax": jax, "jnp": jnp, "np": np, "n": n}
        exec(compile(text, name, "exec"), space)
        shapes = {k: tuple(eval(s, {"n": n})) for k, s in self.shapes.items()}
        return space["f"], shapes


class Writer:
    """Writes one random program."""

    def __init__(self, seed: int, illegal: float = 0.12) -> None:
        self.r = random.Random(seed)
        self.p = Program(seed)
        self.illegal = illegal
        self.count = 0
        self.pool: list[Value] = []

    # ----------------------------------------------------------------- small things

    def note(self, name: str) -> None:
        self.p.features.append(name)

    def fresh(self, prefix: str = "h") -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def let(self, text: str, prefix: str = "h") -> str:
        name = self.fresh(prefix)
        self.p.lines.append(f"{name} = {text}")
        return name

    def param(self, shape: str, prefix: str = "W") -> str:
        name = self.fresh(prefix)
        self.p.shapes[name] = f"({shape},)"
        return f'p["{name}"]'

    def value(self, text: str, width: str, positions: int | None, *, gaussian: bool) -> Value:
        out = Value(self.let(text), width, positions, gaussian)
        self.pool.append(out)
        return out

    def maybe(self, probability: float) -> bool:
        return self.r.random() < probability

    # ----------------------------------------------------------------- layers

    def dense(self, v: Value, out: str = "n", weight: str | None = None) -> Value:
        """One dense layer in a random spelling."""
        r, w, i, h = self.r, r"", v.width, v.name
        c = r.choice(["1.0", "1.0", "0.8", "1.3"])
        fan = f"({i})"
        norm = r.choice(["/ jnp.sqrt({})", "* ({}) ** -0.5", "/ np.sqrt({})"]).format(fan)
        if c != "1.0":
            norm = f"* {c} {norm}"
        spread = v.positions is not None
        kind = r.randrange(13)
        if weight is None and kind < 8:
            stored_out_first = self.maybe(0.5)
            w = self.param(f"{out}, {i}" if stored_out_first else f"{i}, {out}")
        elif weight is None:
            stored_out_first = True
            w = None
        else:
            stored_out_first, w = True, weight
            kind = min(kind, 7)
        if w is not None:
            if kind == 7:
                w, norm = f"({w} {norm})", ""
            forward, backward = (w, f"{w}.T") if stored_out_first else (f"{w}.T", w)
            letters = "oi" if stored_out_first else "io"
            if spread:
                choice = {
                    0: f"{h} @ {backward}",
                    1: f'jnp.einsum("ti,{letters}->to", {h}, {w})',
                    2: f"jax.vmap(lambda z: {forward} @ z)({h})",
                    3: f"({forward} @ {h}.T).T",
                    4: f"jnp.dot({h}, {backward})",
                    5: f"jnp.tensordot({h}, {backward}, 1)",
                    6: f"jax.lax.dot_general({h}, {backward}, (((1,), (0,)), ((), ())))",
                    7: f"{h} @ {backward}",
                }[kind]
            else:
                choice = {
                    0: f"{forward} @ {h}",
                    1: f'jnp.einsum("{letters},i->o", {w}, {h})',
                    2: f"jax.vmap(lambda z: z @ {h})({forward})",
                    3: f"{h} @ {backward}",
                    4: f"jnp.dot({forward}, {h})",
                    5: f"jnp.tensordot({h}, {backward}, 1)",
                    6: f"({h}[None] @ {backward})[0]",
                    7: f"{forward} @ {h}",
                }[kind]
            text = f"({choice}) {norm}" if self.maybe(0.8) else f"({choice.replace(h, f'({h} * 1.0)')}) {norm}"
        elif (kind == 8 and i.startswith("n")) or (kind == 8 and i.startswith("2")):
            self.note("split weight")
            w = self.param(f"{out}, {i}")
            half = f"({i}) // 2"
            a, b = f"{h}[..., :{half}]", f"{h}[..., {half}:]"
            text = f"({a} @ {w}[:, :{half}].T + {b} @ {w}[:, {half}:].T) {norm}"
        elif kind == 9 and i == "n" and out == "n":
            self.note("heads")
            w = self.param("4, n // 4, n // 4")
            norm = norm.replace("(n)", "(n // 4)")
            t = "t" if spread else ""
            shape = f"({v.positions}, 4, n // 4)" if spread else "(4, n // 4)"
            final = f"({v.positions}, n)" if spread else "(n,)"
            text = (
                f'(jnp.einsum("{t}hi,hio->{t}ho", {h}.reshape{shape}, {w}) {norm})'
                f".reshape{final}"
            )
        elif kind == 10 and spread:
            self.note("untied positions")
            w = self.param(f"{v.positions}, {i}, {out}")
            text = f'jnp.einsum("ti,tio->to", {h}, {w}) {norm}'
        elif kind == 11 and spread:
            self.note("window")
            w = self.param(f"2, {i}, {out}")
            text = f"(({h} @ {w}[0] + jnp.roll({h}, 1, 0) @ {w}[1]) {norm})"
        elif kind == 12 and out == "n":
            self.note("fused")
            w = self.param(f"2 * n, {i}")
            pick = r.choice(["{}[..., :n]", "{}[..., n:]", "{}[..., ::2]",
                             "jnp.split({}, 2, -1)[1]", "{}.reshape(*{}.shape[:-1], 2, n)[..., 0, :]",
                             "{}.reshape(*{}.shape[:-1], n, 2)[..., 1]"])
            z = self.let(f"({h} @ {w}.T) {norm}", "z")
            text = pick.format(*([z] * pick.count("{}")))
        else:
            w = self.param(f"{i}, {out}")
            text = f"({h} @ {w}) {norm}"
        if self.maybe(0.4):
            text += self.bias(out, v.positions)
        return self.value(text, out, v.positions, gaussian=True)

    def bias(self, width: str, positions: int | None) -> str:
        kind = self.r.randrange(5)
        if kind == 0 and positions is not None:
            return f" + 0.3 * {self.param(f'{positions}, {width}', 'B')}"
        if kind == 1:
            return f" + {self.r.choice(['0.3', '-0.2'])}"
        if kind == 2:
            return f" + 0.5 * ({self.param(width, 'b')} + 1.0)"
        return f" + {self.r.choice(['', '0.4 * '])}{self.param(width, 'b')}"

    def activation(self, v: Value) -> Value:
        text = self.r.choice(ACTIVATIONS)
        wrap = self.r.randrange(14)
        body = text.format(v=v.name)
        if wrap == 0:
            body = f"jax.jit(lambda u: {text.format(v='u')})({v.name})"
        elif wrap == 1:
            body = f"jax.checkpoint(lambda u: {text.format(v='u')})({v.name})"
        elif wrap == 2:
            body = f"jax.vmap(lambda u: {text.format(v='u')})({v.name})"
        elif wrap == 3:
            body = f"jax.lax.cond(True, lambda u: {text.format(v='u')}, lambda u: 0 * u, {v.name})"
        elif wrap == 4:
            body = f"1.5 * ({body}) - 0.2"
        elif wrap == 5 and v.positions is not None:
            body = f"jax.lax.map(lambda u: {text.format(v='u')}, {v.name})"
        elif wrap == 6:
            body = f"jax.nn.relu({body})"
        return self.value(body, v.width, v.positions, gaussian=False)

    # ----------------------------------------------------------------- blocks

    def partner(self, v: Value) -> Value | None:
        same = [q for q in self.pool if q.name != v.name and q.width == v.width
                and q.positions == v.positions]
        return self.r.choice(same) if same else None

    def residual(self, v: Value) -> Value:
        other = self.partner(v)
        if other is None:
            return self.activation(v)
        a = self.r.choice(["", "0.5 * ", "1.4 * "])
        sign = self.r.choice(["+", "+", "-"])
        return self.value(f"{a}{v.name} {sign} {other.name}", v.width, v.positions,
                          gaussian=v.gaussian and other.gaussian)

    def gate(self, v: Value) -> Value:
        kind = self.r.randrange(8)
        w = v.width
        if kind == 0:
            z = self.dense(v, f"2 * {w}" if w == "n" else "2 * n")
            self.pool.remove(z)
            return self.value(f"jax.nn.glu({z.name}, -1)", "n", v.positions, gaussian=False)
        if kind == 1:
            z = self.dense(v, "2 * n")
            self.pool.remove(z)
            a, b = self.fresh("a"), self.fresh("a")
            self.p.lines.append(f"{a}, {b} = jnp.split({z.name}, 2, -1)")
            act = self.r.choice(ACTIVATIONS).format(v=b)
            return self.value(f"{a} * ({act})", "n", v.positions, gaussian=False)
        a, b = self.dense(v), self.dense(v)
        if kind == 2:
            text = f"{a.name} * {b.name}"
        elif kind == 3:
            c = self.dense(v)
            text = f"{a.name} * {b.name} * {c.name}"
        elif kind == 4:
            text = f"({self.r.choice(ACTIVATIONS).format(v=a.name)}) * ({self.r.choice(ACTIVATIONS).format(v=b.name)})"
        elif kind == 5:
            text = f"jnp.where({a.name} > 0, {b.name}, 0.3 * {b.name})"
        elif kind == 6:
            text = f"jnp.maximum({a.name}, {b.name})"
        else:
            text = f"{a.name} * ({self.r.choice(ACTIVATIONS).format(v=b.name)}) + {a.name}"
        return self.value(text, "n", v.positions, gaussian=False)

    def norm(self, v: Value) -> Value:
        h = v.name
        kind = self.r.randrange(5)
        if kind == 0:
            text = f"({h} - {h}.mean(-1, keepdims=True)) / jnp.sqrt({h}.var(-1, keepdims=True) + 1e-5)"
        elif kind == 1:
            text = f"{h} * jax.lax.rsqrt(jnp.mean({h} ** 2, -1, keepdims=True) + 1e-6)"
        elif kind == 2:
            text = f"jnp.sqrt({v.width}) * {h} / jnp.linalg.norm({h}, axis=-1, keepdims=True)"
        elif kind == 3:
            text = f"jax.nn.standardize({h}, axis=-1)"
        else:
            text = f"{h} / jnp.sqrt(0.1 + jnp.sum({h} * {h}, axis=-1, keepdims=True) / ({v.width}))"
        gaussian = v.gaussian
        if self.maybe(0.3):
            text = f"({text}) * {self.param(v.width, 'g')}"
            gaussian = False
        if self.maybe(0.3):
            text = f"{text} + {self.param(v.width, 'b')}"
        return self.value(text, v.width, v.positions, gaussian=gaussian)

    def branches(self, v: Value) -> Value:
        a, b = self.activation(self.dense(v)), self.activation(self.dense(v))
        if self.maybe(0.3):
            u = self.dense(v)
            a, b = self.activation(u), self.activation(u)
        kind = self.r.randrange(3)
        if kind == 0:
            return self.value(f"{a.name} + {b.name}", "n", v.positions, gaussian=False)
        if kind == 1:
            return self.value(f"{a.name} * {b.name}", "n", v.positions, gaussian=False)
        return self.value(f"jnp.concatenate([{a.name}, {b.name}], -1)", "2 * n", v.positions,
                          gaussian=False)

    def shared(self, v: Value) -> Value:
        """One weight used several times."""
        if v.width != "n":
            v = self.dense(v)
        w = self.param("n, n")
        act = self.r.choice(ACTIVATIONS)
        kind = self.r.randrange(4)
        if kind == 0 or (v.positions is None and kind == 1):
            body = act.format(v="h")
            step = f"jnp.sqrt(n) ** -1 * ({body}) @ {w}.T"
            text = f"jax.lax.fori_loop(0, 2, lambda i, h: {step}, {v.name})"
            return self.value(text, "n", v.positions, gaussian=True)
        if kind == 1:
            u = self.param("n, n")
            x = self.dense(v)
            body = act.format(v="h")
            step = f"lambda h, z: (({w} @ ({body}) + {u} @ z) / jnp.sqrt(n),) * 2"
            end = self.r.choice(["[0]", "[1]", "[1]"])
            text = f"jax.lax.scan({step}, jnp.zeros(n), {x.name}){end}"
            return self.value(text, "n", None if end == "[0]" else v.positions, gaussian=True)
        if kind == 2:
            stack = self.param("2, n, n")
            body = act.format(v="h")
            text = (f"jax.lax.scan(lambda h, w: ((({body}) @ w) / jnp.sqrt(n), None), "
                    f"{v.name}, {stack})[0]")
            return self.value(text, "n", v.positions, gaussian=True)
        a = self.dense(v, weight=w)
        b = self.dense(self.activation(a), weight=w)
        return self.value(f"{a.name} + {b.name}" if self.maybe(0.5) else b.name, "n", v.positions,
                          gaussian=True)

    def shuffle(self, v: Value) -> Value:
        """Moves of whole axes, harmless by themselves."""
        h, w = v.name, v.width
        t = v.positions
        choices = [
            f"{h}[..., ::-1]", f"jnp.roll({h}, 3, -1)", f"jnp.flip({h}, -1)",
            f"{h}.reshape(*{h}.shape[:-1], 4, -1).swapaxes(-1, -2).reshape({h}.shape)",
            f"jnp.concatenate([{h}[..., {w} // 2:], {h}[..., :{w} // 2]], -1)",
            f"jnp.concatenate([-{h}[..., {w} // 2:], {h}[..., :{w} // 2]], -1)",
            f"{h} * jnp.linspace(0.5, 1.5, {w})", f"{h} * (-1.0) ** jnp.arange({w})",
            f"jnp.where(jnp.arange({w}) % 2 == 0, {h}, 0.0)",
            f"jax.lax.stop_gradient({h})",
            f"jax.lax.stop_gradient({h}) + 0.5 * {h}",
            f"{h}.at[...].set({h} * 2) / 2",
            f"jnp.swapaxes(jnp.atleast_2d({h}), 0, 1).T.reshape({h}.shape)",
            f"{h}.astype(jnp.float64)", f"jnp.take({h}, jnp.arange({w})[::-1], axis=-1)",
            f"{h} + jnp.zeros({w})", f"jnp.where(True, {h}, 0.0)",
            f"jnp.stack([{h}, {h}]).mean(0)", f"jnp.stack([{h}, 2 * {h}]).sum(0)",
        ]
        if t is not None:
            choices += [f"{h}[::-1]", f"jnp.roll({h}, 1, 0)"] * 2
        text = self.r.choice(choices)
        self.note("shuffle " + text.replace(h, "h"))
        return self.value(text, w, t, gaussian=v.gaussian)

    def positions(self, v: Value) -> Value:
        h, t = v.name, v.positions
        assert t is not None
        kind = self.r.randrange(12)
        table: list[tuple[str, int | None]] = [
            (f"{h}.mean(0)", None),
            (f"{h}.sum(0) / 2", None),
            (f"{h}[{self.r.randrange(t)}]", None),
            (f"jnp.cumsum({h}, 0)", t),
            (f"jnp.array(np.random.default_rng(1).normal(size=({t}, {t}))) @ {h}", t),
            (f"jnp.stack([{h}[0] + {h}[-1], {h}[1], 0.5 * {h}[0]])", 3),
            (f"jnp.concatenate([{h}[:1], {h}])", t + 1),
            (f"{h} * jnp.arange(1.0, {t} + 1.0)[:, None]", t),
            (f"{h} - {h}.mean(0)", t),
            (f"{h}[1:] * {h}[:-1]" if self.maybe(0.5) else f"{h}[1:] + {h}[:-1]", t - 1),
            (f"jnp.pad({h}, ((1, 0), (0, 0)))[:-1]", t),
            (f'jnp.einsum("ts,sn->tn", jax.nn.softmax({self.context}, -1), {h})'
             if self.context and t == self.steps else f"jnp.cumsum({h}[::-1], 0)", t),
        ]
        text, new = table[kind]
        if new == 1:
            text, new = f"{h}.mean(0)", None
        return self.value(text, v.width, new, gaussian=v.gaussian and "*" not in text)

    def attention(self, v: Value) -> Value:
        q, k, u = self.dense(v), self.dense(v), self.dense(v)
        scale = self.r.choice(["n", "n", "n", "jnp.sqrt(n)"])
        act = self.r.choice(["jax.nn.softmax({}, -1)", "jax.nn.relu({})", "{}", "jnp.tanh({})",
                             "jnp.exp({} / 4)"])
        logits = self.let(f"{q.name} @ {k.name}.T / {scale}", "s")
        return self.value(f"({act.format(logits)}) @ {u.name}", "n", v.positions, gaussian=True)

    # ----------------------------------------------------------------- illegal

    def break_something(self, v: Value) -> Value:
        kind = self.r.choice(ILLEGAL)
        self.note("illegal " + kind)
        h, w, t = v.name, v.width, v.positions
        same = lambda text: self.value(text, w, t, gaussian=False)
        match kind:
            case "max_pool":
                return self.value(f"{h}.max(0)", w, None, gaussian=False) if t else same(
                    f"{h} - {h}.max()")
            case "sort":
                return same(f"jnp.sort({h}, -1)")
            case "softmax":
                return same(f"{w} * jax.nn.softmax({h}, -1)")
            case "transpose" if w == "n":
                a = self.param("n, n")
                return same(f"jnp.tanh({h} @ {a} / jnp.sqrt(n)) @ {a}.T / jnp.sqrt(n)")
            case "sum_of_activations":
                a, b = self.activation(self.dense(v)), self.activation(self.dense(v))
                return self.value(f"jnp.tanh({a.name} + {b.name})", "n", t, gaussian=False)
            case "sqrt_logits" if t:
                q, k, u = self.dense(v), self.dense(v), self.dense(v)
                return self.value(
                    f"jnp.tanh({q.name} @ {k.name}.T / jnp.sqrt(n)) @ {u.name}", "n", t,
                    gaussian=False)
            case "roll":
                return same(f"{h} + jnp.roll({h}, {self.r.choice([1, 5])}, -1)")
            case "random_gate":
                return same(f"{h} * {self.param('', 's')[:]}" if False else
                            f"{h} * {self.param('1', 's')}[0]")
            case "noise":
                return same(f"{h} * jax.random.normal(jax.random.key(0), {h}.shape)")
            case "argmax":
                return same(f"{h} * (jnp.argmax({h}) > 2)")
            case "overlap" if w == "n":
                return same(f"jnp.concatenate([{h}[..., :n // 2 + 1], {h}[..., n // 2 + 1:]], -1)"
                            f" + {h}[..., ::-1]")
            case "constant_matrix" if w == "n":
                text = "jnp.array(np.random.default_rng(0).normal(size=(n, n)))"
                return same(f"{h} @ {text} / jnp.sqrt(n)")
            case "norm_power":
                return same(f"{h} / (jnp.sum({h} ** 2, -1, keepdims=True) / ({w}) ** 0.5)")
            case "while":
                return same(f"jax.lax.while_loop(lambda z: jnp.sum(z ** 2) > 1e3 * ({w}),"
                            f" lambda z: z / 2, {h})")
            case "shared_columns" if w == "n" and not t:
                a = self.param("n, n")
                return same(f"{a} @ {h} / jnp.sqrt(n) + {a}[:, 0]")
            case "mean_weight" if w == "n":
                a = self.param("n, n")
                return same(f"{h} @ ({a} + 1.0) / jnp.sqrt(n)")
            case "top":
                return same(f"{h} * (jax.lax.top_k({h}, 2)[0].sum() > 0)")
            case "flip":
                return same(f"{h} * {h}[..., ::-1]")
            case "prod":
                return same(f"{h} * jnp.prod({h}[..., :3], -1, keepdims=True)")
            case "repeat_channels" if w == "n":
                return same(f"jnp.repeat({h}[..., ::2], 2, -1)")
            case "data_cond":
                return same(f"jax.lax.cond(jnp.sum({h}) > 0, lambda z: z, lambda z: -z, {h})")
            case "difference_of_sums":
                a = self.dense(v)
                return same(f"{h} * (1 + (jnp.sum(jax.nn.relu({h})) / jnp.sqrt({w})"
                            f" - jnp.sum(jax.nn.relu({a.name})) / jnp.sqrt(n)))")
            case "stacked_sums":
                a, b = self.dense(v), self.dense(v)
                return same(f"{h} * (1 + jnp.stack([jnp.sum({a.name} * {b.name}), "
                            f"jnp.sum({a.name} ** 2 - {b.name} ** 2)]) / jnp.sqrt(n))[1]")
            case "mean_on_a_field":
                tiny = self.r.choice(["0.0 * {}", "{} / ({w})", "({} - {}.mean()) / ({w}) ** 2"])
                tiny = tiny.replace("{w}", w).replace("{}", h)
                return same(f"{h} + jnp.sqrt({w}) * ({h}.mean() + {tiny})")
            case "difference_of_means":
                a = self.dense(v)
                return same(f"{h} + jnp.sqrt({w}) * ((jnp.mean({h} ** 2) - jnp.mean({h} * {h}))"
                            f" + (jnp.mean({a.name}) - jnp.mean(-{a.name})) + 0.0 * {h})")
            case "unscaled_bilinear" if w == "n" and not t:
                return same(f"{h} * (1 + ({h} @ {self.param('n, n')}) @ {h} / n)")
            case "amplified_norm":
                return same(f"jnp.tanh(({h} - {h}.mean()) / {h}.std() * ({w}))")
            case "rescaled_mean":
                return same(f"{h} * (1 + jnp.sqrt({w}) * {h}.mean())")
            case "mixed_sums":
                a = self.dense(v)
                b = self.dense(v)
                return same(f"{h} * (1 + jnp.sum({a.name} ** 2) * jnp.sum({a.name} * {b.name})"
                            f" / n ** 1.5)")
            case "cumsum_width":
                return same(f"jnp.cumsum({h}, -1) / jnp.sqrt({w})")
            case "pole":
                return same(self.r.choice([f"1 / {h}", f"jnp.log(jnp.abs({h}))",
                                           f"jnp.exp({h} ** 2)", f"jnp.sqrt({h})",
                                           f"jnp.cbrt({h})", f"jnp.sqrt(jnp.abs({h}))"]))
            case "tie" if not t and w == "n":
                a = self.param("n, n")
                return same(f"{a} @ jnp.tanh({a}[::-1] @ {h} / jnp.sqrt(n)) / jnp.sqrt(n)")
        return self.activation(v)

    # ----------------------------------------------------------------- the whole

    def inputs(self) -> Value:
        r = self.r
        d = r.choice([3, 4, 5])
        positions = r.choice([None, None, None, 2, 3])
        kind = r.randrange(5)
        shape = (d,) if positions is None else (positions, d)
        self.steps, self.context = positions, None
        pick = lambda name: r.choice(INPUTS).format(x=name, d=d)
        if kind == 0:
            self.p.input_shapes = {"a": shape, "b": shape}
            first = self.let(pick('x["a"]'), "x")
            second = self.let('x["b"]', "x")
            u, z = Value(first, f"{first}.shape[-1]", positions, True), Value(
                second, str(d), positions, True)
        elif kind == 1:
            self.p.input_shapes = (shape, (3,))
            u = Value(self.let(pick("x[0]"), "x"), "", positions, True)
            z = Value(self.let("x[1]", "x"), "3", None, True)
        else:
            self.p.input_shapes = shape
            u, z = Value(self.let(pick("x"), "x"), "", positions, True), None
        u.width = str(self.width_of(u.name))
        if positions is not None and self.maybe(0.5):
            self.context = f"({u.name} @ {u.name}.T)"
        h = self.dense(u)
        if z is not None:
            g = self.dense(z)
            if g.positions == h.positions:
                h = self.value(f"{h.name} + {g.name}", "n", h.positions, gaussian=True)
            else:
                h = self.value(f"{h.name} + 0.7 * {g.name}[None]", "n", h.positions, gaussian=True)
        return h

    def width_of(self, name: str) -> int:
        """The last axis of a value computed from the input alone."""
        lines = [*self.p.lines, f"return {name}"]
        space: dict[str, Any] = {"jax": jax, "jnp": jnp, "np": np}
        exec("def g(x):\n" + "\n".join("    " + x for x in lines), space)
        is_shape = lambda s: isinstance(s, tuple) and all(isinstance(k, int) for k in s)
        x = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float64), self.p.input_shapes,
                         is_leaf=is_shape)
        return jax.eval_shape(space["g"], x).shape[-1]

    def write(self) -> Program:
        """The program."""
        v = self.inputs()
        depth = self.r.choice([1, 2, 2, 3, 3, 4])
        for _ in range(depth):
            blocks = [
                (self.activation, 5), (self.gate, 2), (self.norm, 2), (self.branches, 2),
                (self.residual, 2), (self.shared, 1.5), (self.shuffle, 2),
            ]
            if v.positions is not None:
                blocks += [(self.positions, 4), (self.attention, 1)]
            if not v.gaussian:
                blocks = [b for b in blocks if b[0] not in (self.activation, self.gate)]
                blocks += [(self.dense, 8), (self.gate, 1)]
            if self.maybe(self.illegal):
                blocks = [(self.break_something, 1)]
            kinds, weights = zip(*blocks)
            v = self.r.choices(kinds, weights)[0](v)
        kind = self.r.randrange(10)
        if kind == 0:
            self.p.lines.append(f"return {v.name}")
        elif kind == 1:
            a = self.dense(v)
            b = self.dense(self.activation(self.dense(v)))
            self.p.lines.append(f'return {{"one": {a.name}, "two": ({b.name}, {v.name})}}')
        elif kind == 2 and v.positions is not None:
            a = self.dense(v)
            self.p.lines.append(f"return {a.name}.mean(0), {a.name}")
        elif kind == 3:
            a = self.dense(v)
            other = self.partner(a)
            add = f" + {other.name}" if other else ""
            self.p.lines.append(f"return {a.name}{add}")
        else:
            a = self.dense(v)
            self.p.lines.append(f"return {a.name}")
        return self.p


def generate(seed: int, illegal: float = 0.12) -> Program:
    """The network of a seed."""
    return Writer(seed, illegal).write()
