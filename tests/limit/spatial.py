"""Rows of the contract over positions: what has no counterpart in the peer library."""

import jax
import jax.numpy as jnp
import numpy as np

from .networks import OUT, N, Row, dense, erf, relu

IMAGE, LINE, TOKENS = (4, 4, 3), (6, 3), (4, 5)
LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv(w, x, strides=(1, 1), padding="SAME", groups=1, **options):
    fan_in = np.prod(w.shape[:-1])
    return jax.lax.conv_general_dilated(
        x[None], w, strides, padding, dimension_numbers=LAYOUT, feature_group_count=groups,
        **options,
    )[0] / float(np.sqrt(fan_in))


def top(w, h):
    return dense(w, h.mean(tuple(range(h.ndim - 1))))


def padded(mode):
    def f(p, x):
        around = lambda h: jnp.pad(h, ((1, 1), (1, 1), (0, 0)), mode=mode)
        h = relu(conv(p[0], around(x), padding="VALID") + 0.3 * p[3])
        return top(p[2], relu(conv(p[1], around(h), padding="VALID")))
    return f


def depthwise(p, x):
    h = erf(conv(p[0], x))
    h = conv(p[1], h, groups=N)
    return top(p[3], relu(conv(p[2], h)))


def attention(mask=None, random=False, soft=True):
    """Heads of an attention: 1/d with shared queries and keys, or 1/sqrt(d) with their own."""

    def f(p, x):
        x = erf(x @ p[0].T / np.sqrt(x.shape[1]))
        split = lambda w: jnp.einsum("tc,hcd->htd", x, w) / np.sqrt(N)
        q, k, v = (split(w) for w in p[1:4])
        logits = jnp.einsum("htd,hsd->hts", q, q if not random else k) / (
            np.sqrt(q.shape[-1]) if random else q.shape[-1])
        if mask is not None:
            logits = jnp.where(mask, logits, -1e9 if soft else 0.0)
        weights = jax.nn.softmax(logits) if soft else logits
        mixed = (weights @ v).transpose(1, 0, 2).reshape(x.shape[0], -1)
        return dense(p[5], relu(mixed @ p[4].T / np.sqrt(mixed.shape[1])).mean(0))

    return f


def heads_of(count, width):
    return ((N, 5), *((count, N, width),) * 3, (N, count * width), (OUT, N))


def group_norm(p, x):
    h = conv(p[0], x).reshape(4, 4, 2, N // 2)
    mean = h.mean((0, 1, 3), keepdims=True)
    h = (h - mean) / jnp.sqrt(h.var((0, 1, 3), keepdims=True) + 1e-5)
    return top(p[2], relu(conv(p[1], relu(h.reshape(4, 4, N)))))


def instance_norm(p, x):
    """Over positions only, for every channel: linear in the field up to the factor."""
    h = conv(p[0], x)
    return top(p[2], relu(conv(p[1], relu(h - h.mean((0, 1), keepdims=True)))))


def edges(p, x):
    """Messages along a ring with chords, by indices."""
    send, receive = np.array([0, 1, 2, 3, 0, 2]), np.array([1, 2, 3, 0, 2, 2])
    add = lambda h: jax.ops.segment_sum(h[send], receive, num_segments=4)
    h = x @ p[0].T / np.sqrt(5)
    h = add(relu(h)) @ p[1].T / np.sqrt(N) + h
    return dense(p[3], relu(add(h)).mean(0))


def tokens(p, x):
    h = p[0][x] + 0.5 * p[1][: len(x)]
    h = h + relu(h) @ p[2].T / np.sqrt(N)
    return dense(p[3], relu(h[1:] @ p[4].T / np.sqrt(N) + h[:-1]).mean(0))


def scanned(p, xs):
    """A convolution that reads an image row by row: weights shared over time and space."""
    def step(h, x):
        h = erf(0.7 * line(p[1], h) + line(p[0], x))
        return h, h

    line = lambda w, h: jax.lax.conv_general_dilated(
        h[None], w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )[0] / float(np.sqrt(np.prod(w.shape[:2])))
    _, hs = jax.lax.scan(step, jnp.zeros((4, N)), xs)
    return top(p[2], hs)


def written(p, x):
    """Places set, added to and multiplied, and whole axes repeated."""
    h = conv(p[0], x).at[0].set(0.0).at[1:3, ::2].add(0.7)
    h = relu(h.at[:, 1].multiply(2.0).at[jnp.array([3, 2])].set(h[:2]))
    return top(p[2], relu(conv(p[1], jnp.tile(h[:2], (1, 2, 1)).at[0, 3].add(h[1, 0]))))


def looked_up(p, x):
    """Rows of a table and of a layer; what is outside of them is zero."""
    h = jnp.take(p[0], x, axis=0) + p[0].at[x + 2].get(mode="fill", fill_value=0.0)
    h = erf(h @ p[1].T / np.sqrt(N))
    h = h.at[x[::-1]].get(mode="fill", fill_value=0.0) + jnp.take(h, jnp.array([1, 3, 0, 0]), 0)
    return dense(p[2], h.mean(0))


def class_token(p, x):
    """Patches of an image behind a token of their own, and positions for all of them."""
    patches = conv(p[0], x, (2, 2), "VALID").reshape(4, N)
    h = jnp.concatenate([p[1], patches]) + 0.5 * p[2]
    a, b = jnp.unstack((h @ p[3].T / np.sqrt(N)).reshape(5, 2, N), axis=1)
    return dense(p[4], (relu(a) * b)[0] + relu(h).mean(0))


BODY = ((3, 3, 3, N), (3, 3, N, N), (OUT, N))
CAUSAL = np.tril(np.ones((4, 4), bool))

ROWS = (
    Row("conv_dilated", lambda p, x: top(p[2], relu(conv(
        p[1], relu(conv(p[0], x)), rhs_dilation=(2, 1)))), BODY, IMAGE),
    Row("conv_spread_input", lambda p, x: top(p[2], relu(conv(
        p[1], relu(conv(p[0], x)), lhs_dilation=(2, 3), padding=((1, 2), (0, 3))))), BODY, IMAGE),
    Row("conv_cropped", lambda p, x: top(p[2], relu(conv(
        p[1], relu(conv(p[0], x)), (2, 1), padding=((-1, 1), (2, -1))))), BODY, IMAGE),
    Row("post_activation_image", lambda p, x: (lambda h: top(p[2], relu(h + conv(p[1], h))))(
        relu(conv(p[0], x))), BODY[:3], (3, 3, 3), drawn=True),
    Row("conv_groups", lambda p, x: top(p[2], relu(conv(
        p[1], relu(conv(p[0], x)), groups=2))), (BODY[0], (3, 3, N // 2, N), BODY[2]), IMAGE),
    Row("conv_depthwise", depthwise, (BODY[0], (3, 3, 1, N), (1, 1, N, N), BODY[2]), IMAGE),
    Row("conv_shared", lambda p, x: top(p[2], erf(conv(p[1], erf(conv(p[1], erf(conv(
        p[0], x)), (2, 1))), rhs_dilation=(1, 2)))), BODY, IMAGE),
    *(Row(f"padded_{mode}", padded(mode), (*BODY, (N,)), IMAGE)
      for mode in ("wrap", "reflect", "edge", "symmetric")),
    Row("channels_first", lambda p, x: dense(p[2], relu(jax.lax.conv_general_dilated(
        relu(jax.lax.conv_general_dilated(x.transpose(2, 0, 1)[None], p[0], (1, 1), "SAME"))
        / 27**0.5, p[1], (2, 2), "SAME")[0] / (9 * N) ** 0.5).mean((1, 2))),
        ((N, 3, 3, 3), (N, N, 3, 3), (OUT, N)), IMAGE),
    Row("flatten_inside", lambda p, x: dense(p[3], relu(dense(
        p[2], relu(conv(p[0], x)).reshape(-1)))), (BODY[0], (1,), (N, 16 * N), (OUT, N)), IMAGE),
    Row("dense_convolutions", lambda p, x: (lambda h: top(p[2], jnp.concatenate(
        [h, relu(conv(p[1], h))], -1)))(relu(conv(p[0], x))),
        (BODY[0], BODY[1], (OUT, 2 * N)), IMAGE),
    Row("squeeze_and_excite", lambda p, x: (lambda h: top(p[2], h * jax.lax.erf(
        dense(p[1], h.mean((0, 1)))))) (conv(p[0], x)), (BODY[0], (N, N), (OUT, N)), IMAGE),
    Row("blurred", lambda p, x: (lambda h: top(p[2], relu(conv(p[1], jax.lax.conv_general_dilated(
        h[None], jnp.tile(jnp.array([[1.0, 2.0], [3.0, 0.5]])[..., None, None], (1, 1, 1, N)),
        (1, 2), "SAME", dimension_numbers=LAYOUT, feature_group_count=N)[0]))))(
        relu(conv(p[0], x))), BODY, IMAGE),
    Row("rolled_and_flipped", lambda p, x: (lambda h: top(p[2], relu(conv(
        p[1], jnp.roll(h, 1, 0) + h[:, ::-1]))))(relu(conv(p[0], x))), BODY, IMAGE),
    Row("pixel_shuffle", lambda p, x: (lambda h: top(p[2], relu(conv(p[1], h.reshape(
        4, 4, 2, 2, -1).transpose(0, 2, 1, 3, 4).reshape(8, 8, -1)))))(relu(conv(p[0], x))),
        ((3, 3, 3, 4 * N), *BODY[1:]), IMAGE),
    Row("resized", lambda p, x: top(p[2], relu(conv(p[1], jax.image.resize(
        relu(conv(p[0], x)), (6, 3, N), "cubic")))), BODY, IMAGE),
    Row("patches", lambda p, x: dense(p[2], relu(dense(p[1], relu(x.reshape(
        2, 2, 2, 2, 3).transpose(0, 2, 1, 3, 4).reshape(4, 12) @ p[0].T / np.sqrt(12)).mean(0)))),
        ((N, 12), (N, N), (OUT, N)), IMAGE),
    Row("group_norm", group_norm, BODY, IMAGE),
    Row("instance_mean", instance_norm, BODY, IMAGE),
    Row("attention_causal", attention(CAUSAL), heads_of(1, N), TOKENS),
    Row("attention_heads", attention(), heads_of(4, 24), TOKENS),
    Row("attention_random_identity", attention(random=True, soft=False), heads_of(24, 24), TOKENS),
    Row("attention_random_masked", attention(CAUSAL, random=True, soft=False), heads_of(24, 24),
        TOKENS),
    Row("attention_random", attention(random=True), heads_of(32, 32), (3, 5)),
    Row("attention_random_causal", attention(CAUSAL[:3, :3], random=True), heads_of(32, 32),
        (3, 5)),
    Row("graph_edges", edges, ((N, 5), (N, N), (N, N), (OUT, N)), TOKENS),
    Row("embedding", tokens, ((7, N), (4, N), (N, N), (OUT, N), (N, N)), (4,), vocabulary=7),
    Row("written", written, BODY, IMAGE),
    Row("looked_up", looked_up, ((5, N), (N, N), (OUT, N)), (4,), vocabulary=5),
    Row("class_token", class_token, ((2, 2, 3, N), (1, N), (5, N), (2 * N, N), (OUT, N)), IMAGE),
    Row("recurrent_convolution", scanned, ((3, 3, N), (3, N, N), (OUT, N)), (3, 4, 3)),
)
