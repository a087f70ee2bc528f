"""The house as drawn: imports go down, never up, and never into private JAX."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import widelimit

ROOT = Path(widelimit.__file__).parent

FLOORS = [
    {"errors", "precision", "batches", "programs"},
    {"graph", "duals", "tiles"},
    {"trace", "priors", "limit"},
    {"models"},
    {"kernel", "nn", "tangent"},
    {"dynamics"},
    {"finite", "predict"},
    {"estimators"},
    {"cli"},
]
MAY_IMPORT = {
    "errors": set(),
    "precision": set(),
    "batches": set(),
    "programs": set(),
    "duals": {"errors", "precision", "programs"},
    "tiles": {"errors"},
    "graph": {"errors"},
    "trace": {"graph", "programs", "errors"},
    "limit": {"graph", "duals", "errors"},
    "priors": {"errors", "precision"},
    "models": {"priors", "errors"},
    "nn": {"priors", "models", "errors"},
    "kernel": {
        "batches", "trace", "graph", "limit", "models", "priors", "tiles", "precision", "errors",
    },
    "tangent": {"batches", "models", "tiles", "errors"},
    "finite": {
        "batches", "tangent", "tiles", "kernel", "models", "priors", "trace", "graph", "errors",
    },
    "dynamics": {"batches", "tangent", "models", "errors"},
    "predict": {"dynamics", "kernel", "priors", "models", "graph", "tiles", "errors"},
    "estimators": {"predict", "kernel", "models", "nn", "priors", "precision", "errors"},
    "cli": {
        "estimators", "predict", "finite", "kernel", "models", "priors", "nn", "precision",
        "errors", "graph", "trace",
    },
}


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[int, str]]:
    out = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            out += [(node.lineno, a.name) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = ["widelimit", *path.relative_to(ROOT).parts[:-1]]
                base = ".".join([*package[: len(package) - node.level + 1], base]).strip(".")
            out += [(node.lineno, f"{base}.{a.name}" if base == "widelimit" else base)
                    for a in node.names]
    return out


FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    here = room(path)
    assert here in MAY_IMPORT, f"{here} has no floor: draw it in MAY_IMPORT first"
    for line, name in imports(path):
        if name == "widelimit" or not name.startswith("widelimit."):
            continue
        there = name.split(".")[1]
        assert there == here or there in MAY_IMPORT[here] or there in {"__version__"}, (
            f"{path}:{line}: {here} must not import {there}"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_public_jax(path):
    for line, name in imports(path):
        assert not name.startswith(("jax._src", "jaxlib")), f"{path}:{line}: {name} is private"
    if room(path) not in ("trace", "priors", "tangent"):
        for line, name in imports(path):
            assert not name.startswith("jax.extend"), f"{path}:{line}: no jaxprs in this room"


def test_no_room_is_above_itself():
    order = {name: i for i, floor in enumerate(FLOORS) for name in floor}
    for name, below in MAY_IMPORT.items():
        for other in below:
            assert order[other] <= order[name]


SLOW_TO_IMPORT = "scipy.stats", "scipy.optimize", "optax", "sklearn", "pandas", "matplotlib"


def test_import_is_light():
    """What takes long to import, and much memory, waits for what needs it."""
    program = "import sys, widelimit; print(*sorted(sys.modules))"
    run = [sys.executable, "-W", "ignore", "-c", program]
    loaded = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    assert "widelimit" in loaded
    assert not set(SLOW_TO_IMPORT) & set(loaded)
