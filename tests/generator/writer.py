"""Random dense networks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from illegal import Illegal
from program import Draft, Program, Value
from vocabulary import ACTIVATIONS, INPUTS


class Writer(Draft, Illegal):
    """Writes one random dense network."""

    def value(self, text: str, width: str, positions: int | None, *, gaussian: bool) -> Value:
        out = Value(self.let(text), width, positions, gaussian)
        self.values.append(out)
        return out

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
        same = [q for q in self.values if q.name != v.name and q.width == v.width
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
            self.values.remove(z)
            return self.value(f"jax.nn.glu({z.name}, -1)", "n", v.positions, gaussian=False)
        if kind == 1:
            z = self.dense(v, "2 * n")
            self.values.remove(z)
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

    def cell(self, v: Value) -> Value:
        """A gated recurrent cell, over positions or from layer to layer with the same weights."""
        self.note("gated cell")
        x = self.dense(v)
        u, z, r = self.param("n, n"), self.param("n, n"), self.param("n, n")
        gate = lambda w: f"jax.nn.sigmoid({{x}} + {w} @ h / jnp.sqrt(n))"
        act = self.r.choice(ACTIVATIONS)
        if self.maybe(0.5):
            new = act.format(v=f"({{x}} + {gate(r)} * ({u} @ h) / jnp.sqrt(n))")
        else:
            new = act.format(v=f"({{x}} + {u} @ ({gate(r)} * h) / jnp.sqrt(n))")
        step = f"h + {gate(z)} * ({new} - h)"
        if v.positions is None:
            body = step.replace("{x}", x.name)
            text = f"jax.lax.fori_loop(0, 2, lambda i, h: {body}, jnp.zeros(n))"
            return self.value(text, "n", None, gaussian=False)
        body = f"lambda h, x: (({step.replace('{x}', 'x')}),) * 2"
        end = self.r.choice(["[0]", "[1]"])
        text = f"jax.lax.scan({body}, jnp.zeros(n), {x.name}){end}"
        return self.value(text, "n", None if end == "[0]" else v.positions, gaussian=False)

    def behind(self, v: Value) -> Value:
        """A function of what is no function of one Gaussian."""
        self.note("activation behind")
        return self.activation(v)

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
                (self.residual, 2), (self.shared, 1.5), (self.shuffle, 2), (self.cell, 0.7),
            ]
            if v.positions is not None:
                blocks += [(self.positions, 4), (self.attention, 1)]
            if not v.gaussian:
                blocks = [b for b in blocks if b[0] not in (self.activation, self.gate)]
                blocks += [(self.dense, 8), (self.gate, 1), (self.behind, 2)]
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
