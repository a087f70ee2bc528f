"""scikit-learn estimators: infinitely wide networks for tables."""

from widelimit.estimators._classifier import WideClassifier as WideClassifier
from widelimit.estimators._kernels import NetworkKernel as NetworkKernel
from widelimit.estimators._regressor import WideRegressor as WideRegressor
