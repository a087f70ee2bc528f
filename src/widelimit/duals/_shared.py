"""One activation for one function: equal programs share their analysis and compiled moments."""

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp

from widelimit.precision import double_precision
from widelimit.programs import fingerprint

from ._activation import Activation
from ._probe import elementwise_derivative

_MOST = 512
_table: OrderedDict[tuple, Activation] = OrderedDict()


def shared(fn, *, n_params=0):
    """The activation of ``fn``: the same object for the same program.

    Two functions are the same when they, and their first two autodiff derivatives, trace to equal
    programs with equal constants. So the silu of every layer, and of every network, is analysed
    and compiled once.
    """
    try:
        # Traces belong to a thread, so a thread of its own sees none of the caller's.
        with ThreadPoolExecutor(1) as apart:
            key = apart.submit(_key, fn, n_params).result()
    except Exception:
        # A function that cannot be traced on scalars is still an activation, of its own.
        return Activation(fn, n_params=n_params)
    if key not in _table:
        _table[key] = Activation(fn, n_params=n_params)
        if len(_table) > _MOST:
            _table.popitem(last=False)
    _table.move_to_end(key)
    return _table[key]


def _key(fn, n_params):
    with double_precision():
        scalars = [jax.ShapeDtypeStruct((), jnp.float64)] * (1 + n_params)
        programs = []
        for _ in range(3):
            programs.append(fingerprint(jax.make_jaxpr(fn)(*scalars)))
            fn = elementwise_derivative(fn)
    return n_params, *programs
