"""The words that random programs are made of."""

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
