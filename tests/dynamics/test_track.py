"""The tracker against each quantity computed the long way."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import widelimit as wl
from dynamics.small import PARAMS, X, Y, network


def outputs(params):
    return jax.vmap(lambda e: network(params, e))(X)


def squared(params):
    return 0.5 * jnp.sum((outputs(params) - Y) ** 2)


def kernel(params):
    return np.asarray(wl.empirical_ntk(network, params, X)).transpose(0, 2, 1, 3).reshape(12, 12)


@pytest.fixture(scope="module")
def run():
    """Thirty steps of Adam, recorded every ten."""
    prediction = wl.dynamics.linearized(
        network, PARAMS, X, Y, method="descent", learning_rate=0.01
    )
    tracker = wl.track(network, PARAMS, X, Y, prediction=prediction)
    optimizer = optax.adam(0.02)
    params, state, seen = PARAMS, optimizer.init(PARAMS), {}
    for step in range(31):
        if step % 10 == 0:
            seen[step] = params
            tracker(params, step)
        updates, state = optimizer.update(jax.grad(squared)(params), state)
        params = optax.apply_updates(params, updates)
    return tracker, seen, prediction


def test_every_quantity(run):
    tracker, seen, prediction = run
    found = tracker.results
    np.testing.assert_array_equal(found["step"], list(seen))
    rms = lambda a: float(jnp.sqrt(jnp.mean(a**2)))
    linear = wl.linearize(network, PARAMS)
    for k, (step, params) in enumerate(seen.items()):
        now, t = outputs(params), kernel(params)
        flat, back = jax.flatten_util.ravel_pytree(params)
        hessian = jax.hessian(lambda v, back=back: squared(back(v)))(flat)
        y = np.asarray(Y).ravel()
        expected = {
            "loss": squared(params),
            "movement": rms(now - outputs(PARAMS)),
            "linearization_error": rms(now - jax.vmap(lambda e, p=params: linear(p, e))(X)),
            "prediction_error": rms(now - prediction.train_outputs(step)),
            "kernel_drift": np.linalg.norm(t - kernel(PARAMS)) / np.linalg.norm(kernel(PARAMS)),
            "alignment": y @ t @ y / (np.linalg.norm(t) * (y @ y)),
            "sharpness": np.linalg.eigvalsh(hessian)[-1],
        }
        assert set(found) == {"step", *expected}
        for name, value in expected.items():
            tolerance = 1e-6 if name == "sharpness" else 1e-10
            np.testing.assert_allclose(found[name][k], value, rtol=tolerance, atol=1e-12)


def test_draws_every_quantity(run):
    figure = run[0].plot()
    assert len(figure.axes) == 7
    assert all(len(ax.lines[0].get_xdata()) == 4 for ax in figure.axes)
    with pytest.raises(ValueError, match="as many axes"):
        run[0].plot(figure.axes[:2])


def test_other_losses_labels_and_modules():
    model = eqx.nn.MLP(4, 3, 6, 1, key=jax.random.key(0))
    labels = jnp.array([0, 1, 2, 0, 1, 2])
    loss = lambda f, y: jnp.mean(optax.softmax_cross_entropy_with_integer_labels(f, y))
    tracker = wl.track(model, None, X, labels, loss=loss, trace_axes=-1, sharpness_steps=3)
    moved = jax.tree.map(lambda a: 1.1 * a if eqx.is_inexact_array(a) else a, model)
    first, second = tracker(model), tracker(moved)
    assert [first["step"], second["step"]] == [0, 1]
    assert first["kernel_drift"] == first["movement"] == first["linearization_error"] == 0
    t = np.asarray(wl.empirical_ntk(moved, None, X, trace_axes=-1))
    assert second["alignment"] == pytest.approx(wl.spectrum(t).alignment(np.eye(3)[labels]))
    small = wl.track(model, None, X, labels, loss=loss, kernel=False, sharpness_steps=0)
    assert set(small(moved)) == {"step", "loss", "movement", "linearization_error"}


def test_refusals():
    with pytest.raises(ValueError, match="nothing is recorded"):
        wl.track(network, PARAMS, X, Y, kernel=False).plot()
    tracker = wl.track(network, PARAMS, X, Y, kernel=False)
    with pytest.raises(ValueError, match="not those of the start"):
        tracker({**PARAMS, "v": PARAMS["v"][:, :3]})
    with pytest.raises(ValueError, match="diverged"):
        tracker({**PARAMS, "v": PARAMS["v"] * jnp.nan})
    for change, message in [
        ({"y": Y[:, 0]}, "a target for each output"),
        ({"loss": lambda f, y: f}, "sum over the examples"),
        ({"sharpness_steps": -1}, "at least 0"),
        ({"x": X[:0], "y": Y[:0]}, "no examples"),
    ]:
        given = {"x": X, "y": Y, **change}
        with pytest.raises(ValueError, match=message):
            wl.track(network, PARAMS, given.pop("x"), given.pop("y"), **given)
