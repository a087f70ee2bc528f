"""Bounds on the largest eigenvalue, and training just below and above the stable rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import widelimit as wl
from dynamics.small import PARAMS, X, Y, linear_outputs, network, trained
from widelimit.dynamics._largest import _gap, top_ritz


class Operator:
    """A matrix as an operator."""

    def __init__(self, matrix):
        self.matrix = matrix

    def in_structure(self):
        return jax.ShapeDtypeStruct(self.matrix.shape[:1], self.matrix.dtype)

    def mv(self, v):
        return self.matrix @ v


def random_spectrum(values, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values),) * 2))
    return jnp.asarray((q * values) @ q.T)


@pytest.mark.parametrize("spectrum", ["decaying", "flat", "one", "close"])
def test_bounds_hold_at_the_stated_probability(spectrum):
    """At p = 5 %: of 400 starts at most some 5 % miss, and the bounds are near each other."""
    n, steps = 120, 12
    values = {
        "decaying": 1 / np.arange(1, n + 1) ** 1.5,
        "flat": np.linspace(0, 1, n),
        "one": np.array([1.0] + [0] * (n - 1)),
        "close": np.array([1.0] + [0.98] * (n - 1)),
    }[spectrum]
    matrix = random_spectrum(values)
    starts = jax.random.normal(jax.random.key(1), (400, n))
    ritz = np.asarray(jax.vmap(lambda s: top_ritz(lambda v: matrix @ v, s, steps))(starts))
    assert np.all(ritz <= 1 + 1e-12)
    upper = ritz / (1 - _gap(steps, n, 0.05))
    assert np.mean(upper < 1) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert np.all(upper < 1.7)


def test_bounds_narrow_with_the_steps():
    matrix = random_spectrum(np.linspace(0, 1, 200) ** 4)
    bounds = [
        wl.dynamics.largest_eigenvalue(Operator(matrix), steps=k) for k in (10, 500)
    ]
    assert all(b.lower <= 1 + 1e-9 and b.upper >= 1 - 1e-9 for b in bounds)
    ratios = [b.upper / b.lower - 1 for b in bounds]
    assert 3e-3 < ratios[0] < 3 and ratios[1] < 3e-3


def test_the_operator_of_a_network_is_the_matrix():
    pytest.importorskip("lineax")
    exact = wl.dynamics.largest_eigenvalue(wl.empirical_ntk(network, PARAMS, X))
    found = wl.dynamics.largest_eigenvalue(wl.ntk_operator(network, PARAMS, X))
    assert exact.failure == 0 and exact.lower == exact.upper
    assert found.lower == pytest.approx(exact.lower, rel=1e-10)
    assert found.lower <= exact.lower * (1 + 1e-12) and found.upper >= exact.upper


@pytest.mark.parametrize(
    ("method", "beta"), [("descent", None), ("momentum", 0.9), ("nesterov", 0.9)]
)
def test_training_diverges_above_and_converges_below(method, beta):
    decay = 0.3
    rate = wl.dynamics.largest_learning_rate(
        wl.empirical_ntk(network, PARAMS, X), method=method, momentum=beta, weight_decay=decay
    )

    def loss_after(rate):
        optimizer = optax.sgd(rate, beta, nesterov=method == "nesterov")
        early, late = trained(optimizer, [0, 3000], decay=decay)
        loss = lambda p: float(jnp.sum((linear_outputs(p, X) - Y) ** 2))
        return loss(late) / loss(early)

    assert loss_after(0.98 * rate.safe) < 1
    assert loss_after(1.02 * rate.most) > 1e10


def test_nothing_to_learn_is_stable_at_any_rate():
    assert wl.dynamics.largest_learning_rate(np.zeros((3, 3))).safe == np.inf
    assert wl.dynamics.largest_learning_rate(np.eye(3), method="flow").safe == np.inf


@pytest.mark.parametrize(
    ("kernel", "given", "message"),
    [
        (np.ones((2, 3)), {}, "square"),
        (np.full((2, 2), np.nan), {}, "NaN"),
        (Operator(jnp.full((3, 3), jnp.nan)), {}, "NaN"),
        (np.eye(2), {"steps": 0}, "steps is at least 1"),
        (np.eye(2), {"failure": 0.0}, "failure between"),
    ],
)
def test_refusals(kernel, given, message):
    with pytest.raises(ValueError, match=message):
        wl.dynamics.largest_eigenvalue(kernel, **given)
