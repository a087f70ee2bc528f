"""Random networks over images, sequences and graphs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
from attending import Attending
from forbidden import Forbidden
from program import Draft, Program, Stage
from vocabulary import ACTIVATIONS

MOST_POSITIONS = 16
STAGES = (Stage(96, 32, 3), Stage(256, 48, 4.5), Stage(512, 64, 5.5))
"""Narrower than for dense networks: every position costs as much as one of those."""


@dataclass
class Field:
    """A name in the program: its positions, its width as text, whether it is Gaussian."""

    name: str
    space: tuple[int, ...]
    width: str
    gaussian: bool


class SpatialWriter(Draft, Attending, Forbidden):
    """Writes one random network whose values have positions first and channels last."""

    def shape_of(self, name: str, n: int) -> tuple[int, ...]:
        """The shape of a value of the program at width ``n``."""
        trial = Program(self.p.seed, self.p.shapes, [*self.p.lines, f"return {name}"])
        f, shapes = trial.at(n)
        struct = lambda s: jax.ShapeDtypeStruct(s, jnp.result_type(float))
        is_shape = lambda s: isinstance(s, tuple) and all(isinstance(k, int) for k in s)
        x = jax.tree.map(struct, self.p.input_shapes, is_leaf=is_shape)
        return jax.eval_shape(f, {k: struct(s) for k, s in shapes.items()}, x).shape

    def field(self, text: str, *, gaussian: bool) -> Field:
        """A new value, with its shape found by evaluation at two widths."""
        name = self.let(text)
        (*space, a), (*_, b) = self.shape_of(name, 16), self.shape_of(name, 32)
        share = Fraction(b, 32)
        width = str(a) if a == b else (
            f"{share.numerator} * n // {share.denominator}" if share != 1 else "n")
        out = Field(name, tuple(space), width, gaussian)
        self.values.append(out)
        return out

    # ----------------------------------------------------------------- layers

    def norm_by(self, fan: str) -> str:
        c = self.r.choice(["", "", "0.8 * ", "1.3 * "])
        return f" * ({c}({fan}) ** -0.5)"

    def bias(self, v: Field, out: str = "n") -> str:
        kind = self.r.randrange(7)
        if kind == 0:
            return f" + 0.4 * {self.param(out, 'b')}"
        if kind == 1:
            return f" + 0.3 * {self.param(', '.join([*map(str, v.space), out]), 'B')}"
        return " + 0.2" if kind == 2 else ""

    def dense(self, v: Field, out: str = "n") -> Field:
        """The same layer at every position, or one of its own for each."""
        if v.space and self.maybe(0.12):
            self.note("untied positions")
            s = "xyz"[: len(v.space)]
            w = self.param(f"{', '.join(map(str, v.space))}, {v.width}, {out}")
            text = f'jnp.einsum("{s}c,{s}cd->{s}d", {v.name}, {w})'
        else:
            w = self.param(f"{v.width}, {out}")
            text = self.r.choice([f"{v.name} @ {w}", f"jnp.tensordot({v.name}, {w}, 1)",
                                  f'jnp.einsum("cd,...c->...d", {w}, {v.name})'])
        return self.field(f"{text}{self.norm_by(v.width)}{self.bias(v, out)}", gaussian=True)

    def conv(self, v: Field) -> Field:
        """A convolution in a random layout with random options."""
        rank, r, h = len(v.space), self.r, v.name
        kernel = [r.choice([k for k in (1, 2, 3) if k <= max(s, 1)]) for s in v.space]
        groups = r.choice([1, 1, 1, 2, 4]) if v.width == "n" else 1
        options = []
        if groups > 1:
            self.note("conv groups")
            options.append(f"feature_group_count={groups}")
        padding = r.choice(['"SAME"', '"SAME"', '"VALID"', "explicit", "wrapped"])
        if padding == "explicit":
            padding = str([(r.choice([0, 1, 2]), r.choice([0, 1])) for _ in v.space])
        if padding == "wrapped":
            mode = r.choice(["wrap", "reflect", "edge", "symmetric"])
            padding = '"VALID"'
            around = [(1 if s > 1 else 0, 1 if s > 1 and r.random() < 0.6 else 0) for s in v.space]
            h = self.let(f'jnp.pad({h}, {[*around, (0, 0)]}, mode="{mode}")')
            self.note("pad " + mode)
        strides = [r.choice([1, 1, 2]) for _ in v.space]
        if r.random() < 0.2:
            spread = [r.choice([1, 2]) for _ in v.space]
            options.append(f"rhs_dilation={spread}")
            if padding == '"VALID"':
                padding = str([(k - 1, k - 1) for k in spread])
        if r.random() < 0.15:
            options.append(f"lhs_dilation={[r.choice([1, 2]) for _ in v.space]}")
            padding = str([(1, 1)] * rank)
            self.note("conv transposed")
        s = "DHW"[3 - rank:]
        data = r.choice([f"N{s}C", f"N{s}C", f"NC{s}", f"{s}NC"])
        weight = r.choice([f"{s}IO", f"OI{s}", f"I{s}O"])
        out = r.choice([f"N{s}C", f"NC{s}"])
        sizes = dict(zip(s, map(str, kernel)), I=f"{v.width} // {groups}", O="n")
        w = self.param(", ".join(sizes[c] for c in weight))
        moved = f"jnp.einsum('{('n' + s + 'c').lower()}->{data.lower()}', {h}[None])"
        moved = f"{h}[None]" if data == f"N{s}C" else moved
        text = (f"jax.lax.conv_general_dilated({moved}, {w}, {strides}, {padding}, "
                f'dimension_numbers=("{data}", "{weight}", "{out}")'
                f"{''.join(', ' + o for o in options)})[0]")
        if out == f"NC{s}":
            text = f"jnp.moveaxis({text}, 0, -1)"
        fan = f"{math.prod(kernel)} * ({v.width}) // {groups}"
        return self.field(text + self.norm_by(fan), gaussian=True)

    def local(self, v: Field) -> Field:
        """A convolution with weights of its own at every place."""
        rank = len(v.space)
        kernel = [self.r.choice([1, 2]) if s > 1 else 1 for s in v.space]
        out = [s - k + 1 for s, k in zip(v.space, kernel)]
        s = "DHW"[3 - rank:]
        w = self.param(f"{', '.join(map(str, out))}, ({v.width}) * {math.prod(kernel)}, n")
        text = (f"jax.lax.conv_general_dilated_local({v.name}[None], {w}, {[1] * rank}, "
                f'"VALID", {kernel}, dimension_numbers=("N{s}C", "{s}IO", "N{s}C"))[0]')
        self.note("local")
        return self.field(text + self.norm_by(f"{math.prod(kernel)} * ({v.width})"), gaussian=True)

    def depthwise(self, v: Field) -> Field:
        """A filter for each channel; its output is a product of two random fields."""
        rank = len(v.space)
        times = self.r.choice([1, 1, 2])
        kernel = [self.r.choice([1, 2, 3]) if s > 1 else 1 for s in v.space]
        s = "DHW"[3 - rank:]
        w = self.param(f"{', '.join(map(str, kernel))}, 1, {times} * ({v.width})")
        text = (f'jax.lax.conv_general_dilated({v.name}[None], {w}, {[1] * rank}, "SAME", '
                f'dimension_numbers=("N{s}C", "{s}IO", "N{s}C"), '
                f"feature_group_count={v.name}.shape[-1])[0]")
        self.note("depthwise")
        return self.field(text + self.norm_by(str(math.prod(kernel))), gaussian=False)

    def activation(self, v: Field) -> Field:
        return self.field(self.r.choice(ACTIVATIONS).format(v=v.name), gaussian=False)

    def behind(self, v: Field) -> Field:
        """A function of what is no function of one Gaussian."""
        self.note("activation behind")
        return self.activation(v)

    # ----------------------------------------------------------------- over positions

    def pool(self, v: Field) -> Field:
        r, h = self.r, v.name
        window = [r.choice([1, 2, 3]) if s > 2 else min(s, 2) for s in v.space]
        strides = [r.choice([1, 2]) for _ in v.space]
        padding = r.choice(['"VALID"', '"SAME"'])
        total = (f"jax.lax.reduce_window({{}}, 0.0, jax.lax.add, {(*window, 1)}, "
                 f"{(*strides, 1)}, {padding})")
        self.note("pool")
        if r.random() < 0.4:
            text = f"{total.format(h)} / {total.format(f'jnp.ones_like({h})')}"
        else:
            text = f"{total.format(h)} / {math.prod(window)}"
        return self.field(text, gaussian=v.gaussian)

    def move(self, v: Field) -> Field:
        """Something linear over the positions alone."""
        r, h, rank, first = self.r, v.name, len(v.space), v.space[0]
        axis = r.randrange(rank)
        size = v.space[axis]
        at = lambda piece: f"{h}[{', '.join([':'] * axis + [piece])}]"
        choices = [
            f"jnp.roll({h}, 1, {axis})", f"jnp.flip({h}, {axis})", f"jnp.cumsum({h}, {axis})",
            at("::2"), at(f"{size - 1}:") if size > 1 else h,
            f"jnp.concatenate([{at(':1')}, {h}], {axis})",
            f"jnp.repeat({h}, 2, {axis})" if size < 3 else f"jnp.tile({at(':2')}, "
            f"{tuple(2 if k == axis else 1 for k in range(rank + 1))})",
            f"jnp.swapaxes({h}, 0, {rank - 1})",
            f"jax.image.resize({h}, ({', '.join(str(r.choice([1, 2, 3])) for _ in v.space)}, "
            f'{h}.shape[-1]), "{r.choice(["nearest", "linear", "cubic"])}")',
            f"{h}.reshape(-1, {h}.shape[-1])",
            f"jnp.tensordot(jnp.array(np.random.default_rng(1).normal(size=(2, {first}))), {h}, 1)",
            f"{h} * jnp.linspace(0.5, 2.0, {v.space[-1]})[:, None]",
            f"{h} - {h}.mean({tuple(range(rank))}, keepdims=True)",
            f"jnp.stack([{h}, 2 * {h}]).mean(0)",
            f"{h}.at[0].set(0.0)", f"{h}.at[0].add({h}[-1])",
            f"jnp.take({h}, jnp.array([{size - 1}, 0]), axis={axis})",
            f"{h}.mean({axis})" if rank > 1 else f"jnp.pad({h}, ((1, 0), (0, 0)))[:-1]",
            f"jax.lax.pad({h}, 0.0, [(1, -1, 1)] + [(0, 0, 0)] * {rank})",
            f"jnp.where(jnp.arange({v.space[-1]})[:, None] % 2 == 0, {h}, 0.0)",
            f"jax.lax.reduce_window({h}, 0.0, jax.lax.add, {(*[1] * (rank - 1), 2, 1)}, "
            f'{(1,) * (rank + 1)}, "SAME")',
        ]
        if self.gate:
            choices += [f"jnp.where({self.gate}.reshape({first}, {', '.join(['1'] * rank)}), "
                        f"{h}, 0.0)"] * 3 if self.gate_size == first else []
        text = r.choice(choices)
        self.note("move " + text.replace(h, "h").split("(")[0])
        return self.field(text, gaussian=v.gaussian)

    def shuffle(self, v: Field) -> Field:
        """Between channels and positions."""
        h, rank = v.name, len(v.space)
        if rank == 2 and all(s <= 2 for s in v.space) and v.width == "n":
            a, b = v.space
            text = (f"{h}.reshape({a}, {b}, 2, 2, -1).transpose(0, 2, 1, 3, 4)"
                    f".reshape({2 * a}, {2 * b}, -1)")
        elif rank == 2 and all(s % 2 == 0 for s in v.space):
            a, b = (s // 2 for s in v.space)
            text = (f"{h}.reshape({a}, 2, {b}, 2, -1).transpose(0, 2, 1, 3, 4)"
                    f".reshape({a}, {b}, -1)")
        elif rank == 1 and v.space[0] % 2 == 0:
            text = f"{h}.reshape({v.space[0] // 2}, -1)"
        elif rank == 1 and v.width == "n":
            text = f"{h}.reshape({2 * v.space[0]}, -1)"
        else:
            return self.move(v)
        self.note("shuffle")
        return self.field(text, gaussian=v.gaussian)

    def neighbours(self, v: Field) -> Field:
        """Aggregation over a graph that may belong to the example."""
        h, t = v.name, v.space[0]
        kind = self.r.randrange(4)
        if kind < 2 and self.graph and self.graph_size == t:
            text = self.r.choice([
                f"jnp.tensordot({self.graph}, {h}, 1)",
                f"{h} + jnp.tensordot({self.graph}, {h}, 1)",
                f"jnp.tensordot({self.graph} / (1e-3 + {self.graph}.sum(1, keepdims=True)), {h}, 1)",
                f"jnp.tensordot({self.graph} @ {self.graph}, {h}, 1) / {t}",
            ])
            self.note("graph of the example")
        elif self.ends and self.ends_size == t:
            text = (f"jax.ops.segment_sum({h}[{self.ends}[:, 0]], {self.ends}[:, 1], "
                    f"num_segments={t})")
            self.note("edges of the example")
        else:
            ends = [[self.r.randrange(t) for _ in range(5)] for _ in range(2)]
            text = (f"jax.ops.segment_sum({h}[np.array({ends[0]})], np.array({ends[1]}), "
                    f"num_segments={t})")
            self.note("edges")
        return self.field(text, gaussian=v.gaussian)

    # ----------------------------------------------------------------- blocks

    def partner(self, v: Field) -> Field | None:
        same = [q for q in self.values
                if q.name != v.name and q.space == v.space and q.width == v.width]
        return self.r.choice(same) if same else None

    def residual(self, v: Field) -> Field:
        other = self.partner(v)
        if other is None:
            if v.gaussian:
                return self.activation(v)
            return self.dense(v)
        a, sign = self.r.choice(["", "0.5 * "]), self.r.choice(["+", "+", "-"])
        return self.field(f"{a}{v.name} {sign} {other.name}",
                          gaussian=v.gaussian and other.gaussian)

    def join(self, v: Field) -> Field:
        same = [q for q in self.values if q.space == v.space and q.name != v.name]
        if not same:
            return self.move(v)
        other = self.r.choice(same)
        self.note("join channels")
        return self.field(f"jnp.concatenate([{v.name}, {other.name}], -1)",
                          gaussian=v.gaussian and other.gaussian)

    def excite(self, v: Field) -> Field:
        """Channels scaled by a function of their pooled values."""
        axes = tuple(range(len(v.space)))
        pooled = self.field(f"{v.name}.mean({axes})", gaussian=v.gaussian)
        gate = self.activation(self.dense(pooled, v.width))
        self.note("squeeze and excite")
        return self.field(f"{v.name} * {gate.name}", gaussian=False)

    def product(self, v: Field) -> Field:
        a, b = self.dense(v), self.dense(v)
        act = self.r.choice(["{v}", *ACTIVATIONS]).format(v=b.name)
        return self.field(f"{a.name} * ({act})", gaussian=False)

    def norm(self, v: Field) -> Field:
        h, rank = v.name, len(v.space)
        everywhere = tuple(range(rank))
        kind = self.r.randrange(5)
        self.note(f"norm {kind}")
        if kind == 0:
            text = (f"({h} - {h}.mean(-1, keepdims=True)) "
                    f"/ jnp.sqrt({h}.var(-1, keepdims=True) + 1e-5)")
        elif kind == 1:
            text = f"{h} / jnp.sqrt(1e-6 + jnp.mean({h} ** 2, keepdims=True))"
        elif kind == 2:
            text = f"({h} - {h}.mean(keepdims=True)) / jnp.sqrt({h}.var(keepdims=True) + 1e-5)"
        elif kind == 3 and v.width == "n":
            z = self.let(f"{h}.reshape(*{h}.shape[:-1], 2, n // 2)")
            axes = (*everywhere, rank + 1)
            text = (f"(({z} - {z}.mean({axes}, keepdims=True)) "
                    f"/ jnp.sqrt({z}.var({axes}, keepdims=True) + 1e-5)).reshape({h}.shape)")
        else:
            text = f"{h} - {h}.mean({everywhere}, keepdims=True)"
        return self.field(text, gaussian=v.gaussian)

    def shared(self, v: Field) -> Field:
        """One weight used at several depths or times."""
        if v.width != "n":
            v = self.dense(v)
        act = self.r.choice(ACTIVATIONS)
        w = self.param("n, n")
        self.note("shared")
        if self.maybe(0.5):
            body = act.format(v="h")
            return self.field(
                f"jax.lax.fori_loop(0, 2, lambda i, h: ({body}) @ {w} / jnp.sqrt(n), {v.name})",
                gaussian=True)
        u, z = self.param("n, n"), self.dense(v)
        body = act.format(v="h")
        start = f"jnp.zeros({z.name}.shape[1:])"
        last = self.maybe(0.4)
        backwards = ", reverse=True" if self.maybe(0.3) else ""
        return self.field(
            f"jax.lax.scan(lambda h, z: ((({body}) @ {w} + z @ {u}) / jnp.sqrt(n),) * 2, "
            f"{start}, {z.name}{backwards})[{0 if last else 1}]", gaussian=True)

    # ----------------------------------------------------------------- the whole

    def inputs(self) -> Field:
        """Images, sequences, tokens, or graphs; all made from arrays of normal numbers."""
        r = self.r
        self.gate = self.graph = self.ends = None
        self.gate_size = self.graph_size = self.ends_size = 0
        kind = r.choice(["image", "image", "line", "sequence", "tokens", "graph", "volume"])
        self.note("input " + kind)
        d, t = r.choice([2, 3]), r.choice([3, 4])
        if kind in ("image", "line", "volume"):
            space = {"image": r.choice([(3, 3), (4, 3), (4, 4)]), "line": (r.choice([4, 6]),),
                     "volume": (2, 2, 2)}[kind]
            self.p.input_shapes = (*space, d)
            return Field(self.let("x"), space, str(d), True)
        if kind == "tokens":
            self.p.input_shapes = {"text": (t,), "length": ()}
            k = self.let('jnp.floor(2 * jnp.abs(x["text"])).astype(int) % 5')
            self.gate = self.let(f'jnp.arange({t}) <= jnp.floor(2 * jnp.abs(x["length"]))', "m")
            self.gate_size = t
            table = self.param("5, n", "E")
            look = r.choice([f"{table}[{k}]", f"jnp.take({table}, {k}, axis=0)",
                             f"jax.nn.one_hot({k}, 5) @ {table}"])
            where = r.choice([f" + {self.param(f'{t}, n', 'P')}", f" + 0.5 * {self.param(f'{t + 2}, n', 'P')}[:{t}]",
                              "", f" + jnp.sin(jnp.arange({t}.0)[:, None] * jnp.linspace(0, 1, n))"])
            return self.field(look + where, gaussian=True)
        if kind == "sequence":
            self.p.input_shapes = {"x": (t, d), "length": ()}
            self.gate = self.let(f'jnp.arange({t}) <= jnp.floor(2 * jnp.abs(x["length"]))', "m")
            self.gate_size = t
            if r.random() < 0.3:
                self.note("ragged input")
                return Field(self.let(f'jnp.where({self.gate}[:, None], x["x"], 0.0)'), (t,),
                             str(d), True)
            return Field(self.let('x["x"]'), (t,), str(d), True)
        self.p.input_shapes = {"nodes": (t, d), "links": (t, t), "ends": (5, 2)}
        self.graph = self.let('(x["links"] + x["links"].T > 0) * 1.0', "A")
        self.ends = self.let(f'jnp.floor(3 * jnp.abs(x["ends"])).astype(int) % {t}', "e")
        self.graph_size = self.ends_size = t
        return Field(self.let('x["nodes"]'), (t,), str(d), True)

    def blocks(self, v: Field) -> list[tuple[Callable[[Field], Field], float]]:
        """What may come next, with weights."""
        if not v.space:
            base: list[Any] = [(self.activation, 4), (self.dense, 2), (self.residual, 1)]
            return base if v.gaussian else [(self.dense, 1)]
        spatial: list[Any] = [
            (self.pool, 2), (self.move, 3), (self.shuffle, 1), (self.residual, 2), (self.join, 1),
            (self.norm, 2), (self.neighbours, 6 if self.graph else 0.4), (self.depthwise, 0.7),
            (self.excite, 0.6), (self.attention, 2.5 if len(v.space) == 1 else 0.3),
            (self.shared, 1.0),
        ]
        if v.gaussian:
            return [*spatial, (self.activation, 8), (self.product, 1)]
        return [*spatial, (self.conv, 10), (self.local, 1), (self.dense, 4), (self.behind, 1.5)]

    def write(self) -> Program:
        """The program."""
        r = self.r
        self.p.stages = STAGES
        v = self.inputs()
        first = [(self.conv, 5), (self.dense, 3), (self.local, 0.5)]
        if len(v.space) == 1 and v.width != "n":
            first += [(self.attention_on_input, 1)]
        if v.width != "n":
            kinds, weights = zip(*first)
            new = r.choices(kinds, weights)[0](v)
            v = self.dense(v) if 0 in new.space else new
        for _ in range(r.choice([1, 2, 3, 4, 5, 6])):
            options = self.blocks(v)
            if self.maybe(self.illegal) and v.space:
                options = [(self.forbidden, 1)]
            kinds, weights = zip(*options)
            new = r.choices(kinds, weights)[0](v)
            if 0 in new.space:  # nothing was left: stay
                self.values.remove(new)
                continue
            v = new
            if math.prod(v.space) > MOST_POSITIONS:
                v = self.field(f"{v.name}[{', '.join(['::2'] * len(v.space))}]", gaussian=v.gaussian)
        self.readout(v)
        return self.p

    def readout(self, v: Field) -> None:
        """Pooled, flattened, one position, or every position."""
        r, h = self.r, v.name
        kind = r.choice(["pool", "pool", "flatten", "one", "all", "masked"]) if v.space else "none"
        axes = tuple(range(len(v.space)))
        self.note("readout " + kind)
        if kind == "pool":
            v = self.field(f"{h}.{r.choice(['mean', 'mean', 'sum'])}({axes})", gaussian=v.gaussian)
        elif kind == "flatten":
            w = self.param(f"{math.prod(v.space)} * ({v.width}), n")
            fan = f"{math.prod(v.space)} * ({v.width})"
            self.p.lines.append(f"return {h}.reshape(-1) @ {w} / jnp.sqrt({fan})")
            return
        elif kind == "one":
            v = self.field(f"{h}[{', '.join('0' for _ in v.space)}]", gaussian=v.gaussian)
        elif kind == "masked" and self.gate and self.gate_size == v.space[0]:
            tail = ", ".join(["1"] * len(v.space))
            m = self.let(f"{self.gate}.reshape({v.space[0]}, {tail}) * 1.0", "m")
            v = self.field(f"({m} * {h}).sum({axes}) / {m}.sum()", gaussian=v.gaussian)
        elif kind == "all" and math.prod(v.space) > 6:
            v = self.field(f"{h}.mean(0)", gaussian=v.gaussian)
        elif kind == "masked":
            v = self.field(f"{h}.mean({axes})", gaussian=v.gaussian)
        out = self.dense(v)
        self.p.lines.append(f"return {out.name}")


def generate(seed: int, illegal: float = 0.12) -> Program:
    """The network of a seed."""
    return SpatialWriter(seed, illegal).write()
