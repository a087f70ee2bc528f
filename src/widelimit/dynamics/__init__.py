"""What training will do: squared losses in closed form, any loss, stable rates, and a tracker."""

from widelimit.dynamics._largest import Largest as Largest
from widelimit.dynamics._largest import StableRate as StableRate
from widelimit.dynamics._largest import largest_eigenvalue as largest_eigenvalue
from widelimit.dynamics._largest import largest_learning_rate as largest_learning_rate
from widelimit.dynamics._limit import of_kernel as of_kernel
from widelimit.dynamics._loss import squared as squared
from widelimit.dynamics._network import Linearized as Linearized
from widelimit.dynamics._network import linearized as linearized
from widelimit.dynamics._stopping import BestTime as BestTime
from widelimit.dynamics._track import Tracker as Tracker
from widelimit.dynamics._track import track as track
from widelimit.dynamics._training import Training as Training
