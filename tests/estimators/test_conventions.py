"""scikit-learn's own checks."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from widelimit.estimators import WideClassifier, WideRegressor


@parametrize_with_checks([
    WideRegressor("erf x 1", learn=None), WideClassifier("erf x 1", learn=None)
])
def test_conventions(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([WideRegressor(), WideClassifier()])
def test_conventions_of_the_defaults(estimator, check):
    check(estimator)
