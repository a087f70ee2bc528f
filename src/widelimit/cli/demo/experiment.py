"""The demonstration's computations, from images to numbers; draws and prints nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.sparse.linalg import eigsh

from widelimit import predict
from widelimit.cli.demo.data import Digits, digits
from widelimit.cli.demo.network import network, parameter_shapes, source
from widelimit.cli.demo.training import train
from widelimit.cli.shared.environment import machine, versions
from widelimit.cli.shared.screen import Progress
from widelimit.kernel import Kernel, kernel
from widelimit.precision import double_precision

# Fraction of the critical rate of the linearised network; leaves room for narrow networks.
_RATE = 0.7


@dataclass(frozen=True)
class Settings:
    """Sizes of the demonstration; ``widths`` maps a width to a number of networks."""

    train: int
    test: int
    steps: int
    widths: tuple[tuple[int, int], ...]


STANDARD = Settings(1197, 600, 350, ((64, 4), (256, 3), (1024, 1)))
QUICK = Settings(300, 200, 150, ((16, 4), (64, 3), (256, 2)))


@dataclass(frozen=True)
class Row:
    """One predictor's scores on the test images; of several networks, the mean of each score.

    Attributes
    ----------
    name
        For people.
    kind
        ``"nngp"``, ``"ntk"`` or ``"trained"``.
    width, networks
        None for infinite width.
    accuracy, nll, ece
        Fraction right; negative log-likelihood in nats; expected calibration error.
    seconds
        Wall clock for all networks of the row: compilation, kernels or training, probabilities.
    """

    name: str
    kind: str
    width: int | None
    networks: int | None
    accuracy: float
    nll: float
    ece: float
    seconds: float


@dataclass(frozen=True)
class Finite:
    """Trained networks of one width against the NTK limit, one number for each network.

    Attributes
    ----------
    difference
        Root mean square of prediction less limit, over that of the limit.
    accuracy
        Fraction right.
    agreement
        Fraction of test images given the same digit as by the limit.
    residual
        Root mean square residual on the training images; 0 is complete training.
    """

    width: int
    difference: list[float]
    accuracy: list[float]
    agreement: list[float]
    residual: list[float]


@dataclass(frozen=True)
class Results:
    """Everything the report shows.

    Attributes
    ----------
    probabilities
        For each of the rows, shape (test, 10); of several networks, the first one's.
    slope
        Of log difference against log width, by least squares over all networks.
    """

    settings: Settings
    seed: int
    rows: list[Row]
    finite: list[Finite]
    slope: float
    probabilities: list[np.ndarray]
    labels: np.ndarray
    images: np.ndarray
    source: str
    versions: dict[str, str]
    machine: dict[str, str]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The numbers, without images and probabilities."""
        return {
            "schema": 1,
            "settings": {**asdict(self.settings), "widths": dict(self.settings.widths)},
            "seed": self.seed,
            "results": [asdict(row) for row in self.rows],
            "convergence": [asdict(f) for f in self.finite],
            "slope": self.slope,
            "versions": self.versions,
            "machine": self.machine,
            "seconds": self.seconds,
        }


def run(settings: Settings, seed: int, progress: Progress) -> Results:
    """All computations of the demonstration.

    Infinite width is computed in float64, training in float32. The class link of the trained
    networks is the one fitted to the leave-one-out predictions of the NTK limit.
    """
    begin = time.perf_counter()
    data = progress.stage("Load the digits", lambda: digits(settings.train, settings.test, seed))
    shapes = parameter_shapes(settings.widths[-1][0], 64, 10)
    infinite = progress.stage("Read the network", lambda: kernel(network, shapes))
    rows, probabilities = [], []

    def score(name: str, kind: str, width: int | None, outputs: list, seconds: float) -> None:
        rows.append(_row(name, kind, width, outputs, data.labels_test, seconds))
        probabilities.append(outputs[0])

    with double_precision():
        bayes = progress.stage("NNGP: exact posterior", lambda: _bayes(infinite, data))
        score("NNGP posterior", "nngp", None, [bayes[0]], bayes[1])
        limit = progress.stage("NTK: exact end of training", lambda: _limit(infinite, data))
        score("NTK, trained to the end", "ntk", None, [limit.probabilities], limit.seconds)
    finite = []
    for width, count in settings.widths:
        some = f"{count} networks" if count > 1 else "one network"

        def work(advance: Callable[[int], None], width: int = width, count: int = count) -> Any:
            return train(data, width, count, settings.steps, limit.rate, seed + 1, advance)

        started = time.perf_counter()
        outputs, residual = progress.steps(f"Train {some} of width {width}", settings.steps, work)
        with double_precision():
            found = [np.asarray(limit.link(jnp.asarray(one))) for one in outputs]
        name = f"{some[0].upper()}{some[1:]}, width {width}"
        score(name, "trained", width, found, time.perf_counter() - started)
        finite.append(_against_limit(width, outputs, residual, limit.mean, data.labels_test))
    across = [np.log(f.width) for f in finite for _ in f.difference]
    down = [np.log(d) for f in finite for d in f.difference]
    packages = versions("optax", "numpy", "scipy", "scikit-learn")
    return Results(
        settings, seed, rows, finite, float(np.polyfit(across, down, 1)[0]), probabilities,
        data.labels_test, data.images_test, source(), packages, machine(),
        time.perf_counter() - begin,
    )  # fmt: skip


@dataclass(frozen=True)
class _Limit:
    mean: np.ndarray
    probabilities: np.ndarray
    link: predict.Link
    rate: float
    seconds: float


def _bayes(infinite: Kernel, data: Digits) -> tuple[np.ndarray, float]:
    """Class probabilities from posterior means and variances."""
    started = time.perf_counter()
    post = predict.posterior(infinite, data.x_train, data.y_train, kind="nngp")
    link = predict.fit_link(*post.leave_one_out(), data.labels_train)
    found = link(post.mean(data.x_test), post.variance(data.x_test))
    return np.asarray(found), time.perf_counter() - started


def _limit(infinite: Kernel, data: Digits) -> _Limit:
    """The limit of networks trained relative to their initial function: a mean, no variance."""
    started = time.perf_counter()
    post = predict.posterior(infinite, data.x_train, data.y_train, kind="ntk")
    link = predict.fit_link(post.leave_one_out().mean, 0.0, data.labels_train)
    mean = post.mean(data.x_test)
    found = np.asarray(link(mean))
    seconds = time.perf_counter() - started
    gram = np.asarray(infinite.ntk(data.x_train))
    start = np.ones(len(gram))
    top = float(eigsh(gram, 1, v0=start, return_eigenvectors=False)[0])
    return _Limit(np.asarray(mean), found, link, _RATE / top, seconds)


def _row(
    name: str, kind: str, width: int | None, outputs: list, labels: np.ndarray, seconds: float
) -> Row:
    scores = [
        [
            predict.accuracy(p, labels),
            predict.negative_log_likelihood(p, labels),
            predict.expected_calibration_error(p, labels),
        ]
        for p in outputs
    ]
    right, nll, ece = (float(v) for v in np.mean(scores, 0))
    networks = None if width is None else len(outputs)
    return Row(name, kind, width, networks, right, nll, ece, seconds)


def _against_limit(
    width: int, outputs: np.ndarray, residual: np.ndarray, limit: np.ndarray, labels: np.ndarray
) -> Finite:
    size = np.sqrt(np.mean(limit**2))
    chosen = outputs.argmax(-1)
    return Finite(
        width,
        [float(np.sqrt(np.mean((one - limit) ** 2)) / size) for one in outputs],
        [float(v) for v in np.mean(chosen == labels, 1)],
        [float(v) for v in np.mean(chosen == limit.argmax(-1), 1)],
        [float(v) for v in residual],
    )
