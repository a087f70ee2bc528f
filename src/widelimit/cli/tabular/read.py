"""Reading a table from a file: CSV in its dialects, and Parquet."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from widelimit.cli.exits import Failure

MOST_COLUMNS = 10_000
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_SNIFFED = 200
_FOREIGN = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook; save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as CSV",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"%PDF": "a PDF document; export the table as CSV",
    b"\x89HDF": "an HDF5 file; export the table as CSV or Parquet",
    b"ARROW1": "an Arrow file; save it as Parquet",
}


@dataclass(frozen=True)
class Table:
    """A table as it is in the file.

    Attributes
    ----------
    path
        The file.
    frame
        The columns: text as written for CSV, whatever type the file has for Parquet.
    delimiter
        Between the values of a line of CSV.
    notes
        What was assumed in reading it, a sentence each.
    """

    path: Path
    frame: pd.DataFrame
    delimiter: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.frame.columns)


def read(path: Path) -> Table:
    """Read a CSV or Parquet file.

    Raises
    ------
    Failure
        With exit code 2, if there is no such file or if it is not a table.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        msg = f"Cannot read the table {path}: {error.strerror or error}."
        raise Failure(msg, 2) from error
    if not raw.strip():
        msg = f"The table {path} is empty."
        raise Failure(msg, 2)
    for magic, what in _FOREIGN.items():
        if raw.startswith(magic):
            msg = f"{path} is not a table in CSV or Parquet but {what}."
            raise Failure(msg, 2)
    if raw.startswith(b"PAR1") or path.suffix.lower() in (".parquet", ".pq"):
        table = _parquet(path, raw)
    else:
        table = _csv(path, raw)
    _require_columns(path, table.names)
    if not len(table.frame):
        msg = f"The table {path} has column names but no rows."
        raise Failure(msg, 2)
    return table


def _require_columns(path: Path, names: list[str]) -> None:
    if len(names) > MOST_COLUMNS:
        msg = f"The table {path} has {len(names)} columns; {MOST_COLUMNS} is the most."
        raise Failure(msg, 2)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        some = ", ".join(repr(name) for name in twice[:5])
        msg = f"In the table {path} several columns have the same name: {some}. Rename them."
        raise Failure(msg, 2)


# --------------------------------------------------------------------------- CSV


def _csv(path: Path, raw: bytes) -> Table:
    notes: list[str] = []
    text = _decode(path, raw, notes)
    delimiter = _sniff(text)
    records = _records(path, text, delimiter)
    if not records:
        msg = f"The table {path} is empty."
        raise Failure(msg, 2)
    header, rows = records[0], records[1:]
    names = _named(header, notes)
    if len(names) > 1:
        rows = [r for r in rows if len(r[1]) > 1 or r[1] != [""]]
    else:
        while rows and rows[-1][1] == [""]:
            rows.pop()
    for line, cells in rows:
        if len(cells) != len(names):
            msg = (
                f"Line {line} of {path} has {len(cells)} values where line {header[0]} names "
                f"{len(names)} columns (values are separated by {_DELIMITERS[delimiter]}s)."
            )
            raise Failure(msg, 2)
    if delimiter != ",":
        notes.append(f"Values are separated by {_DELIMITERS[delimiter]}s.")
    _require_columns(path, names)
    columns = zip(*(cells for _, cells in rows)) if rows else ([] for _ in names)
    arrays = {name: _text(column) for name, column in zip(names, columns)}
    return Table(path, pd.DataFrame(arrays, dtype=object), delimiter, notes)


def _text(values: object) -> np.ndarray:
    return np.array([*values], dtype=object)  # type: ignore[misc]


def _decode(path: Path, raw: bytes, notes: list[str]) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            text = raw.decode("utf-16")
        except UnicodeDecodeError as error:
            msg = f"{path} begins like UTF-16 text but is not: {error.reason}. Save it as UTF-8."
            raise Failure(msg, 2) from error
        notes.append("The text is encoded in UTF-16.")
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
            notes.append("The text is not valid UTF-8 and was read as Latin-1.")
    at = text.find("\x00")
    if at >= 0:
        line = text.count("\n", 0, at) + 1
        msg = f"Line {line} of {path} holds a NUL byte: the file is binary, or damaged."
        raise Failure(msg, 2)
    return text


def _sniff(text: str) -> str:
    """The delimiter that splits the first lines into equally many values, most of them."""
    best, found = (0.0, 0), ","
    for delimiter in _DELIMITERS:
        counts = []
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            for cells in reader:
                if cells:
                    counts.append(len(cells))
                if len(counts) == _SNIFFED:
                    break
        except csv.Error:
            continue
        # The header decides how many values a line should have.
        if counts and counts[0] > 1:
            score = (sum(c == counts[0] for c in counts) / len(counts), counts[0])
            if score > best:
                best, found = score, delimiter
    return found


def _records(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """The lines' values with the number of the line; blank lines hold one empty value."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    out: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            if out or cells:
                out.append((reader.line_num, cells or [""]))
    except csv.Error as error:
        msg = f"Line {reader.line_num} of {path} is not CSV: {error}."
        raise Failure(msg, 2) from error
    return out


def _named(header: tuple[int, list[str]], notes: list[str]) -> list[str]:
    names = [cell.strip() for cell in header[1]]
    for i, name in enumerate(names):
        if not name:
            names[i] = f"column {i + 1}"
            notes.append(f"Column {i + 1} has no name and is called {names[i]!r}.")
    return names


# --------------------------------------------------------------------------- Parquet


def _parquet(path: Path, raw: bytes) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        msg = (
            f"Reading {path} needs pyarrow: pip install 'widelimit[parquet]', or save the table "
            "as CSV."
        )
        raise Failure(msg, 2) from error
    try:
        found = parquet.ParquetFile(pyarrow.BufferReader(raw)).read()
        _require_columns(path, [str(name) for name in found.column_names])
        frame = found.to_pandas(ignore_metadata=True, date_as_object=False)
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        msg = f"{path} is not a readable Parquet file: {first}."
        raise Failure(msg, 2) from error
    frame.columns = [str(name) for name in frame.columns]
    return Table(path, frame)
