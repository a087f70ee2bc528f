"""What each column of a table is, and its values as numbers or categories."""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from widelimit.cli.exits import Failure
from widelimit.cli.tabular import words
from widelimit.cli.tabular.read import Table

Kind = Literal["number", "boolean", "date", "category", "dropped"]

MOSTLY = 0.95
"""Above this share of numbers, other words in a column are taken for missing values."""

IDENTIFIER = 0.9
"""Above this share of different texts a column names rows instead of describing them."""

LARGEST = 1e100
"""Numbers beyond this cannot be standardised in double precision."""

_FEWEST = 20
_COUNTERS = (
    "id", "index", "row", "row_id", "rowid", "no", "nr", "column_1", "unnamed:_0",
    "__index_level_0__",
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """How a column is read.

    Attributes
    ----------
    name, kind
        Its name, and what its values are; a dropped column is not used.
    why
        Why it was dropped.
    notes
        What was assumed, a sentence each.
    form
        How numbers are written, or the format of dates.
    missing
        Words that count as missing values in this column.
    """

    name: str
    kind: Kind
    why: str = ""
    notes: tuple[str, ...] = ()
    form: str = ""
    missing: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return {**asdict(self), "notes": [*self.notes], "missing": [*self.missing]}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Column:
        """The inverse of :meth:`as_json`."""
        return Column(
            str(data["name"]), data["kind"], str(data["why"]), tuple(data["notes"]),
            str(data["form"]), tuple(data["missing"]),
        )  # fmt: skip


def understand(table: Table, name: str) -> tuple[Column, np.ndarray]:
    """What a column is, and its values.

    Returns
    -------
    The column; and floats with NaN where a value is missing (for dates, days since 1970), or for
    categories strings, empty where a value is missing.
    """
    kind, raw = normal(table.frame[name])
    if kind == "other":
        return Column(name, "dropped", f"it holds {raw}"), np.zeros(len(table.frame))
    if kind == "number":
        return _number(Column(name, "number", form="plain"), raw)
    if kind == "date":
        return _finish(Column(name, "date"), raw)
    if kind == "boolean":
        return _finish(Column(name, "boolean"), raw)
    return _words(name, raw, table.delimiter)


def _words(name: str, raw: Sequence[str | None], delimiter: str) -> tuple[Column, np.ndarray]:
    present = sum(word is not None for word in raw)
    if not present:
        return Column(name, "dropped", "it has no values"), np.full(len(raw), np.nan)
    for style in _styles(raw, delimiter):
        values, bad = words.numbers(raw, style)
        odd = sorted({raw[i] or "" for i in bad})
        enough = np.unique(values[~np.isnan(values)]).size > _FEWEST
        if not bad or (len(bad) <= (1 - MOSTLY) * present and enough):
            notes = () if style == "plain" else (f"Numbers are read as {_EXAMPLE[style]}.",)
            if bad:
                some = ", ".join(repr(w) for w in odd[:3])
                notes += (f"{len(bad)} words among numbers count as missing: {some}.",)
            return _number(Column(name, "number", "", notes, style, tuple(odd)), values)
    values, bad = words.booleans(raw)
    if not bad:
        return _finish(Column(name, "boolean"), values)
    forms = [form for form in words.FORMATS if not words.dates(raw[:50], form)[1]]
    forms = [form for form in forms if not words.dates(raw, form)[1]]
    if forms:
        notes = ()
        if len(forms) > 1:
            notes = (f"Dates are read as {forms[0]}; {forms[1]} was possible as well.",)
        days, _ = words.dates(raw, forms[0])
        return _finish(Column(name, "date", "", notes, forms[0]), days)
    return _category(name, raw, present)


_EXAMPLE = {"thousands": "1,234.5", "comma": "1234,5"}


def _styles(raw: Sequence[str | None], delimiter: str) -> list[str]:
    if not any(word is not None and "," in word for word in raw):
        return ["plain"]
    return ["thousands"] if delimiter == "," else ["plain", "comma"]


def _category(name: str, raw: Sequence[str | None], present: int) -> tuple[Column, np.ndarray]:
    values = np.array([word or "" for word in raw], dtype=object)
    levels = len({word for word in raw if word is not None})
    column = Column(name, "category")
    if levels == 1 and present == len(raw):
        return _drop(column, "it is constant"), values
    many = present >= _FEWEST and levels > IDENTIFIER * present
    if many or (levels == present and present > 2):
        why = f"it names rows: {levels} different texts in {present} rows"
        return _drop(column, why), values
    return column, values


def _number(column: Column, values: np.ndarray) -> tuple[Column, np.ndarray]:
    infinite = int(np.sum(np.isinf(values)))
    if infinite:
        note = f"{infinite} infinite values count as missing."
        column = replace(column, notes=(*column.notes, note))
        values = np.where(np.isinf(values), np.nan, values)
    present = values[~np.isnan(values)]
    if present.size and np.max(np.abs(present)) > LARGEST:
        return _drop(column, f"it has values beyond {LARGEST:g}"), values
    if _counts_rows(column.name, values):
        return _drop(column, "it numbers the rows"), values
    return _finish(column, values)


def _finish(column: Column, values: np.ndarray) -> tuple[Column, np.ndarray]:
    """Drop a column whose values, present or missing, are all the same."""
    present = values[~np.isnan(values)]
    if not present.size:
        return _drop(column, "it has no values"), values
    if present.size == values.size and not np.ptp(present) > 0:
        return _drop(column, "it is constant"), values
    return column, values


def _counts_rows(name: str, values: np.ndarray) -> bool:
    plain = name.strip().lower().replace(" ", "_")
    if plain not in _COUNTERS:
        return False
    whole = values.size > 2 and bool(np.all(values == np.round(values)))
    return whole and np.unique(values).size == values.size


def _drop(column: Column, why: str) -> Column:
    return replace(column, kind="dropped", why=why)


# --------------------------------------------------------------------------- reading again


def values_of(column: Column, table: Table) -> tuple[np.ndarray, list[str]]:
    """A column's values, read in the way that was found before, and notes.

    Raises
    ------
    Failure
        With exit code 2, naming the row, if a value is of another kind.
    """
    kind, raw = normal(table.frame[column.name])
    notes: list[str] = []
    if kind == "other":
        raise _wrong(table, column, f"it holds {raw}")
    if column.kind == "category":
        return np.array(_as_words(kind, raw), dtype=object), notes
    if kind == "text":
        raw = [None if word in column.missing else word for word in raw]
        if column.kind == "number":
            values, bad = words.numbers(raw, column.form)
        elif column.kind == "boolean":
            values, bad = words.booleans(raw)
        else:
            values, bad = words.dates(raw, column.form or "ISO 8601")
        if bad:
            raise _wrong(table, column, f"row {bad[0] + 1} has {raw[bad[0]]!r}")
    elif np.all(np.isnan(raw)) or _fits(column.kind, kind, raw):
        values = raw
    else:
        raise _wrong(table, column, f"it holds {kind}s")
    infinite = np.isinf(values) | (np.abs(values) > LARGEST)
    if infinite.any():
        count = int(infinite.sum())
        notes.append(f"Column {column.name!r} has {count} infinite values, taken as missing.")
        values = np.where(infinite, np.nan, values)
    return values, notes


def _fits(wanted: str, kind: str, raw: np.ndarray) -> bool:
    if (wanted, kind) == ("boolean", "number"):
        return bool(np.all(np.isin(raw, (0, 1)) | np.isnan(raw)))
    return kind == wanted or (wanted, kind) == ("number", "boolean")


def _wrong(table: Table, column: Column, found: str) -> Failure:
    kind = {"number": "numbers", "boolean": "yes or no", "date": "dates"}.get(
        column.kind, "categories"
    )
    if column.kind == "date" and column.form:
        kind += f" written as {column.form}"
    if column.kind == "number" and column.form in _EXAMPLE:
        kind += f" written like {_EXAMPLE[column.form]}"
    msg = f"Column {column.name!r} of {table.path} should hold {kind}, but {found}."
    return Failure(msg, 2)


def _as_words(kind: str, raw: Any) -> list[str]:
    if kind == "text":
        return [word or "" for word in raw]
    if kind == "boolean":
        return ["" if np.isnan(v) else ("true" if v else "false") for v in raw]
    return ["" if np.isnan(v) else number_word(v) for v in raw]


def number_word(value: float) -> str:
    """A number as text: whole ones without a point."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


# --------------------------------------------------------------------------- any column


def normal(series: pd.Series) -> tuple[str, Any]:
    """A column as one of four things, whatever its type in the file.

    Returns
    -------
    ``("text", words)`` with None for missing values; ``("number" | "boolean" | "date", floats)``
    with NaN for them; or ``("other", what)``.
    """
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(object)
    dtype = series.dtype
    if pd.api.types.is_bool_dtype(dtype) and not pd.api.types.is_object_dtype(dtype):
        return "boolean", series.astype("float64").to_numpy(dtype=float, na_value=np.nan)
    if pd.api.types.is_complex_dtype(dtype):
        return "other", "complex numbers"
    if pd.api.types.is_numeric_dtype(dtype):
        return "number", series.to_numpy(dtype=float, na_value=np.nan)
    if pd.api.types.is_timedelta64_dtype(dtype):
        return "number", series.dt.total_seconds().to_numpy(dtype=float, na_value=np.nan)
    if pd.api.types.is_datetime64_any_dtype(dtype):
        if getattr(dtype, "tz", None) is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        return "date", _days(series.to_numpy(dtype="datetime64[us]"))
    return _objects(series.to_numpy(dtype=object))


def _days(when: np.ndarray) -> np.ndarray:
    days = when.astype("datetime64[us]").astype(np.int64) / 86_400e6
    return np.where(np.isnat(when), np.nan, days)


def _objects(raw: np.ndarray) -> tuple[str, Any]:
    out: list[Any] = []
    for value in raw:
        if isinstance(value, str):
            word = value.strip()
            out.append(None if word in words.MISSING else word)
        elif value is None or value is pd.NA or value is pd.NaT or _is_nan(value):
            out.append(None)
        else:
            out.append(value)
    present = [value for value in out if value is not None]
    if all(isinstance(value, str) for value in present):
        return "text", out
    if all(isinstance(value, bool | np.bool_) for value in present):
        return "boolean", np.array([np.nan if v is None else float(v) for v in out])
    if all(isinstance(value, int | float | np.number | decimal.Decimal) for value in present):
        return "number", np.array([np.nan if v is None else float(v) for v in out])
    found = next(type(v).__name__ for v in present if not isinstance(v, str))
    return "other", f"values of type {found}"


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and bool(np.isnan(value))
