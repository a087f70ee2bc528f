"""Attention in random spellings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spatial_writer import Field

MAPS = ("jax.nn.softmax({}, -1)", "jax.nn.softmax({}, -1)", "jax.nn.softmax({}, -1)",
        "jax.nn.relu({})", "{}", "jnp.tanh({})", "jnp.exp({} / 4)", "{} ** 2")


class Attending:
    """The part of a writer that draws attention; positions are one axis."""

    r: Any
    p: Any

    def line(self: Any, v: Field) -> Field:
        """The value with its positions in one axis."""
        if len(v.space) == 1:
            return v
        return self.field(f"{v.name}.reshape(-1, {v.name}.shape[-1])", gaussian=v.gaussian)

    def masked(self: Any, logits: str, queries: int, keys: int, *, soft: bool) -> str:
        """The logits with a mask or an additive bias."""
        no = "-1e9" if soft else "0.0"
        kind = self.r.randrange(8)
        place = f"(jnp.arange({queries})[:, None] - jnp.arange({keys}))"
        if kind == 0:
            self.note("causal")
            return f"jnp.where({place} >= 0, {logits}, {no})"
        if kind == 1:
            self.note("window")
            return f"jnp.where(jnp.abs({place}) <= 1, {logits}, {no})"
        if kind == 2 and soft:
            self.note("additive bias")
            return f"{logits} - 0.3 * jnp.abs({place})"
        if kind in (3, 4, 5) and self.gate and self.gate_size == keys:
            self.note("mask of the example")
            return f"jnp.where({self.gate}, {logits}, {no})"
        return logits

    def attention(self: Any, v: Field) -> Field:
        """Self or cross attention, with one head or several, in each scaling with a limit."""
        v = self.line(v)
        if v.space[0] > 9:
            v = self.field(f"{v.name}[:4]", gaussian=v.gaussian)
        others = [q for q in self.values if len(q.space) == 1 and q.space[0] <= 4]
        u = self.r.choice(others) if others and self.maybe(0.25) else v
        kind = self.r.choice(["one", "one", "heads", "heads", "linear", "random"])
        self.note("attention " + kind)
        h, g, (t,), (s,) = v.name, u.name, v.space, u.space
        shared = v.width == u.width and kind in ("one", "heads") and self.maybe(0.8)
        out = "n"
        if kind == "one":
            wq = self.param(f"{v.width}, n")
            wk = wq if shared else self.param(f"{u.width}, n")
            wv = self.param(f"{u.width}, n")
            q = self.let(f"{h} @ {wq}{self.norm_by(v.width)}")
            k = self.let(f"{g} @ {wk}{self.norm_by(u.width)}")
            x = self.let(f"{g} @ {wv}{self.norm_by(u.width)}")
            act = self.r.choice(MAPS)
            logits = self.let(self.masked(f"{q} @ {k}.T / n", t, s, soft="softmax" in act), "s")
            return self.field(f"({act.format(logits)}) @ {x}", gaussian=True)
        heads = {"heads": "4", "linear": "n // 4", "random": "n // 4"}[kind]
        wide = "n // 4"
        wq = self.param(f"{heads}, {v.width}, {wide}")
        wk = wq if shared else self.param(f"{heads}, {u.width}, {wide}")
        wv = self.param(f"{heads}, {u.width}, {wide}")
        split = lambda x, w, i: self.let(
            f'jnp.einsum("tc,hcd->htd", {x}, {w}){self.norm_by(i)}')
        q, k, x = split(h, wq, v.width), split(g, wk, u.width), split(g, wv, u.width)
        act = self.r.choice(MAPS) if kind == "heads" else "{}"
        act = "jax.nn.softmax({}, -1)" if kind == "random" else act
        scale = f"({wide})" if kind == "heads" else f"jnp.sqrt({wide})"
        logits = self.masked(f'jnp.einsum("htd,hsd->hts", {q}, {k}) / {scale}', t, s,
                             soft="softmax" in act)
        logits = self.let(logits, "s")
        mixed = self.let(f'jnp.einsum("hts,hsd->thd", {act.format(logits)}, {x})'
                         f".reshape({t}, -1)")
        fan = f"({heads}) * ({wide})"
        w = self.param(f"{fan}, {out}")
        return self.field(f"{mixed} @ {w}{self.norm_by(fan)}", gaussian=True)

    def attention_on_input(self: Any, v: Field) -> Field:
        """Weights that are known: softmax of products of the inputs."""
        t = v.space[0]
        logits = self.masked(f"{v.name} @ {v.name}.T", t, t, soft=True)
        weights = self.let(f"jax.nn.softmax({logits}, -1)", "s")
        h = self.dense(v)
        self.note("attention on inputs")
        return self.field(f"{weights} @ {h.name}", gaussian=True)
