"""Columns as features: missing values filled, numbers standardised, categories spread out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from widelimit.cli.tabular.columns import Column

RARE, MOST_LEVELS = 0.01, 30
"""Categories with a smaller share of the rows, or beyond so many, are taken together."""

MISSING = "(missing)"
_YEAR = 365.2425


class Feature(NamedTuple):
    """A number that the network sees: the column it comes from, and what it is."""

    column: str
    what: str


class Encoder:
    """The columns that are used, and how they become features.

    Parameters
    ----------
    columns
        All columns; dropped ones are passed over.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = [c for c in columns if c.kind != "dropped"]
        self._blocks: list[tuple[list[str], TransformerMixin]] = []
        self.features: list[Feature] = []
        self.scales = np.zeros(0)

    def fit(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Learn fillings, scales and categories, and return the features, shape (n, d)."""
        self._blocks, self.features = [], []
        for kind in ("number", "boolean", "date", "category"):
            names = [c.name for c in self._columns if c.kind == kind]
            for transformer in _transformers(kind) if names else ():
                transformer.fit(_stack(names, values))
                self._blocks.append((names, transformer))
                self.features += _names(kind, names, transformer)
        out = self.transform(values)
        self.scales = out.std(0)
        return out

    def transform(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """The features of new rows, shape (m, d)."""
        with warnings.catch_warnings():
            # Unknown categories are counted and reported elsewhere.
            warnings.filterwarnings("ignore", "Found unknown categories", UserWarning)
            parts = [block.transform(_stack(names, values)) for names, block in self._blocks]
        return np.column_stack([np.asarray(part, float) for part in parts])

    def unseen(self, values: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
        """The categories of new rows that training did not have, by column."""
        out = {}
        for names, block in self._blocks:
            if isinstance(block, OneHotEncoder):
                for name, known in zip(names, block.categories_):
                    new = set(values[name]) - {"" if k == MISSING else k for k in known}
                    if new:
                        out[name] = sorted(new)
        return out


def date_parts(days: np.ndarray) -> np.ndarray:
    """Days since 1970, shape (n, k), and their place in the year, the week and the day.

    Returns
    -------
    Shape (n, 7 k): the days, then sine and cosine of each place.
    """
    turns = [days / _YEAR, days / 7, days]
    return np.hstack([days, *(f(2 * np.pi * (t % 1)) for t in turns for f in (np.sin, np.cos))])


_PARTS = ("day", "year: sine", "year: cosine", "week: sine", "week: cosine", "hour: sine",
          "hour: cosine")  # fmt: skip


def _transformers(kind: str) -> list[TransformerMixin]:
    def gaps() -> MissingIndicator:
        return MissingIndicator(features="missing-only", error_on_new=False)

    if kind == "number":
        fill = SimpleImputer(strategy="median", keep_empty_features=True)
        return [make_pipeline(fill, StandardScaler()), gaps()]
    if kind == "boolean":
        fill = SimpleImputer(strategy="most_frequent", keep_empty_features=True)
        return [make_pipeline(fill, StandardScaler(with_std=False)), gaps()]
    if kind == "date":
        fill = SimpleImputer(strategy="median", keep_empty_features=True)
        parts = FunctionTransformer(date_parts)
        return [make_pipeline(fill, parts, StandardScaler()), gaps()]
    return [
        OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            min_frequency=RARE,
            max_categories=MOST_LEVELS,
            sparse_output=False,
        )
    ]


def _stack(names: list[str], values: Mapping[str, np.ndarray]) -> np.ndarray:
    if values[names[0]].dtype == object:
        return np.column_stack([np.where(values[n] == "", MISSING, values[n]) for n in names])
    return np.column_stack([values[n] for n in names])


def _names(kind: str, names: list[str], fitted: TransformerMixin) -> list[Feature]:
    if isinstance(fitted, MissingIndicator):
        return [Feature(names[i], "is missing") for i in fitted.features_]
    if isinstance(fitted, OneHotEncoder):
        rare = fitted.infrequent_categories_
        out = []
        for name, known, few in zip(names, fitted.categories_, rare):
            few = set() if few is None else set(few)
            out += [Feature(name, f"is {k}") for k in known if k not in few]
            out += [Feature(name, f"is one of {len(few)} rare ones")] * bool(few)
        return out
    if kind == "date":
        return [Feature(name, part) for part in _PARTS for name in names]
    return [Feature(name, "value") for name in names]
