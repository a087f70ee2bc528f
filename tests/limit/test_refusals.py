"""What cannot be read is refused with an error that names the line, the cause and the remedy."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

from .networks import struct

N = 32
SHAPES = [struct(N, 5), struct(N, N), struct(N, N), struct(3, N)]


def dense(w, h):
    return w @ h / np.sqrt(h.shape[0])


def transposed(p, x):
    h = jnp.tanh(dense(p[1], dense(p[0], x)))
    return dense(p[3], dense(p[1].T, h))  # HERE


def transposed_by_einsum(p, x):
    h = jnp.tanh(jnp.einsum("ij,j->i", p[1], dense(p[0], x)))
    return dense(p[3], jnp.einsum("ij,i->j", p[1], h))  # HERE


def pooled_maximum(p, x):
    h = dense(p[0], x).reshape(8, 4)
    return dense(p[3][:, :8], h.max(axis=1))  # HERE


def sorting(p, x):
    return dense(p[3], jnp.sort(dense(p[0], x)))  # HERE


def softmax_over_width(p, x):
    return dense(p[3], jax.nn.softmax(dense(p[0], x)))  # HERE


def noise(p, x):
    h = dense(p[0], x)
    return dense(p[3], h + jax.random.normal(jax.random.key(0), h.shape))


def ambiguous_logits(p, x):
    q, k = dense(p[1], dense(p[0], x)), dense(p[2], dense(p[0], x))
    gate = jnp.tanh(q @ k / np.sqrt(N))
    return gate * dense(p[3], dense(p[0], x))  # HERE


def unscaled_sum(p, x):
    h = dense(p[0], x)
    return dense(p[3], h * jnp.exp(jnp.sum(h**2)))  # HERE


def rolled(p, x):
    h = dense(p[0], x)
    return dense(p[3], jnp.tanh(h + jnp.roll(h, 1)))


def shared_scalar(p, x):
    h = dense(p[0], x)
    return dense(p[3], h * p[1][0, 0])  # HERE


def branch_on_the_input(p, x):
    h = dense(p[0], x)
    return dense(p[3], jax.lax.cond(x[0] > 0, jnp.tanh, jnp.sin, h))  # HERE


def branch_on_random_values(p, x):
    h = dense(p[0], x)
    return dense(p[3], jax.lax.cond(h[0] > 0, jnp.tanh, jnp.sin, h))  # HERE


def no_rule(p, x):
    h = dense(p[0], x)
    return dense(p[3], jnp.fft.fft(h).real)  # HERE


def pole(p, x):
    h = dense(p[0], x)
    return dense(p[3], 1.0 / h)  # HERE


def logarithm(p, x):
    return dense(p[3], jnp.log(dense(p[0], x)))  # HERE


def two_parameters_first(p, x):
    return dense(p[3], (p[1] @ p[2] / N) @ dense(p[0], x))  # HERE


KEYS = jax.random.split(jax.random.key(0), 3)


def keys_compared(p, x):
    first = KEYS[1]
    return dense(p[3], dense(p[0], x)) * (first == KEYS)[2]


CASES = [
    (keys_compared, wl.RandomnessError),
    (transposed, wl.TransposedWeightError),
    (transposed_by_einsum, wl.TransposedWeightError),
    (pooled_maximum, wl.OrderStatisticError),
    (sorting, wl.OrderStatisticError),
    (softmax_over_width, wl.OrderStatisticError),
    (noise, wl.RandomnessError),
    (ambiguous_logits, wl.AmbiguousScaleError),
    (unscaled_sum, wl.AmbiguousScaleError),
    (rolled, wl.WideLimitError),
    (shared_scalar, wl.SharedAcrossWidthError),
    (branch_on_the_input, wl.ControlFlowError),
    (branch_on_random_values, wl.ControlFlowError),
    (no_rule, wl.UnsupportedPrimitiveError),
    (pole, wl.NotGaussianError),
    (logarithm, wl.NotGaussianError),
    (two_parameters_first, wl.UnsupportedPrimitiveError),
]


@pytest.mark.parametrize(("f", "kind"), CASES, ids=lambda c: getattr(c, "__name__", ""))
def test_refused_with_line_cause_and_remedy(f, kind, rng):
    with pytest.raises(kind) as caught:
        wl.kernel(f, SHAPES).both(rng.normal(size=(2, 5)))
    error = caught.value
    assert error.why
    assert error.remedy
    lines, start = inspect.getsourcelines(f)
    marked = [start + i for i, line in enumerate(lines) if "# HERE" in line]
    if marked:
        assert error.where is not None
        assert error.where.file == __file__
        assert marked[0] in [w.line for w in (error.where, *error.where.callers)]
        assert f"{__file__}:{marked[0]}" in str(error)


def test_tangent_kernel_of_a_shared_trained_number_is_refused_but_not_the_nngp(rng):
    def f(p, x):
        h = dense(p["w"], x)
        return dense(p["v"], h + p["gain"] * jnp.tanh(h))

    params = {"w": struct(N, 5), "v": struct(3, N), "gain": struct()}
    prior = {"w": wl.Prior(), "v": wl.Prior(), "gain": wl.Prior(0.5, 0.0)}
    x = rng.normal(size=(2, 5))
    kernel = wl.kernel(f, params, prior=prior)
    fixed = wl.kernel(
        lambda p, x: dense(p[1], dense(p[0], x) + 0.5 * jnp.tanh(dense(p[0], x))),
        [struct(N, 5), struct(3, N)],
    )
    np.testing.assert_allclose(kernel.nngp(x), fixed.nngp(x), rtol=1e-10)
    with pytest.raises(wl.SharedAcrossWidthError):
        kernel.ntk(x)
    frozen = wl.kernel(
        f, params, prior=prior, trainable={"w": True, "v": True, "gain": False}
    )
    np.testing.assert_allclose(frozen.ntk(x), fixed.ntk(x), rtol=1e-10)


def test_narrow_width_warns(rng):
    shapes = [struct(2, 5), struct(3, 2)]
    kernel = wl.kernel(lambda p, x: p[1] @ jnp.tanh(p[0] @ x), shapes)
    with pytest.warns(wl.NarrowWidthWarning, match="size 2"):
        kernel.nngp(rng.normal(size=(2, 5)))


def test_weight_with_a_mean_over_width_is_refused(rng):
    f = lambda p, x: dense(p[1], jnp.tanh(dense(p[0], x)))
    kernel = wl.kernel(
        f, [struct(N, 5), struct(3, N)], prior=[wl.Prior(), wl.Prior(0.5, 1.0)]
    )
    with pytest.raises(wl.WideLimitError, match="mean"):
        kernel.nngp(rng.normal(size=(2, 5)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_inputs_that_are_not_finite(bad):
    kernel = wl.kernel(lambda p, x: p @ x, struct(4, 5))
    with pytest.raises(ValueError, match="x1 contains NaN"):
        kernel.nngp(np.full((2, 5), bad))
    with pytest.raises(ValueError, match="x2 contains NaN"):
        kernel.nngp(np.ones((2, 5)), np.full((2, 5), bad))


def test_inputs_of_the_wrong_shape(rng):
    kernel = wl.kernel(lambda p, x: p @ x, struct(4, 5))
    with pytest.raises(ValueError, match="alike"):
        kernel.nngp(rng.normal(size=(2, 5)), rng.normal(size=(2, 6)))
    with pytest.raises(ValueError, match="batch axis"):
        kernel.nngp(np.float64(3.0))
    with pytest.raises(ValueError, match="no examples"):
        kernel.nngp(np.ones((0, 5)))
    with pytest.raises(TypeError):
        kernel.nngp(rng.normal(size=(2, 6)))


def test_training_mode_batch_norm_and_dropout_are_refused(rng):
    key = jax.random.key(0)

    class Net(eqx.Module):
        first: eqx.nn.Linear
        drop: eqx.nn.Dropout

        def __call__(self, x):
            return self.drop(self.first(x), key=jax.random.key(1))

    net = Net(eqx.nn.Linear(5, 64, key=key), eqx.nn.Dropout(0.5))
    with pytest.raises(wl.RandomnessError):
        wl.kernel(net).nngp(rng.normal(size=(2, 5)))
    wl.kernel(eqx.nn.inference_mode(net)).nngp(rng.normal(size=(2, 5)))
