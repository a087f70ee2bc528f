"""Exact predictions of infinitely wide networks, class probabilities, and how to score them."""

from widelimit.predict._classes import Link as Link
from widelimit.predict._classes import class_probabilities as class_probabilities
from widelimit.predict._classes import fit_link as fit_link
from widelimit.predict._factor import PrecisionWarning as PrecisionWarning
from widelimit.predict._flow import GradientFlow as GradientFlow
from widelimit.predict._flow import gradient_flow as gradient_flow
from widelimit.predict._laplace import Laplace as Laplace
from widelimit.predict._laplace import laplace as laplace
from widelimit.predict._learn import Fit as Fit
from widelimit.predict._learn import learn as learn
from widelimit.predict._left_out import LeaveOneOut as LeaveOneOut
from widelimit.predict._metrics import CalibrationCurve as CalibrationCurve
from widelimit.predict._metrics import accuracy as accuracy
from widelimit.predict._metrics import calibration_curve as calibration_curve
from widelimit.predict._metrics import expected_calibration_error as expected_calibration_error
from widelimit.predict._metrics import negative_log_likelihood as negative_log_likelihood
from widelimit.predict._posterior import posterior as posterior
from widelimit.predict._prior import InverseGamma as InverseGamma
from widelimit.predict._process import Posterior as Posterior
from widelimit.predict._search import Bounds as Bounds
from widelimit.predict._student import StudentPosterior as StudentPosterior
