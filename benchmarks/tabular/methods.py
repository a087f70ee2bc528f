"""The methods compared: one preprocessing, one number of settings tried for each.

Every method that has settings tries the same number of them by inner cross-validation; those that
learn theirs by evidence (the Gaussian processes and ours, from at most 500 rows) try none. Methods
without probabilities or error bars of their own get them in the usual way: Platt scaling for the
support vector machine, the residuals of inner cross-validation for the regressors.
"""

import numpy as np
from scipy.stats import loguniform, randint
from sklearn.base import BaseEstimator, clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import RandomizedSearchCV, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, SVR

from widelimit.estimators import WideClassifier, WideRegressor

TRIED = 10
"""Settings tried by inner cross-validation."""

MOST_LEARNED = 500
"""Rows that the hyper-parameters of scikit-learn's Gaussian processes are learned from."""


def preprocess():
    """Numbers: median where missing, standardised. Categories: one column each."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    names = make_pipeline(
        SimpleImputer(strategy="most_frequent"),
        OneHotEncoder(handle_unknown="ignore", min_frequency=5, sparse_output=False),
    )
    select = make_column_selector
    return make_column_transformer(
        (numbers, select(dtype_include="number")), (names, select(dtype_exclude="number"))
    )


def tuned(model, settings, task, seed):
    """The model with the best of some random settings."""
    score = "neg_log_loss" if task == "classification" else "neg_root_mean_squared_error"
    return RandomizedSearchCV(
        model, settings, n_iter=TRIED, scoring=score, cv=3, random_state=seed, n_jobs=1
    )


class WithSpread:
    """A regressor whose error bar is the root mean square of its inner validation errors."""

    def __init__(self, model):
        self.model = model

    def fit(self, x, y):
        self.model.fit(x, y)
        inner = getattr(self.model, "best_estimator_", self.model)
        self.spread = np.sqrt(np.mean((cross_val_predict(inner, x, y, cv=3) - y) ** 2))
        return self

    def predict(self, x, return_std=False):
        mean = self.model.predict(x)
        return (mean, np.full(len(mean), self.spread)) if return_std else mean


class Forest(BaseEstimator):
    """A random forest whose settings are searched with a third of its trees."""

    def __init__(self, model, settings, task, seed):
        self.model, self.settings, self.task, self.seed = model, settings, task, seed

    def fit(self, x, y):
        few = clone(self.model).set_params(n_estimators=self.model.n_estimators // 3)
        found = tuned(few, self.settings, self.task, self.seed).fit(x, y).best_params_
        self.best_estimator_ = clone(self.model).set_params(**found).fit(x, y)
        self.classes_ = getattr(self.best_estimator_, "classes_", None)
        return self

    def predict(self, x):
        return self.best_estimator_.predict(x)

    def predict_proba(self, x):
        return self.best_estimator_.predict_proba(x)


class Subset(BaseEstimator):
    """scikit-learn's Gaussian processes: hyper-parameters from part of the rows, then all rows."""

    def __init__(self, model):
        self.model = model

    def fit(self, x, y):
        order = np.random.default_rng(0).permutation(len(x))
        # A class that is rarer than all of these rows has one of its own.
        first = [np.flatnonzero(y[order] == c)[0] for c in np.unique(y)] if is_class(y) else []
        rows = order[np.unique([*first, *range(min(MOST_LEARNED, len(x)))])]
        part = clone(self.model).fit(x[rows], y[rows])
        self.fitted_ = clone(self.model).set_params(kernel=part.kernel_, optimizer=None).fit(x, y)
        self.classes_ = getattr(self.fitted_, "classes_", None)
        return self

    def predict(self, x, return_std=False):
        return self.fitted_.predict(x, **({"return_std": True} if return_std else {}))

    def predict_proba(self, x):
        return self.fitted_.predict_proba(x)


def is_class(y):
    """Whether targets are classes: text, or the 0 and 1 of one class against the rest."""
    return y.dtype.kind in "USOib"


def processes(width):
    """Name -> kernel of scikit-learn's Gaussian processes, for so many columns."""
    length = np.sqrt(width)
    return {"GP, RBF": RBF(length), "GP, Matérn 3/2": Matern(length, nu=1.5)}


def regressors(seed, width):
    """Name -> unfitted model with ``predict(x, return_std=True)``."""
    task = "regression"
    forest = {"max_features": [0.3, 0.5, 0.7, 1.0], "min_samples_leaf": randint(1, 11)}
    boost = {
        "learning_rate": loguniform(0.02, 0.3), "max_leaf_nodes": randint(4, 32),
        "min_samples_leaf": randint(5, 40), "l2_regularization": loguniform(1e-3, 10),
    }
    support = {
        "svr__C": loguniform(0.1, 100), "svr__gamma": loguniform(1e-3, 1),
        "svr__epsilon": loguniform(0.01, 0.5),
    }
    scaled = make_pipeline(StandardScaler(), SVR())
    return {
        "mean": WithSpread(DummyRegressor()),
        "ridge": WithSpread(tuned(Ridge(), {"alpha": loguniform(1e-3, 1e3)}, task, seed)),
        "random forest": WithSpread(
            Forest(RandomForestRegressor(300, random_state=seed), forest, task, seed)
        ),
        "boosting": WithSpread(
            tuned(HistGradientBoostingRegressor(random_state=seed), boost, task, seed)
        ),
        "SVM": WithSpread(tuned(scaled, support, task, seed)),
        **{
            name: Subset(GaussianProcessRegressor(
                ConstantKernel(1.0) * base + WhiteKernel(0.1, (1e-5, 10)),
                normalize_y=True, n_restarts_optimizer=1, random_state=seed,
            ))
            for name, base in processes(width).items()
        },
        "wide NNGP": WideRegressor(random_state=seed),
        "wide NTK": WideRegressor(kind="ntk", random_state=seed),
    }


def classifiers(seed, width):
    """Name -> unfitted model with ``predict_proba``."""
    task = "classification"
    forest = {"max_features": ["sqrt", 0.3, 0.5, 0.7], "min_samples_leaf": randint(1, 11)}
    boost = {
        "learning_rate": loguniform(0.02, 0.3), "max_leaf_nodes": randint(4, 32),
        "min_samples_leaf": randint(5, 40), "l2_regularization": loguniform(1e-3, 10),
    }
    support = {"C": loguniform(0.1, 100), "gamma": loguniform(1e-3, 1)}
    return {
        "majority": DummyClassifier(),
        "logistic": tuned(
            LogisticRegression(max_iter=3000), {"C": loguniform(1e-3, 1e3)}, task, seed
        ),
        "random forest": Forest(
            RandomForestClassifier(300, random_state=seed), forest, task, seed
        ),
        "boosting": tuned(
            HistGradientBoostingClassifier(random_state=seed), boost, task, seed
        ),
        "SVM": tuned(SVC(probability=True, random_state=seed), support, task, seed),
        **{
            # Each class against the rest, with hyper-parameters of its own.
            name: OneVsRestClassifier(Subset(GaussianProcessClassifier(ConstantKernel(1.0) * base)))
            for name, base in processes(width).items()
        },
        "wide NNGP": WideClassifier(random_state=seed),
        "wide NTK": WideClassifier(kind="ntk", random_state=seed),
    }
