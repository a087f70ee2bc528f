"""From a table to scores and a fitted model; draws and prints nothing."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold

from widelimit.cli.exits import Failure
from widelimit.cli.fit import baselines
from widelimit.cli.fit.scores import scores
from widelimit.cli.shared.environment import machine, versions
from widelimit.cli.shared.screen import Progress
from widelimit.cli.tabular.columns import Column, understand
from widelimit.cli.tabular.model import Model, Prediction, Training, join, require_recipe, take
from widelimit.cli.tabular.read import Table, read
from widelimit.cli.tabular.target import Target, require_names, target
from widelimit.predict import PrecisionWarning

FEWEST_ROWS = 6
NETWORK = "infinite network"


@dataclass(frozen=True)
class Settings:
    """What ``widelimit fit`` was asked for."""

    table: Path
    target: str
    task: str = "auto"
    network: str = "relu x 3"
    kind: str = "nngp"
    drop: tuple[str, ...] = ()
    folds: int = 5
    most_rows: int = 5000
    relevance: bool = False
    learn: bool = True
    baselines: bool = True
    seed: int = 0

    def options(self) -> dict[str, Any]:
        """Arguments of the estimator."""
        return {
            "network": self.network,
            "kind": self.kind,
            "learn": "evidence" if self.learn else None,
            "relevance": self.relevance or "auto",
            "random_state": self.seed,
        }


@dataclass(frozen=True)
class Row:
    """One predictor's scores over all folds.

    Attributes
    ----------
    name
        For people.
    kind
        ``"network"`` or ``"baseline"``.
    scores
        By name; see :func:`widelimit.cli.fit.scores.scores`.
    seconds
        Wall clock for all folds.
    """

    name: str
    kind: str
    scores: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Results:
    """Everything that the report shows.

    Attributes
    ----------
    model
        Fitted to all rows.
    columns
        Of the table without the target.
    rows
        Scores, the network's first.
    predictions
        For each of the rows of scores, predictions of held-out rows in the order of the table.
    places
        For each of the model's rows, its number in the table, from 1.
    notes
        What was assumed and left out, a sentence each.
    """

    settings: Settings
    table: Table
    target: Target
    model: Model
    columns: tuple[Column, ...]
    folds: int
    rows: list[Row]
    predictions: list[Prediction]
    places: np.ndarray
    notes: list[str]
    versions: dict[str, str]
    machine: dict[str, str]
    seconds: float

    @property
    def answers(self) -> np.ndarray:
        """The targets of the model's rows."""
        return self.model.training.answers

    @property
    def relevance(self) -> dict[str, float] | None:
        """How relevant each column was found to be, if that was learned."""
        return relevance(self.model)

    def as_json(self) -> dict[str, Any]:
        """The numbers."""
        estimator = self.model.estimator
        settings = asdict(self.settings)
        settings |= {"table": str(self.settings.table), "drop": [*self.settings.drop]}
        return {
            "schema": 1,
            "settings": settings,
            "task": self.target.task,
            "why": self.target.why,
            "classes": [*self.target.classes],
            "rows": len(self.answers),
            "features": len(self.model.encoder.features),
            "folds": self.folds,
            "columns": [c.as_json() for c in self.columns],
            "results": [asdict(row) for row in self.rows],
            "noise": float(estimator.noise_),
            "scales": {k: float(v) for k, v in estimator.scales_.items()},
            "relevance": self.relevance,
            "log_marginal_likelihood": float(estimator.log_marginal_likelihood_),
            "notes": self.notes,
            "versions": self.versions,
            "machine": self.machine,
            "seconds": self.seconds,
        }


def run(settings: Settings, progress: Progress) -> Results:
    """Read, cross-validate, and fit to all rows.

    Raises
    ------
    Failure
        If the table, the target or the network cannot be used.
    """
    begin = time.perf_counter()
    if settings.relevance and not settings.learn:
        msg = "--relevance is learned, so it cannot be used with --no-learn."
        raise Failure(msg, 2)
    require_recipe(settings.network)
    table = progress.stage("Read the table", lambda: read(settings.table))
    notes = [*table.notes]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        goal, training, places = _prepare(settings, table, notes)
        splits = _splits(settings, goal, training, notes)
        rows, predictions = _validate(settings, training, splits, progress)
        model = progress.stage("Fit all rows", lambda: _fitted(training))
    if any(issubclass(w.category, PrecisionWarning) for w in caught):
        notes.append(
            "The kernel matrix was close to singular in double precision; see rows that repeat, "
            "or a noise that was learned to be nearly nothing."
        )
    return Results(
        settings, table, goal, model, training.columns, len(splits), rows, predictions, places,
        notes, versions("numpy", "scipy", "scikit-learn", "pandas"), machine(),
        time.perf_counter() - begin,
    )  # fmt: skip


def relevance(model: Model) -> dict[str, float] | None:
    """The largest learned factor among the features of each column, relative to the largest.

    None where factors were not learned.
    """
    factors = np.asarray(model.estimator.input_scales_)
    natural = np.asarray(model.encoder.scales)
    if np.array_equal(factors, natural):
        return None
    out: dict[str, float] = {}
    for feature, factor, scale in zip(model.encoder.features, factors, natural):
        value = float(factor / scale) if scale > 0 else 0.0
        out[feature.column] = max(out.get(feature.column, 0.0), value)
    top = max(out.values(), default=0.0) or 1.0
    return {name: value / top for name, value in sorted(out.items(), key=lambda kv: -kv[1])}


def _prepare(
    settings: Settings, table: Table, notes: list[str]
) -> tuple[Target, Training, np.ndarray]:
    """What is predicted and what from, with the numbers of the rows that are used."""
    require_names(table, [*settings.drop], "--drop")
    goal = target(table, settings.target, settings.task)
    notes += goal.notes
    columns, values = [], {}
    # Columns are judged by the rows that are learned from.
    judged = Table(table.path, table.frame.iloc[goal.rows], table.delimiter)
    for name in table.names:
        if name == settings.target:
            continue
        if name in settings.drop:
            columns.append(Column(name, "dropped", "--drop asks for it"))
            continue
        column, found = understand(judged, name)
        columns.append(column)
        if column.kind != "dropped":
            values[name] = found
    if not values:
        gone = "; ".join(f"{c.name!r}: {c.why}" for c in columns[:5])
        msg = f"{table.path} has no column to predict {settings.target!r} from. {gone}".rstrip(". ")
        raise Failure(f"{msg}.", 2)
    if len(goal.rows) < FEWEST_ROWS:
        msg = (
            f"{table.path} has {len(goal.rows)} rows with a target; at least {FEWEST_ROWS} are "
            "needed."
        )
        raise Failure(msg, 2)
    training = Training(
        settings.target, goal.task, goal.classes, tuple(columns), values, goal.values,
        settings.options(),
    )  # fmt: skip
    kept = np.arange(len(goal.rows))
    if len(kept) > settings.most_rows:
        random = np.random.default_rng(settings.seed)
        kept = np.sort(random.choice(kept, settings.most_rows, replace=False))
        notes.append(
            f"{settings.most_rows} of {len(goal.rows)} rows were drawn at random; --max-rows takes "
            "more."
        )
        training = training.take(kept)
    return goal, training, goal.rows[kept] + 1


def _splits(
    settings: Settings, goal: Target, training: Training, notes: list[str]
) -> list[tuple[np.ndarray, np.ndarray]]:
    count = len(training.answers)
    folds = min(settings.folds, count // 2)
    if folds < settings.folds:
        notes.append(f"{folds} folds instead of {settings.folds}, for {count} rows.")
    if goal.task == "classification":
        members = np.bincount(training.answers, minlength=len(goal.classes))
        few = [c for c, n in zip(goal.classes, members) if n < folds]
        if few:
            notes.append(
                f"{len(few)} classes have fewer rows than there are folds, such as {few[0]!r}; "
                "where none is left to learn from, every predictor gives them probability 0."
            )
        if members.max() >= folds:
            split = StratifiedKFold(folds, shuffle=True, random_state=settings.seed)
            return list(split.split(training.answers, training.answers))
    split = KFold(folds, shuffle=True, random_state=settings.seed)
    return list(split.split(training.answers))


def _fitted(training: Training) -> Model:
    try:
        return Model(training)
    except (ValueError, FloatingPointError) as error:
        msg = f"The network cannot be fitted to this table: {error}".rstrip(".") + "."
        raise Failure(msg) from error


def _validate(
    settings: Settings,
    training: Training,
    splits: list[tuple[np.ndarray, np.ndarray]],
    progress: Progress,
) -> tuple[list[Row], list[Prediction]]:
    names = [NETWORK, *(baselines.names(training.task) if settings.baselines else ())]
    parts: dict[str, list[Prediction]] = {name: [] for name in names}
    seconds = dict.fromkeys(names, 0.0)

    def work(advance: Callable[[int], None]) -> None:
        for train, test in splits:
            some = training.take(train)
            start = time.perf_counter()
            model = _fitted(some)
            features = model.encoder.transform(training.take(test).values)
            parts[NETWORK].append(model.of_features(features))
            seconds[NETWORK] += time.perf_counter() - start
            advance(1)
            for name in names[1:]:
                start = time.perf_counter()
                found = baselines.predict(
                    name, training.task, len(training.classes), model.features, some.answers,
                    features, settings.seed,
                )  # fmt: skip
                parts[name].append(found)
                seconds[name] += time.perf_counter() - start
                advance(1)

    progress.steps(f"Cross-validate, {len(splits)} folds", len(splits) * len(names), work)
    order = np.argsort(np.concatenate([test for _, test in splits]), kind="stable")
    rows, predictions = [], []
    for name in names:
        found = take(join(parts[name]), order)
        _require_finite(name, found)
        rows.append(
            Row(
                name,
                "network" if name == NETWORK else "baseline",
                scores(training.task, found, training.answers),
                seconds[name],
            )
        )
        predictions.append(found)
    return rows, predictions


def _require_finite(name: str, found: Prediction) -> None:
    for values in (found.mean, found.std, found.probabilities):
        if values is not None and not np.all(np.isfinite(values)):
            msg = (
                f"The {name} gave predictions that are not finite: the columns or the target have "
                "values too large to compute with."
            )
            raise Failure(msg)
