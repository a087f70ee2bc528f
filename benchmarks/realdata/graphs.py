"""Inhibitors of the benzodiazepine receptor: graph kernels beside counts of substructures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import widelimit as wl
from kernels import predictions

FILE = Path("usr/share/RDKit/Projects/DbCLI/testData/bzr.sdf")
ELEMENTS = ("C", "N", "O", "S", "F", "Cl", "Br", "I", "H")
FOLDS, DEPTH, WIDTH = 10, 4, 256
FEATURES = len(ELEMENTS) + 5


def molecules(folder: Path | None) -> tuple[list[tuple[list[str], list[tuple[int, int]]]], Any]:
    """The elements and bonds of each molecule, and the activities."""
    records = ((folder or Path("/")) / FILE).read_text("latin1").split("$$$$\n")
    graphs, activities = [], []
    for record in records:
        lines = record.splitlines()
        at = [i for i, line in enumerate(lines) if "<ACTIVITY>" in line]
        if not at:
            continue
        atoms, bonds = int(lines[3][:3]), int(lines[3][3:6])
        elements = [line.split()[3] for line in lines[4 : 4 + atoms]]
        pairs = [
            (int(line[:3]) - 1, int(line[3:6]) - 1)
            for line in lines[4 + atoms : 4 + atoms + bonds]
        ]
        graphs.append((elements, pairs))
        activities.append(float(lines[at[0] + 1]))
    return graphs, np.array(activities)


def batch(graphs: list) -> dict[str, np.ndarray]:
    """All molecules filled up to the size of the largest: atoms, bonds, which atoms there are."""
    size = max(len(elements) for elements, _ in graphs)
    nodes = np.zeros((len(graphs), size, FEATURES), np.float32)
    adjacency = np.zeros((len(graphs), size, size), np.float32)
    there = np.zeros((len(graphs), size), np.float32)
    for g, (elements, pairs) in enumerate(graphs):
        for a, b in pairs:
            adjacency[g, a, b] = adjacency[g, b, a] = 1
        for i, element in enumerate(elements):
            nodes[g, i, ELEMENTS.index(element)] = 1
            nodes[g, i, len(ELEMENTS) + min(int(adjacency[g, i].sum()), 4)] = 1
            there[g, i] = 1
    return {"nodes": nodes, "adjacency": adjacency, "there": there}


def network(p: list, x: dict) -> Any:
    """A graph convolutional network with residual connections, and the mean over the atoms."""
    h = x["nodes"] @ p[0] / np.sqrt(FEATURES)
    for k, w in enumerate(p[1:-1]):
        spread = h + x["adjacency"] @ h
        update = jax.nn.relu(spread @ w * np.sqrt(2 / WIDTH))
        h = update if k == 0 else h + update
    pooled = (h * x["there"][:, None]).sum(0) / x["there"].sum()
    return (pooled @ p[-1])[0] / np.sqrt(WIDTH)


def shapes() -> list:
    sizes = [(FEATURES, WIDTH), *[(WIDTH, WIDTH)] * DEPTH, (WIDTH, 1)]
    return [jax.ShapeDtypeStruct(s, jnp.float32) for s in sizes]


def patterns(elements: list[str], pairs: list[tuple[int, int]], depth: int = 3) -> Counter:
    """Counts of the neighbourhoods of each atom, up to some bonds away (Weisfeiler-Lehman)."""
    around: dict[int, list[int]] = {i: [] for i in range(len(elements))}
    for a, b in pairs:
        around[a].append(b)
        around[b].append(a)
    names = dict(enumerate(elements))
    counts: Counter = Counter(names.values())
    for _ in range(depth):
        names = {i: f"{names[i]}({','.join(sorted(names[j] for j in around[i]))})" for i in names}
        counts.update(names.values())
    return counts


def rows(folder: Path | None, seeds: int, done: Any) -> Iterator[dict[str, Any]]:
    """Root mean square errors of ten-fold cross-validation, each time split anew."""
    graphs, activity = molecules(folder)
    x = batch(graphs)
    begun = time.perf_counter()
    kernels = wl.kernel(network, shapes()).both(x)
    seconds = time.perf_counter() - begun
    counted = [patterns(*graph) for graph in graphs]
    ridge = lambda: make_pipeline(
        DictVectorizer(sparse=False), StandardScaler(), RidgeCV(np.logspace(-1, 5, 25)))
    forest = lambda seed: make_pipeline(
        DictVectorizer(sparse=False),
        RandomForestRegressor(300, min_samples_leaf=2, max_features=0.3, random_state=seed))
    for seed in range(seeds):
        base = {"task": "receptor inhibitors", "n": len(graphs) * (FOLDS - 1) // FOLDS,
                "tested": len(graphs), "seed": seed}
        errors: dict[str, list[float]] = {}
        for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(activity):
            y, mean = activity[train], activity[train].mean()
            of = lambda rows: [counted[i] for i in rows]
            answers = {"mean": np.full(len(test), mean)}
            for kind in ("nngp", "ntk"):
                k = np.asarray(getattr(kernels, kind)).reshape(len(graphs), len(graphs))
                centred = (y - mean)[:, None]
                found = predictions(k[np.ix_(train, train)], k[np.ix_(test, train)], centred)
                answers[f"graph kernel, {kind.upper()}"] = found[:, 0] + mean
            answers["ridge of neighbourhood counts"] = ridge().fit(of(train), y).predict(of(test))
            answers["random forest of neighbourhood counts"] = (
                forest(seed).fit(of(train), y).predict(of(test)))
            for name, answer in answers.items():
                errors.setdefault(name, []).extend((answer - activity[test]) ** 2)
        for name, squares in errors.items():
            if not done(base, name):
                took = seconds if name.startswith("graph") else 0.0
                yield {**base, "method": name, "score": float(np.sqrt(np.mean(squares))),
                       "seconds": took}
