"""The column to predict: its task, its values, the rows that have one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from widelimit.cli.exits import Failure
from widelimit.cli.tabular.columns import Column, normal, number_word, understand
from widelimit.cli.tabular.read import Table

Task = Literal["regression", "classification"]

FEW = 10
"""Whole numbers with at most so many different values are classes."""

MOST_CLASSES = 100
"""More classes than these are not classified."""

_MEMBERS = 5


@dataclass(frozen=True)
class Target:
    """What is predicted.

    Attributes
    ----------
    column, task, why
        The column, the task, and the reason for it.
    classes
        The names of the classes in order; none for regression.
    rows
        The numbers of the rows with a value.
    values
        Their values, or numbers of classes.
    notes
        What was left out, a sentence each.
    """

    column: Column
    task: Task
    why: str
    classes: tuple[str, ...]
    rows: np.ndarray
    values: np.ndarray
    notes: tuple[str, ...]


def target(table: Table, name: str, asked: str) -> Target:
    """Find out what is to be predicted.

    Parameters
    ----------
    asked
        ``"auto"``, ``"regression"`` or ``"classification"``.

    Raises
    ------
    Failure
        With exit code 2, if the column is not there or nothing can be learned from it.
    """
    require_names(table, [name], "--target")
    column, values = understand(table, name)
    here = f"The target {name!r} cannot be predicted:"
    if column.kind == "date":
        msg = f"{here} it is a date; turn it into a number first."
        raise Failure(msg, 2)
    if column.kind == "dropped":
        raise Failure(f"{here} {column.why}.", 2)
    kept = values != "" if column.kind == "category" else ~np.isnan(values)
    rows = np.flatnonzero(kept)
    values, notes = values[rows], column.notes
    if rows.size < kept.size:
        notes = (*notes, f"{kept.size - rows.size} rows without a target were left out.")
    task, why = _task(column, values, asked, here)
    if task == "regression":
        numbers = values.astype(float)
        if not np.ptp(numbers) > 0:
            raise Failure(f"{here} it is constant.", 2)
        return Target(column, task, why, (), rows, numbers, notes)
    labels = _labels(table, column, values, rows)
    classes, members = _sorted(labels)
    if len(classes) < 2:
        raise Failure(f"{here} it is constant.", 2)
    if len(classes) > MOST_CLASSES:
        msg = f"{here} it has {len(classes)} classes, and {MOST_CLASSES} is the most."
        raise Failure(msg, 2)
    return Target(column, task, why, classes, rows, members, notes)


def require_names(table: Table, names: list[str], option: str) -> None:
    """Fail if a column is not in the table.

    Raises
    ------
    Failure
        With exit code 2.
    """
    for name in names:
        if name not in table.names:
            shown = ", ".join(table.names[:20]) + (", ..." if len(table.names) > 20 else "")
            msg = f"{option} {name!r}: {table.path} has no such column; it has {shown}."
            raise Failure(msg, 2)


def _task(column: Column, values: np.ndarray, asked: str, here: str) -> tuple[Task, str]:
    if column.kind == "category":
        if asked == "regression":
            msg = f"{here} regression needs numbers, and row values such as {values[0]!r} are text."
            raise Failure(msg, 2)
        return "classification", "the target is text"
    if asked == "regression":
        return "regression", "--task asks for it"
    if asked == "classification":
        return "classification", "--task asks for it"
    if column.kind == "boolean":
        return "classification", "the target has two values, yes and no"
    different = np.unique(values).size
    if np.all(values == np.round(values)) and different <= FEW and (
        different * _MEMBERS <= values.size
    ):
        return "classification", (
            f"the target has {different} different whole numbers (--task regression takes them as "
            "numbers)"
        )
    return "regression", f"the target is a number with {different} different values"


def _labels(table: Table, column: Column, values: np.ndarray, rows: np.ndarray) -> list[str]:
    if column.kind == "number":
        return [number_word(v) for v in values]
    if column.kind == "boolean":
        kind, raw = normal(table.frame[column.name])
        written = [raw[i] for i in rows] if kind == "text" else []
        if len(set(written)) == 2:
            return written
        return ["true" if v else "false" for v in values]
    return [str(v) for v in values]


def _sorted(labels: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    different = sorted(set(labels))
    with contextlib.suppress(ValueError):
        different.sort(key=float)
    number = {label: i for i, label in enumerate(different)}
    return tuple(different), np.array([number[label] for label in labels])
