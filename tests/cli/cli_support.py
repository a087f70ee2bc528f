"""The command line as a function, tables as text, estimators that cost nothing to fit."""

import json
from types import SimpleNamespace

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from typer.testing import CliRunner

from widelimit.cli.app import app


def invoke(*arguments):
    found = CliRunner().invoke(app, [str(a) for a in arguments])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    data = json.loads(found.stdout) if "--json" in arguments and found.stdout else None
    return SimpleNamespace(code=found.exit_code, out=found.stdout, err=found.stderr, json=data)


def sentence(found, code=2):
    """The one sentence that a refusal consists of."""
    assert found.code == code, (found.out, found.err)
    assert "Traceback" not in found.err
    lines = [line for line in found.err.splitlines() if line.startswith("widelimit: ")]
    assert len(lines) == 1, found.err
    text = lines[0].removeprefix("widelimit: ")
    assert text.endswith(".")
    return text


def lines(rows, separator=";"):
    """Rows as CSV text; no value needs quoting."""
    head = separator.join(rows[0])
    return "\n".join([head, *(separator.join(row.values()) for row in rows)]) + "\n"


class Cheap(BaseEstimator):
    def __init__(self, network="relu x 3", kind="nngp", learn="evidence", noise=None, scales=None,
                 input_scales=None, relevance=False, random_state=0):  # fmt: skip
        self.network = network
        self.kind = kind
        self.learn = learn
        self.noise = noise
        self.scales = scales
        self.input_scales = input_scales
        self.relevance = relevance
        self.random_state = random_state

    def _learn(self, x, y):
        assert np.all(np.isfinite(x))
        assert np.all(np.isfinite(y))
        # Not a round number, so that it has to survive being written down.
        self.noise_ = float(0.1 + 0.01 * np.sin(len(y))) if self.noise is None else self.noise
        self.scales_ = {"layers[0].weight": 4.0 + 1 / 3} if self.scales is None else self.scales
        given = np.ones(x.shape[1]) if self.input_scales is None else self.input_scales
        self.input_scales_ = np.asarray(given, float)
        assert self.input_scales_.shape == (x.shape[1],)
        self.log_marginal_likelihood_ = -1.0
        self._center, self._size = y.mean(0), np.where(y.std(0) > 0, y.std(0), 1)
        kernel = RBF(self.scales_["layers[0].weight"])
        self._gp = GaussianProcessRegressor(kernel, alpha=self.noise_, optimizer=None)
        self._gp.fit(x * self.input_scales_, (y - self._center) / self._size)

    def frozen(self):
        return clone(self).set_params(
            learn=None, noise=self.noise_, scales=dict(self.scales_),
            input_scales=[float(s) for s in self.input_scales_], relevance=False,
        )  # fmt: skip


class CheapRegressor(Cheap):
    def fit(self, x, y):
        self._learn(x, y)
        return self

    def predict(self, x, return_std=False):
        mean, std = self._gp.predict(x * self.input_scales_, return_std=True)
        mean, std = mean * self._size + self._center, np.sqrt(std**2 + self.noise_) * self._size
        return (mean, std) if return_std else mean


class CheapClassifier(Cheap):
    def fit(self, x, y):
        self.classes_ = np.unique(y)
        self._learn(x, (y[:, None] == self.classes_).astype(float))
        return self

    def predict_proba(self, x):
        mean = self._gp.predict(x * self.input_scales_).reshape(len(x), -1)
        scores = np.exp(3 * (mean * self._size + self._center))
        return scores / scores.sum(1, keepdims=True)
