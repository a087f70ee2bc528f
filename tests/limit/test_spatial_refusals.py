"""What has no limit over positions is refused, with the line and the remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

from .spatial import N, conv, relu, top

H = D = 20


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float64)


def heads(x, w):
    return jnp.einsum("tc,hcd->htd", x, w) / np.sqrt(x.shape[1])


def sum_meets_its_summand(p, x):
    """The mean over channels is E[G²], not the zero that independence of each channel suggests."""
    q, k = heads(x, p[0]), heads(x, p[1])
    logits = jnp.einsum("htd,htd->ht", q, k) / np.sqrt(D)
    s = (logits[..., None] * q * k).mean((0, 2)) * np.sqrt(D)
    return x @ p[2] * s[:, None]


def keys_as_values(p, x):
    q, k = heads(x, p[0]), heads(x, p[1])
    weights = jnp.einsum("htd,hsd->hts", q, k) / np.sqrt(D)
    return (weights @ k).transpose(1, 0, 2).reshape(len(x), -1).mean(0) @ p[3]


def one_head_summed_alone(p, x):
    q, k, v = heads(x, p[0]), heads(x, p[1]), heads(x, p[4])
    mixed = (jnp.einsum("htd,hsd->hts", q, k) / np.sqrt(D)) @ v
    return jnp.einsum("htd,hde->te", mixed[:1], p[5][:1])


def mixer(p, x):
    h = x @ p[2]
    return relu(p[6] @ h).mean(0)


def relu_behind_depthwise(p, x):
    return top(p[8], relu(conv(p[7], relu(conv(p[9], x[None, :, :3])), groups=N)))


def square_behind_depthwise(p, x):
    """A product of weights and channels has other fourth moments than a Gaussian."""
    h = conv(p[7], relu(conv(p[9], x[None, :, :3])), groups=N)
    return top(p[8], 0.5 * h**2 - h)


def relu_behind_pooling(p, x):
    h = relu(x @ p[2])
    pooled = jax.lax.reduce_window(h, 0.0, jax.lax.add, (2, 1), (1, 1), "VALID")
    return relu(pooled - 1.0).mean(0)


def max_pooling(p, x):
    h = relu(x @ p[2])
    return jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (2, 1), (2, 1), "VALID").mean(0)


def pooled_over_width(p, x):
    h = relu(x @ p[2])
    return jax.lax.reduce_window(h, 0.0, jax.lax.add, (1, 2), (1, 2), "VALID").mean(0)


def channels_and_positions(p, x):
    """Half of the channels as positions, and one such half once more as channels."""
    h = jnp.pad((x @ p[2]).reshape(8, -1), [(1, 1), (0, 0)], mode="symmetric")
    return jax.lax.conv_general_dilated(
        h[None], p[10], (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )[0].mean(0)


def function_at_places(p, x):
    return (x @ p[2]).at[0].apply(jnp.tanh).mean(0)


SHAPES = [
    struct(H, 5, D), struct(H, 5, D), struct(5, N), struct(H * D, 4), struct(H, 5, D),
    struct(H, D, 4), struct(6, 4), struct(3, 3, 1, N), struct(4, N), struct(3, 3, 3, N),
    struct(2, N // 2, 4),
]
CASES = [
    (sum_meets_its_summand, wl.SharedAcrossWidthError),
    (keys_as_values, wl.SharedAcrossWidthError),
    (one_head_summed_alone, wl.WideLimitError),
    (mixer, wl.SharedAcrossWidthError),
    (relu_behind_depthwise, wl.NotGaussianError),
    (square_behind_depthwise, wl.NotGaussianError),
    (relu_behind_pooling, wl.NotGaussianError),
    (max_pooling, wl.OrderStatisticError),
    (pooled_over_width, wl.UnsupportedPrimitiveError),
    (channels_and_positions, wl.MisalignedWidthError),
    (function_at_places, wl.UnsupportedPrimitiveError),
]


@pytest.mark.parametrize(("f", "kind"), CASES, ids=lambda c: getattr(c, "__name__", ""))
def test_refused(f, kind, rng):
    with pytest.raises(kind) as caught:
        wl.kernel(f, SHAPES).nngp(rng.normal(size=(2, 4, 5)))
    assert caught.value.why
    assert caught.value.remedy
    assert caught.value.where.file == __file__ or any(
        w.file == __file__ for w in caught.value.where.callers
    )


def test_look_up_outside_of_the_table():
    def f(p, x):
        return p[0][x].mean(0)

    k = wl.kernel(f, [struct(5, 8)])
    inside = k.nngp(np.array([[0, 1, 4], [1, 1, -1]]))
    np.testing.assert_allclose(inside, [[3 / 9, 3 / 9], [3 / 9, 5 / 9]], rtol=1e-12)
    with pytest.raises(wl.NotGaussianError, match="an index is outside of the array"):
        k.nngp(np.array([[0, 1, 5]]))
    assert np.isnan(jax.jit(k.nngp)(np.array([[0, 1, 5]]))).all()


@pytest.mark.parametrize("draws", [256, pytest.param(4096, marks=pytest.mark.slow)])
def test_sampling_error_is_the_spread_over_seeds(draws, rng):
    def f(p, x):
        q, k, v = heads(x, p[0]), heads(x, p[1]), heads(x, p[4])
        mixed = jax.nn.softmax(jnp.einsum("htd,hsd->hts", q, k) / np.sqrt(D)) @ v
        return jnp.einsum("htd,hde->te", mixed, p[5]).mean(0) / np.sqrt(H * D)

    kernel = wl.kernel(f, SHAPES).with_sampling(draws)
    x = rng.normal(size=(2, 3, 5))
    error = kernel.sampling_error(x, repeats=6).nngp
    reference = kernel.with_sampling(32768, seed=99).nngp(x)
    assert np.all(np.abs(kernel.nngp(x) - reference) < 6 * error + 1e-4)
    assert error.max() < 3 * 0.7 / np.sqrt(draws)
    np.testing.assert_array_equal(kernel.nngp(x), kernel.nngp(x).T)


def test_no_sampling_no_error(rng):
    kernel = wl.kernel(lambda p, x: relu(x @ p[0]).mean(0), [struct(5, N)])
    assert not np.any(kernel.sampling_error(rng.normal(size=(2, 4, 5))).ntk)


def test_too_few_draws():
    with pytest.raises(ValueError, match="at least 2"):
        wl.kernel(lambda p, x: x @ p[0], [struct(5, N)]).with_sampling(1)
