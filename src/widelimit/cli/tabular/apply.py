"""A model on a new table: its columns, its predictions, both together as CSV."""

from __future__ import annotations

import numpy as np

from widelimit.cli.exits import Failure
from widelimit.cli.tabular.columns import values_of
from widelimit.cli.tabular.model import Model, Prediction
from widelimit.cli.tabular.read import Table


def values(model: Model, table: Table) -> tuple[dict[str, np.ndarray], list[str]]:
    """The columns that the model uses, read as they were for training; and notes.

    Raises
    ------
    Failure
        With exit code 2, if columns are missing or hold something else.
    """
    training = model.training
    absent = [c.name for c in training.used if c.name not in table.names]
    if absent:
        some = ", ".join(repr(name) for name in absent[:10])
        msg = f"The table {table.path} lacks columns that the model needs: {some}."
        raise Failure(msg, 2)
    notes = [*table.notes]
    known = {c.name for c in training.columns} | {training.target}
    new = [name for name in table.names if name not in known]
    if new:
        some = ", ".join(repr(name) for name in new[:10])
        notes.append(f"Columns that the model does not know are passed on: {some}.")
    out = {}
    for column in training.used:
        out[column.name], more = values_of(column, table)
        notes += more
        notes += _gaps(column.name, out[column.name], training.values[column.name])
    for name, words in model.encoder.unseen(out).items():
        some = ", ".join(repr(w) if w else "a missing value" for w in words[:5])
        notes.append(
            f"Column {name!r} has {len(words)} categories that training did not have, taken as "
            f"rare or unknown: {some}."
        )
    return out, notes


def _gaps(name: str, new: np.ndarray, old: np.ndarray) -> list[str]:
    if new.dtype == object or np.isnan(old).any() or not np.isnan(new).any():
        return []
    count = int(np.isnan(new).sum())
    return [f"Column {name!r} has {count} missing values, where training had none; filled in."]


def columns(model: Model, found: Prediction) -> dict[str, np.ndarray]:
    """The columns that are added to the table."""
    target, classes = model.training.target, model.training.classes
    if found.probabilities is None:
        return {f"{target}_mean": np.asarray(found.mean), f"{target}_std": np.asarray(found.std)}
    p = found.probabilities
    best = np.array(classes, dtype=object)[p.argmax(1)]
    return {
        f"{target}_predicted": best,
        **{f"{target}_p_{name}": p[:, k] for k, name in enumerate(classes)},
    }


def as_csv(model: Model, table: Table, found: Prediction) -> str:
    """The table as it was, with the predictions beside it.

    Raises
    ------
    Failure
        With exit code 2, if the table has columns of these names already.
    """
    added = columns(model, found)
    for name in added:
        if name in table.names:
            msg = f"The table {table.path} has a column {name!r} already; rename it."
            raise Failure(msg, 2)
    for column in added.values():
        if column.dtype != object and not np.all(np.isfinite(column)):
            row = int(np.flatnonzero(~np.isfinite(column))[0]) + 1
            msg = f"The prediction of row {row} is not finite: its values are too large."
            raise Failure(msg)
    whole = table.frame.assign(**added)
    text = whole.to_csv(index=False, lineterminator="\n")
    # A lone carriage return inside a value is quoted only where it could end a line.
    return whole.to_csv(index=False, lineterminator="\r\n") if "\r" in text else text
