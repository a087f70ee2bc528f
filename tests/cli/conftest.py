"""Fixtures of the command line's tests."""

from types import SimpleNamespace

import numpy as np
import pytest
from cli_support import CheapClassifier, CheapRegressor, invoke


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """The command line in an empty folder; results have ``code``, ``out``, ``err``, ``json``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WIDELIMIT_TRACEBACK", raising=False)
    return invoke


@pytest.fixture
def cheap(monkeypatch):
    """The estimators replaced by ones with an RBF kernel and the same interface."""
    import widelimit.cli.fit.baselines as baselines
    import widelimit.cli.fit.page as page
    import widelimit.cli.tabular.model as model

    monkeypatch.setattr(model, "WideRegressor", CheapRegressor)
    monkeypatch.setattr(model, "WideClassifier", CheapClassifier)
    monkeypatch.setattr(model, "network_kernel", lambda *_: None)
    monkeypatch.setattr(baselines, "_TREES", 10)
    start = {"layers[0].weight": SimpleNamespace(std=1.0)}
    monkeypatch.setattr(page, "network_kernel", lambda *_: SimpleNamespace(priors=start))


@pytest.fixture(scope="session")
def shop():
    """Semicolons, numbers, text, booleans, dates, missing values, useless columns: as rows."""
    random, rows = np.random.default_rng(0), []
    for i in range(90):
        city = random.choice(["Köln", "Bern", "Wien"], p=[0.5, 0.3, 0.2])
        size, member = random.normal(50, 12), random.random() < 0.5
        day, month = random.integers(1, 29), random.integers(1, 13)
        year = random.integers(2019, 2023)
        price = 0.2 * size + 3 * (city == "Köln") + 2 * member + random.normal(0, 0.5)
        row = {
            "id": f"K{i:04d}",
            "size": f"{size:.2f}",
            "city": str(city),
            "member": "yes" if member else "no",
            "since": f"{day:02d}.{month:02d}.{year}",
            "constant": "1",
            "empty": "",
            "price": f"{price:.3f}",
        }
        for name in ("size", "city", "member", "since", "price"):
            if random.random() < 0.06:
                row[name] = ""
        rows.append(row)
    return rows
