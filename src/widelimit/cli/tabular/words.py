"""What a word in a table can mean: nothing, a number, yes or no, a date."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

MISSING = frozenset(
    (
        "", "?", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "NaT", "null", "NULL",
        "None",
    )
)  # fmt: skip
"""Words that stand for a missing value."""

YES = frozenset(("true", "yes", "t", "y"))
NO = frozenset(("false", "no", "f", "n"))

_PLAIN = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?inf(?:inity)?",
                    re.IGNORECASE)  # fmt: skip
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")
_COMMA = re.compile(r"[+-]?(?:[0-9]+,?[0-9]*|,[0-9]+)(?:[eE][+-]?[0-9]+)?")

STYLES: dict[str, Callable[[str], float | None]] = {
    "plain": lambda w: float(w) if _PLAIN.fullmatch(w) else None,
    "thousands": lambda w: (
        float(w.replace(",", "")) if _PLAIN.fullmatch(w) or _THOUSANDS.fullmatch(w) else None
    ),
    "comma": lambda w: float(w.replace(",", ".")) if _COMMA.fullmatch(w) else None,
}
"""How numbers are written: 1234.5, 1,234.5 or 1234,5."""

_DAY = ("%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y",
        "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y")  # fmt: skip
FORMATS = ("ISO 8601", *(day + time for day in _DAY for time in ("", " %H:%M", " %H:%M:%S")))
"""Formats of dates, in the order in which they are tried."""

_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}.*)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def numbers(words: Sequence[str | None], style: str) -> tuple[np.ndarray, list[int]]:
    """Words as numbers, NaN where there is none, and the places of words that are no numbers."""
    read, out, bad = STYLES[style], np.full(len(words), np.nan), []
    for i, word in enumerate(words):
        if word is not None:
            value = read(word)
            if value is None:
                bad.append(i)
            else:
                out[i] = value
    return out, bad


def booleans(words: Sequence[str | None]) -> tuple[np.ndarray, list[int]]:
    """Words as 1 and 0, NaN where there is none, and the places of other words."""
    out, bad = np.full(len(words), np.nan), []
    for i, word in enumerate(words):
        if word is not None:
            low = word.lower()
            if low in YES or low in ("1", "1.0"):
                out[i] = 1
            elif low in NO or low in ("0", "0.0"):
                out[i] = 0
            else:
                bad.append(i)
    return out, bad


def dates(words: Sequence[str | None], form: str) -> tuple[np.ndarray, list[int]]:
    """Words as days since 1970, NaN where there is none, and the places of other words.

    A time with an offset is taken to UTC; one without is left as it is.
    """
    out, bad = np.full(len(words), np.nan), []
    for i, word in enumerate(words):
        if word is not None:
            value = _date(word, form)
            if value is None:
                bad.append(i)
            else:
                out[i] = value
    return out, bad


def _date(word: str, form: str) -> float | None:
    try:
        if form == "ISO 8601":
            if not _ISO.fullmatch(word):
                return None
            when = datetime.fromisoformat(word)
        else:
            when = datetime.strptime(word, form)
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
        return (when - _EPOCH).total_seconds() / 86400
    except (ValueError, OverflowError):
        return None
