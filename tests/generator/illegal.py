"""What must be refused, or at least never be read wrongly."""

from __future__ import annotations

from program import Value

ILLEGAL = (
    "max_pool", "sort", "softmax", "transpose", "sum_of_activations", "sqrt_logits", "roll",
    "random_gate", "noise", "argmax", "tie", "overlap", "constant_matrix", "norm_power", "while",
    "shared_columns", "mean_weight", "top", "flip", "prod", "repeat_channels", "data_cond",
    "difference_of_sums", "stacked_sums", "rescaled_mean", "mean_on_a_field", "difference_of_means", "unscaled_bilinear", "amplified_norm", "mixed_sums", "sum_readout",
    "cumsum_width", "pole",
)


class Illegal:
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
