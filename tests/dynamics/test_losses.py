"""Any loss: the ODE and the steps against the closed form and against long descent by optax."""

import builtins

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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

LABELS = jnp.array([0, 1, 1, 0, 1, 0])
ZERO = jax.tree.map(jnp.zeros_like, PARAMS)


def cross_entropy(outputs, labels):
    return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(outputs, labels))


def of_labels(outputs):
    return cross_entropy(outputs, LABELS)


@pytest.fixture
def diffrax():
    return pytest.importorskip("diffrax")


@pytest.mark.usefixtures("diffrax")
def test_the_solver_finds_the_closed_form():
    given = {"learning_rate": 0.3, "weights": WEIGHTS, "weight_decay": 0.2, "decay_towards": "zero"}
    times = [0.0, 5.0, 0.3, 5.0]  # in any order, some twice
    exact = wl.dynamics.linearized(network, PARAMS, X, Y, **given)
    run = wl.dynamics.linearized(
        network, PARAMS, X, Y, loss=wl.dynamics.squared, rtol=1e-10, atol=1e-10, **given
    )
    close(run.outputs(X_STAR, times), exact.outputs(X_STAR, times), 1e-8)
    close(run.train_outputs(times), exact.train_outputs(times), 1e-8)
    close(run.parameters(5.0), exact.parameters(5.0), 1e-8)


@pytest.mark.slow
def test_tolerances_and_solvers_are_those_given(diffrax):
    exact = wl.dynamics.linearized(network, PARAMS, X, Y).outputs(X_STAR, 2.0)
    errors = []
    for given in ({"rtol": 1e-2, "atol": 1e-2}, {"rtol": 1e-5, "atol": 1e-5}, {
        "rtol": 1e-9, "atol": 1e-9, "solver": diffrax.Kvaerno5()
    }):
        run = wl.dynamics.linearized(network, PARAMS, X, Y, loss=wl.dynamics.squared, **given)
        errors.append(float(jnp.abs(run.outputs(X_STAR, 2.0) - exact).max()))
    assert 1e-6 < errors[0] < 1e-1 and 1e-9 < errors[1] < 1e-4 and errors[2] < 1e-8


@pytest.mark.slow
@pytest.mark.usefixtures("diffrax")
def test_cross_entropy_is_the_limit_of_small_steps():
    """Descent with ever smaller steps, extrapolated to none (Richardson, twice)."""
    given = {"weights": WEIGHTS, "weight_decay": 0.05, "decay_towards": "zero"}
    run = wl.dynamics.linearized(
        network, PARAMS, X, LABELS, loss=cross_entropy, learning_rate=0.5, rtol=1e-9, atol=1e-9,
        **given,
    )  # fmt: skip
    found = []
    for steps in (2000, 4000, 8000):
        params = trained(
            optax.sgd(0.5 * 4.0 / steps), steps, loss=of_labels, decay=0.05, centre=ZERO,
            weights=WEIGHTS,
        )  # fmt: skip
        found.append(linear_outputs(params, X_STAR))
    once = [2 * b - a for a, b in zip(found, found[1:])]
    close(run.outputs(X_STAR, 4.0), (4 * once[1] - once[0]) / 3, 1e-7)


@pytest.mark.parametrize(("method", "beta"), [
    ("nesterov", 0.8), pytest.param("descent", None, marks=pytest.mark.slow)
])  # fmt: skip
def test_steps_are_those_of_the_optimizer(method, beta):
    run = wl.dynamics.linearized(
        network, PARAMS, X, LABELS, loss=cross_entropy, method=method, momentum=beta,
        learning_rate=0.1, weights=WEIGHTS, weight_decay=0.05, decay_towards="zero",
    )  # fmt: skip
    times = [0, 30, 7]
    optimizer = optax.sgd(0.1, beta, nesterov=method == "nesterov")
    outputs = run.outputs(X_STAR, times)
    for k, steps in enumerate(times):
        params = trained(
            optimizer, steps, loss=of_labels, decay=0.05, centre=ZERO, weights=WEIGHTS
        )
        close(run.parameters(steps), params)
        close(outputs[k], linear_outputs(params, X_STAR))
    assert float(run.loss(30)) < float(run.loss(0))


@pytest.mark.slow
def test_descent_of_the_squared_loss_by_steps_is_the_closed_form():
    given = {"method": "momentum", "momentum": 0.7, "learning_rate": 0.05, "weight_decay": 0.1}
    closed = wl.dynamics.linearized(network, PARAMS, X, Y, **given)
    steps = wl.dynamics.linearized(network, PARAMS, X, Y, loss=wl.dynamics.squared, **given)
    close(steps.outputs(X_STAR, [3, 50]), closed.outputs(X_STAR, [3, 50]))


def test_stops_early_for_any_loss():
    run = wl.dynamics.linearized(
        network, PARAMS, X, LABELS, loss=cross_entropy, method="descent", learning_rate=0.2
    )
    labels = jnp.array([0, 1, 0, 1, 1])
    best = run.best_time(X_STAR, labels, most=200)
    every = jax.vmap(lambda f: cross_entropy(f, labels))(run.outputs(X_STAR, np.arange(201)))
    assert best.time == int(np.argmin(every))
    with pytest.raises(ValueError, match="most="):
        run.best_time(X_STAR, labels)
    with pytest.raises(ValueError, match="finite"):
        run.outputs(X_STAR, np.inf)


def test_divergence_is_said():
    run = wl.dynamics.linearized(
        network, PARAMS, X, Y, loss=lambda f, y: jnp.sum((f - y) ** 4), method="descent",
        learning_rate=10.0,
    )  # fmt: skip
    with pytest.raises(FloatingPointError, match="smaller learning rate"):
        run.outputs(X_STAR, 100)


@pytest.mark.usefixtures("diffrax")
def test_too_few_steps_are_said():
    run = wl.dynamics.linearized(
        network, PARAMS, X, LABELS, loss=cross_entropy, learning_rate=1e4, max_steps=5
    )
    with pytest.raises(RuntimeError, match="max_steps"):
        run.outputs(X_STAR, 100.0)


def test_without_diffrax_the_extra_is_named(monkeypatch):
    known = builtins.__import__

    def without(name, *rest):
        if name == "diffrax":
            raise ImportError(name)
        return known(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"widelimit\[solvers\]"):
        wl.dynamics.linearized(network, PARAMS, X, LABELS, loss=cross_entropy)


# ---------------------------------------------------------------- kernels


@pytest.fixture(scope="module")
def limit():
    def f(p, x):
        return p[1] @ jax.nn.relu(p[0] @ x) / jnp.sqrt(p[1].size)

    s = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float64)
    return wl.kernel(f, [s(64, 4), s(1, 64)])


@pytest.mark.parametrize("given", [
    {"method": "nesterov", "momentum": 0.9, "learning_rate": 0.02, "weight_decay": 0.1},
    pytest.param({"learning_rate": 0.3}, marks=pytest.mark.slow),
])  # fmt: skip
def test_an_infinite_network_moves_like_the_mean_of_its_distribution(limit, given):
    mean = wl.predict.gradient_flow(limit, X, Y, mean=0.5, **given)
    run = wl.dynamics.of_kernel(limit.ntk, X, Y, start=0.5, **given)
    times = [0, 1, 40, np.inf]
    close(run.outputs(X_STAR, times), mean.mean(X_STAR, times), 1e-12)
    close(run.train_outputs(times), mean.train_mean(times), 1e-12)
    best = mean.best_time(X_STAR, Y_STAR)
    assert run.best_time(X_STAR, Y_STAR) == pytest.approx(best, rel=1e-6)


@pytest.mark.usefixtures("diffrax")
def test_an_infinite_network_learns_labels(limit):
    """f' = -T ∇L against Runge-Kutta with small steps, from a start that is a function."""
    start = lambda x: jnp.stack([x[:, 0], -x[:, 1]], 1)
    run = wl.dynamics.of_kernel(
        limit.ntk, X, LABELS, start=start, loss=cross_entropy, rtol=1e-10, atol=1e-10
    )
    both = jnp.concatenate([X, X_STAR])
    t = limit.ntk(both, X)
    field = lambda f: -t @ jax.grad(of_labels)(f[:6])

    def step(_, f):
        a = field(f)
        b = field(f + h / 2 * a)
        c = field(f + h / 2 * b)
        return f + h / 6 * (a + 2 * b + 2 * c + field(f + h * c))

    h = 2.0 / 400
    end = jax.lax.fori_loop(0, 400, step, start(both))
    close(run.train_outputs(2.0), end[:6], 1e-8)
    close(run.outputs(X_STAR, 2.0), end[6:], 1e-8)


@pytest.mark.slow
def test_the_kernel_of_a_finite_network_is_enough_to_predict_it():
    start = lambda x: jax.vmap(lambda e: network(PARAMS, e))(x)
    kernel = lambda a, b: wl.empirical_ntk(network, PARAMS, a, b)
    given = {"method": "descent", "learning_rate": 0.02}
    run = wl.dynamics.of_kernel(kernel, X, Y, start=start, **given)
    other = wl.dynamics.linearized(network, PARAMS, X, Y, **given)
    close(run.outputs(X_STAR, [0, 9]), other.outputs(X_STAR, [0, 9]), 1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": lambda a, b: jnp.ones((len(a), 3))}, "the kernel of 6 examples has shape"),
        ({"kernel": lambda a, b: jnp.full((len(a), len(b)), jnp.nan)}, "NaN"),
        ({"start": jnp.ones(6)}, "start is a number or a function"),
        ({"start": lambda x: jnp.ones(len(x))}, "a target for each output"),
        ({"start": lambda x: jnp.ones((3, 2))}, "start of 6 inputs"),
        ({"loss": cross_entropy, "y": LABELS, "method": "descent"}, "give outputs="),
        ({"x": X[:0], "y": Y[:0]}, "no examples"),
    ],
)
def test_kernels_that_do_not_fit_are_refused(change, message):
    given = {"kernel": lambda a, b: a @ b.T, "x": X, "y": Y, **change}
    with pytest.raises(ValueError, match=message):
        wl.dynamics.of_kernel(given.pop("kernel"), given.pop("x"), given.pop("y"), **given)
