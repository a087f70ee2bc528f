"""Closed forms of a finite network against the optimizer run on its linearisation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy.linalg import expm

import widelimit as wl
from dynamics.small import (
    PARAMS,
    WEIGHTS,
    X_STAR,
    Y_STAR,
    X,
    Y,
    close,
    linear_outputs,
    network,
    trained,
)  # fmt: skip

ZERO = jax.tree.map(jnp.zeros_like, PARAMS)
MOMENTA = {"descent": None, "momentum": 0.9, "nesterov": 0.8}


SLOW = pytest.mark.slow
ROWS = [
    ("descent", (0.3, "start"), WEIGHTS),
    ("momentum", (0.3, "zero"), WEIGHTS),
    ("nesterov", (0.0, "start"), None),
    pytest.param("descent", (0.3, "zero"), WEIGHTS, marks=SLOW),
    pytest.param("descent", (0.0, "zero"), None, marks=SLOW),
    pytest.param("momentum", (0.3, "start"), None, marks=SLOW),
    pytest.param("momentum", (0.0, "start"), WEIGHTS, marks=SLOW),
    pytest.param("nesterov", (0.3, "zero"), WEIGHTS, marks=SLOW),
    pytest.param("nesterov", (0.3, "start"), None, marks=SLOW),
]


@pytest.mark.parametrize(("method", "decay", "weights"), ROWS)
def test_is_what_the_optimizer_does(method, decay, weights):
    beta, (factor, towards) = MOMENTA[method], decay
    run = wl.dynamics.linearized(
        network, PARAMS, X, Y, method=method, learning_rate=0.05, momentum=beta,
        weight_decay=factor, decay_towards=towards, weights=weights,
    )  # fmt: skip
    optimizer = optax.sgd(0.05, beta, nesterov=method == "nesterov")
    centre = ZERO if towards == "zero" else PARAMS
    times = [0, 1, 40]
    outputs, on_training = run.outputs(X_STAR, times), run.train_outputs(times)
    assert outputs.shape == (3, 5, 2) and on_training.shape == (3, 6, 2)
    every = trained(optimizer, times, decay=factor, centre=centre, weights=weights)
    for k, (steps, params) in enumerate(zip(times, every)):
        found = run.parameters(steps)
        close(found, params)
        close(outputs[k], linear_outputs(params, X_STAR))
        close(outputs[k], linear_outputs(found, X_STAR))  # function space and weight space
        close(on_training[k], linear_outputs(params, X))
        close(run.loss(steps), 0.5 * jnp.sum((linear_outputs(params, X) - Y) ** 2))


def test_decay_is_that_of_optax():
    optimizer = optax.chain(optax.add_decayed_weights(0.2), optax.sgd(0.05, 0.9))
    state, params = optimizer.init(PARAMS), PARAMS
    for _ in range(5):
        slope = jax.grad(lambda p: 0.5 * jnp.sum((linear_outputs(p, X) - Y) ** 2))(params)
        updates, state = optimizer.update(slope, state, params)
        params = optax.apply_updates(params, updates)
    run = wl.dynamics.linearized(
        network, PARAMS, X, Y, method="momentum", momentum=0.9, learning_rate=0.05,
        weight_decay=0.2, decay_towards="zero",
    )  # fmt: skip
    close(run.parameters(5), params)


@pytest.mark.parametrize(
    "decay", [
        (0.3, "zero"), pytest.param((0.0, "start"), marks=SLOW),
        pytest.param((0.3, "start"), marks=SLOW),
    ],
)  # fmt: skip
def test_flow_is_the_matrix_exponential_in_weight_space(decay):
    factor, towards = decay
    flat, back = jax.flatten_util.ravel_pytree(PARAMS)
    rates = jax.flatten_util.ravel_pytree(
        {k: jnp.ones_like(PARAMS[k]) * w for k, w in WEIGHTS.items()}
    )[0]
    line = lambda v: linear_outputs(back(v), X).ravel()
    j = np.asarray(jax.jacobian(line)(flat))
    start = np.asarray(line(flat)) - Y.ravel()
    moving = np.asarray(rates > 0, float)
    pull = np.asarray(flat) * moving if towards == "zero" else 0
    # d' = -0.7 (H d + c), with one more row for the constant.
    hessian = np.asarray(rates)[:, None] * (j.T @ j) + factor * np.diag(moving)
    constant = np.asarray(rates) * (j.T @ start) + factor * pull
    whole = np.zeros((len(flat) + 1,) * 2)
    whole[:-1, :-1], whole[:-1, -1] = -0.7 * hessian, -0.7 * constant
    run = wl.dynamics.linearized(
        network, PARAMS, X, Y, learning_rate=0.7, weights=WEIGHTS, weight_decay=factor,
        decay_towards=towards,
    )  # fmt: skip
    for t in [0.01, 1.0, 50.0]:
        expected = np.asarray(flat) + expm(whole * t)[:-1, -1]
        close(run.parameters(t), back(jnp.asarray(expected)))
        close(run.outputs(X_STAR, t), linear_outputs(back(jnp.asarray(expected)), X_STAR))


def test_the_end_of_training_is_a_minimum():
    for decay in (0.0, 0.1):
        run = wl.dynamics.linearized(
            network, PARAMS, X, Y, weight_decay=decay, decay_towards="zero"
        )

        def penalised(p, decay=decay):
            size = sum(jnp.sum(a**2) for a in jax.tree.leaves(p))
            return 0.5 * jnp.sum((linear_outputs(p, X) - Y) ** 2) + 0.5 * decay * size

        slope = jax.grad(penalised)(run.parameters(np.inf))
        close(slope, ZERO, 1e-9)


def test_examples_given_twice_and_more_outputs_than_parameters():
    x, y = jnp.concatenate([X] * 6), jnp.concatenate([Y + k for k in range(6)])
    run = wl.dynamics.linearized(
        network, PARAMS, x, y, method="descent", learning_rate=0.004, weight_decay=0.1,
        decay_towards="zero",
    )  # fmt: skip
    loss = lambda f: 0.5 * jnp.sum((f - y) ** 2)
    times = [1, 3000]
    every = trained(optax.sgd(0.004), times, loss=loss, decay=0.1, centre=ZERO, x=x)
    for steps, params in zip(times, every):
        close(run.parameters(steps), params, 1e-9)
        close(run.outputs(X_STAR, steps), linear_outputs(params, X_STAR), 1e-9)
    assert bool(jnp.all(jnp.isfinite(run.outputs(X_STAR, np.inf))))


def test_frozen_parameters_stay():
    run = wl.dynamics.linearized(
        network, PARAMS, X, Y, trainable={"b": False, "w": True, "v": True}, weight_decay=0.5,
        decay_towards="zero",
    )  # fmt: skip
    found = run.parameters(3.0)
    np.testing.assert_array_equal(found["b"], PARAMS["b"])
    close(run.outputs(X_STAR, 3.0), linear_outputs(found, X_STAR))


def test_modules_come_back_as_modules():
    model = eqx.nn.MLP(4, 2, 5, 1, key=jax.random.key(0))
    run = wl.dynamics.linearized(model, None, X, Y, learning_rate=0.1)
    moved = run.parameters(1.0)
    assert isinstance(moved, eqx.nn.MLP)
    g = wl.linearize(lambda m, x: m(x), model)
    close(jax.vmap(lambda e: g(moved, e))(X_STAR), run.outputs(X_STAR, 1.0))

    flax = nnx.Linear(4, 2, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    run = wl.dynamics.linearized(flax, None, X, Y, method="descent", learning_rate=0.1)
    moved = run.parameters(2)
    assert isinstance(moved, nnx.Linear)
    close(jax.vmap(moved)(X_STAR), run.outputs(X_STAR, 2))  # linear in its parameters


def test_stops_early_where_other_examples_are_best():
    y, y_star = X[:, :2] + 0.5 * Y, X_STAR[:, :2]
    run = wl.dynamics.linearized(network, PARAMS, X, y)
    best = run.best_time(X_STAR, y_star)
    losses = lambda t: 0.5 * jnp.sum((run.outputs(X_STAR, t) - y_star) ** 2, (1, 2))
    times = np.geomspace(1e-5, 1e7, 3000)
    assert best.loss <= losses(times).min() * (1 + 1e-9)
    assert 0 < best.time < np.inf
    np.testing.assert_allclose(losses(np.array([best.time]))[0], best.loss, rtol=1e-12)
    np.testing.assert_allclose([best.start, best.end], losses(np.array([0, np.inf])), rtol=1e-9)


@pytest.mark.slow
def test_stops_at_the_best_step():
    y, y_star = X[:, :2] + 0.5 * Y, X_STAR[:, :2]
    steps = wl.dynamics.linearized(
        network, PARAMS, X, y, method="descent", learning_rate=0.01
    )
    found = steps.best_time(X_STAR, y_star)
    every = 0.5 * jnp.sum((steps.outputs(X_STAR, np.arange(3000)) - y_star) ** 2, (1, 2))
    assert 0 < found.time < 2999
    assert found.time == int(jnp.argmin(every))


def test_a_larger_rate_than_stable_is_refused_with_the_number():
    top = np.linalg.eigvalsh(
        wl.empirical_ntk(network, PARAMS, X).transpose(0, 2, 1, 3).reshape(12, 12)
    )[-1]
    for method, beta in MOMENTA.items():
        limit = {"descent": 2, "momentum": 2 * 1.9, "nesterov": 2 * 1.8 / 2.6}[method]
        make = lambda r, method=method, beta=beta: wl.dynamics.linearized(
            network, PARAMS, X, Y, method=method, momentum=beta, learning_rate=r, weight_decay=0.5
        )
        make(0.999 * limit / (top + 0.5))
        with pytest.raises(ValueError, match=f"below {limit / (top + 0.5):.6g}"):
            make(1.001 * limit / (top + 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": Y[:5]}, "6 examples and y has shape"),
        ({"y": Y[:, 0]}, "a target for each output"),
        ({"y": Y.at[0, 0].set(np.nan)}, "y contains NaN"),
        ({"x": X.at[0, 0].set(np.nan)}, "NaN or infinite"),
        ({"x": X[:0], "y": Y[:0]}, "no examples"),
        ({"decay_towards": "mean"}, "'start' or 'zero'"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"loss": 3}, "loss is a function"),
        ({"loss": lambda f, y: jnp.sum((f - y) ** 2, 1)}, r"returns float64\[6\]: sum over"),
        ({"loss": lambda f, y: jnp.sum(f > 0)}, "one real number"),
    ],
)
def test_refuses_bad_input(change, message):
    given = {"x": X, "y": Y, **change}
    with pytest.raises(ValueError, match=message):
        wl.dynamics.linearized(network, PARAMS, given.pop("x"), given.pop("y"), **given)


def test_refuses_bad_questions():
    run = wl.dynamics.linearized(network, PARAMS, X, Y, method="descent", learning_rate=0.01)
    for t, message in [(-1, "at least 0"), (0.5, "whole numbers"), (np.nan, "at least 0"),
                       ([[1]], "shape"), (1e17, "cannot count")]:
        with pytest.raises(ValueError, match=message):
            run.outputs(X_STAR, t)
    with pytest.raises(ValueError, match="one time"):
        run.parameters([1, 2])
    with pytest.raises(ValueError, match="alike"):
        run.outputs(X_STAR[:, :3], 1)
    with pytest.raises(ValueError, match="latest time"):
        run.best_time(X_STAR, Y_STAR, most=-1.0)
    with pytest.raises(ValueError, match="one array"):
        wl.dynamics.linearized(lambda p, x: (network(p, x),) * 2, PARAMS, X, Y)


def test_times_may_be_traced():
    run = wl.dynamics.linearized(network, PARAMS, X, Y)
    close(jax.jit(lambda t: run.outputs(X_STAR, t))(0.7), run.outputs(X_STAR, 0.7), 1e-12)
    slope = jax.grad(lambda t: run.loss(t))(0.7)
    h = 1e-5
    np.testing.assert_allclose(slope, (run.loss(0.7 + h) - run.loss(0.7 - h)) / (2 * h), rtol=1e-6)


@pytest.mark.parametrize("given", [
    pytest.param({}, marks=SLOW),
    {"method": "nesterov", "momentum": 0.9, "weight_decay": 0.1, "decay_towards": "zero"},
])  # fmt: skip
def test_single_precision(given):
    short = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float32), tree)
    rate = np.float64(0.02)
    run = wl.dynamics.linearized(
        network, short(PARAMS), short(X), short(Y), learning_rate=rate, **given
    )
    exact = wl.dynamics.linearized(network, PARAMS, X, Y, learning_rate=rate, **given)
    for t in (0, 20, np.inf):
        found = run.outputs(short(X_STAR), t)
        assert found.dtype == jnp.float32
        close(found, exact.outputs(X_STAR, t), 2e-4 if np.isfinite(t) else 2e-2)
    assert run.parameters(20)["w"].dtype == jnp.float32
