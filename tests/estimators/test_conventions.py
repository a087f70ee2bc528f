"""scikit-learn's own checks."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from widelimit.estimators import WideClassifier, WideRegressor


@parametrize_with_checks([WideRegressor(learn=None), WideClassifier(learn=None)])
def test_conventions(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([WideRegressor(), WideClassifier()])
def test_conventions_with_learning(estimator, check):
    check(estimator)
