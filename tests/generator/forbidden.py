"""What must be refused over positions, or at least never be read wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spatial_writer import Field

FORBIDDEN = (
    "max_pool", "max", "batch_norm", "learned_mixing", "one_filter", "noise", "hard_attention",
    "softmax_of_field", "tied_positions", "shifted_channels", "channel_pool", "one_head",
    "steep_logits", "product_of_neighbours", "growing_sum", "activated_filter", "sorted",
    "shared_values", "mixed_axes", "gather_by_value", "shared_heads", "sum_over_channels",
)


class Forbidden:
    """The part of a writer that breaks an assumption."""

    def forbidden(self: Any, v: Field) -> Field:
        """One assumption broken, in a block that keeps the shape where it can."""
        kind = self.r.choice(FORBIDDEN)
        self.note("illegal " + kind)
        h, w, rank, t = v.name, v.width, len(v.space), v.space[0]
        axes = tuple(range(rank))
        same = lambda text: self.field(text, gaussian=False)
        tail = ", ".join(["1"] * rank)
        match kind:
            case "max_pool":
                window = (*[min(2, s) for s in v.space], 1)
                return same(f"jax.lax.reduce_window({h}, -jnp.inf, jax.lax.max, {window}, "
                            f'{(1,) * (rank + 1)}, "SAME")')
            case "max":
                return same(f"{h} - {h}.max({axes}, keepdims=True)")
            case "batch_norm":
                return same(f"({h} - {h}.mean({axes})) / jnp.sqrt({h}.var({axes}) + 0.1)")
            case "learned_mixing":
                m = self.param(f"{t}, {t}")
                return same(f"jnp.tensordot({m}, {h}, 1) / {t} ** 0.5")
            case "one_filter":
                m = self.param("2")
                return same(f"{h} * {m}[0] + jnp.roll({h}, 1, 0) * {m}[1]")
            case "noise":
                return same(f"{h} * (jax.random.uniform(jax.random.key(1), {h}.shape) > 0.5)")
            case "hard_attention":
                # Apart by a margin: networks of these widths cannot tell which of two close means
                # is larger.
                mean = f"{h}.mean(-1).reshape(-1)[:{t}] - jnp.arange({t})"
                return same(f"jnp.take({h}, jnp.argmax({mean}), axis=0) + {h}")
            case "softmax_of_field":
                return same(f"jax.nn.softmax({h}, 0)")
            case "tied_positions" if w == "n":
                b = self.param(f"{t}, n")
                return same(f"{h} + {b}.reshape({t}, {tail}, n)[:, {', '.join(['0'] * rank)}]"
                            f".reshape({t}, {', '.join(['1'] * (rank - 1) + ['n'])})"
                            f" * jnp.tanh({h} @ {b}[0] / jnp.sqrt(n))[..., None]")
            case "shifted_channels":
                return same(f"{h} + jnp.roll({h}, (1, 1), (0, -1))")
            case "channel_pool":
                return same(f"jax.lax.reduce_window({h}, 0.0, jax.lax.add, "
                            f"{(*[1] * rank, 2)}, {(1,) * (rank + 1)}, \"SAME\")")
            case "one_head" if rank == 1:
                q, k, x = (self.dense(v).name for _ in range(3))
                return same(f"jax.nn.softmax({q} @ {k}.T / jnp.sqrt(n), -1) @ {x}")
            case "steep_logits" if rank == 1:
                q, x = (self.dense(v).name for _ in range(2))
                return same(f"jax.nn.softmax({q} @ {q}.T / jnp.sqrt(n), -1) @ {x}")
            case "product_of_neighbours":
                return same(f"{h} * jnp.roll({h}, 1, 0)")
            case "growing_sum":
                return same(f"{h} * (1 + {h}.sum({axes}).mean() * jnp.sqrt({w}))")
            case "activated_filter":
                z = self.depthwise(v)
                return self.activation(z)
            case "sorted":
                return same(f"jnp.sort({h}, 0)")
            case "shared_values" if w == "n" and rank == 1:
                m = self.param("n, n")
                s = self.let(f"jax.nn.softmax({h} @ {m} @ {h}.T / n, -1)", "s")
                return same(f"{s} @ ({h} @ {m}.T / jnp.sqrt(n))")
            case "mixed_axes" if w == "n" and rank == 1:
                return same(f"{h}.reshape(-1, {t}).T.reshape({h}.shape)")
            case "gather_by_value":
                return same(f"{h}[jnp.clip(jnp.floor(jnp.abs({h}.mean(-1).reshape(-1)[:2])), 0, "
                            f"{t - 1}).astype(int)]")
            case "shared_heads" if w == "n" and rank == 1:
                m = self.param("n // 4, n // 4")
                return same(f"({h}.reshape({t}, 4, n // 4) @ {m} / jnp.sqrt(n // 4))"
                            f".reshape({t}, n)")
            case "sum_over_channels":
                return same(f"{h} * jnp.tanh({h}.sum(-1, keepdims=True) / jnp.sqrt({w}))")
        return self.activation(v)
