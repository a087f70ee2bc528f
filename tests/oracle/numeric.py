"""Run a JAX program with NumPy: nothing is compiled, and XLA's arithmetic is not trusted.

Sampling many small networks spends its time on compilation. Here a program is traced once and its
equations are carried out one by one on NumPy arrays. Rare primitives without an entry below go to
JAX.
"""

import math

import jax
import numpy as np
from jax.extend.core import Literal
from scipy import special

from oracle import windows


def run(closed, *arguments):
    """The outputs of a closed jaxpr on NumPy arrays."""
    with np.errstate(all="ignore"):
        return _jaxpr(closed.jaxpr, closed.consts, arguments)


def _jaxpr(jaxpr, consts, arguments):
    env = dict(zip(jaxpr.constvars, map(np.asarray, consts)))
    env.update(zip(jaxpr.invars, arguments))
    read = lambda v: np.asarray(v.val) if isinstance(v, Literal) else env[v]
    last = {v: i for i, e in enumerate(jaxpr.eqns) for v in e.invars if not isinstance(v, Literal)}
    kept = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    for i, eqn in enumerate(jaxpr.eqns):
        out = _equation(eqn, [read(v) for v in eqn.invars])
        env.update(zip(eqn.outvars, out))
        for v in {v for v in eqn.invars if not isinstance(v, Literal)}:
            if last[v] == i and v not in kept:
                env.pop(v, None)
    return [read(v) for v in jaxpr.outvars]


def _equation(eqn, args):
    name, params = eqn.primitive.name, eqn.params
    if name in CONTROL:
        return CONTROL[name](eqn, args)
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in params:
            inner = params[key]
            if hasattr(inner, "jaxpr"):
                return _jaxpr(inner.jaxpr, inner.consts, args)
            return _jaxpr(inner, (), args)
    if name in SIMPLE:
        out = SIMPLE[name](*args)
    elif name in WITH_PARAMS:
        out = WITH_PARAMS[name](params, *args)
    else:
        out = eqn.primitive.bind(*map(jax.numpy.asarray, args), **params)
    several = eqn.primitive.multiple_results
    out = list(out) if several else [out]
    return [
        np.asarray(o) if jax.dtypes.issubdtype(v.aval.dtype, jax.dtypes.extended)
        else np.asarray(o).astype(v.aval.dtype, copy=False)
        for o, v in zip(out, eqn.outvars)
    ]


# --------------------------------------------------------------------------- elementwise


def _select(which, *cases):
    if which.dtype == bool:
        return np.where(which, cases[1], cases[0])
    return np.choose(which, cases)


SIMPLE = {
    "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply,
    "neg": np.negative, "max": np.maximum, "min": np.minimum, "sign": np.sign,
    "floor": np.floor, "ceil": np.ceil, "exp": np.exp, "exp2": np.exp2, "log": np.log,
    "log1p": np.log1p, "expm1": np.expm1, "tanh": np.tanh, "sin": np.sin, "cos": np.cos,
    "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh,
    "cosh": np.cosh, "asinh": np.arcsinh, "atan2": np.arctan2, "sqrt": np.sqrt, "cbrt": np.cbrt,
    "rsqrt": lambda x: 1 / np.sqrt(x), "logistic": special.expit, "erf": special.erf,
    "erfc": special.erfc, "square": np.square, "abs": np.abs, "pow": np.power,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "and": lambda a, b: a & b, "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b, "not": lambda a: ~a, "is_finite": np.isfinite,
    "select_n": _select, "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "div": lambda a, b: a / b if np.issubdtype(a.dtype, np.inexact) else a // b,
    "copy": lambda x: x, "copy_p": lambda x: x, "real": np.real, "imag": np.imag,
    "stop_gradient": lambda x: x,
}

# --------------------------------------------------------------------------- arrays


def _dot(params, a, b):
    (ca, cb), (ba, bb) = params["dimension_numbers"]
    fa = [k for k in range(a.ndim) if k not in (*ca, *ba)]
    fb = [k for k in range(b.ndim) if k not in (*cb, *bb)]
    batch = [a.shape[k] for k in ba]
    shape = (*batch, *(a.shape[k] for k in fa), *(b.shape[k] for k in fb))
    inner = math.prod(a.shape[k] for k in ca)
    lead = math.prod(batch)
    left = a.transpose(*ba, *fa, *ca).reshape(lead, math.prod(a.shape[k] for k in fa), inner)
    right = b.transpose(*bb, *cb, *fb).reshape(lead, inner, math.prod(b.shape[k] for k in fb))
    return (left @ right).reshape(shape)


def _broadcast(params, x, *_):
    shape, dims = params["shape"], params["broadcast_dimensions"]
    wide = [1] * len(shape)
    for k, d in enumerate(dims):
        wide[d] = x.shape[k]
    return np.broadcast_to(x.reshape(wide), shape)


def _slice(params, x):
    steps = params["strides"] or (1,) * x.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], steps)
    return x[tuple(slice(*b) for b in bounds)]


def _dynamic_slice(params, x, *starts):
    sizes = params["slice_sizes"]
    starts = [int(np.clip(s, 0, n - k)) for s, n, k in zip(starts, x.shape, sizes)]
    return x[tuple(slice(s, s + k) for s, k in zip(starts, sizes))]


def _dynamic_update_slice(params, x, new, *starts):
    out = np.array(x)
    starts = [int(np.clip(s, 0, n - k)) for s, n, k in zip(starts, x.shape, new.shape)]
    out[tuple(slice(s, s + k) for s, k in zip(starts, new.shape))] = new
    return out


def _round(params, x):
    if int(params["rounding_method"]) == 1:
        return np.round(x)
    return np.sign(x) * np.floor(np.abs(x) + 0.5)


def _split(params, x):
    return np.split(x, np.cumsum(params["sizes"])[:-1], params["axis"])


def _iota(params):
    shape, k = params["shape"], params["dimension"]
    wide = [1] * len(shape)
    wide[k] = shape[k]
    return np.broadcast_to(np.arange(shape[k]).reshape(wide), shape)


WITH_PARAMS = {
    "pad": windows.pad,
    "conv_general_dilated": windows.convolve,
    "reduce_window_sum": windows.window_sum,
    "cumsum": windows.cumsum,
    "dot_general": _dot,
    "broadcast_in_dim": _broadcast,
    "reshape": lambda p, x: (
        x if p["dimensions"] is None else x.transpose(p["dimensions"])
    ).reshape(p["new_sizes"]),
    "transpose": lambda p, x: x.transpose(p["permutation"]),
    "squeeze": lambda p, x: np.squeeze(x, p["dimensions"]),
    "expand_dims": lambda p, x: np.expand_dims(x, p["dimensions"]),
    "rev": lambda p, x: np.flip(x, p["dimensions"]),
    "concatenate": lambda p, *x: np.concatenate(x, p["dimension"]),
    "stack": lambda p, *x: np.stack(x, p["axis"]),
    "split": _split,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "integer_pow": lambda p, x: np.power(x, p["y"]) if p["y"] >= 0 else 1 / np.power(x, -p["y"]),
    "round": _round,
    "iota": _iota,
    "convert_element_type": lambda p, x: x.astype(p["new_dtype"]),
    "reduce_sum": lambda p, x: x.sum(tuple(p["axes"])),
    "reduce_max": lambda p, x: x.max(tuple(p["axes"])),
    "reduce_min": lambda p, x: x.min(tuple(p["axes"])),
    "reduce_prod": lambda p, x: x.prod(tuple(p["axes"])),
    "reduce_and": lambda p, x: x.all(tuple(p["axes"])),
    "reduce_or": lambda p, x: x.any(tuple(p["axes"])),
}
SIMPLE["broadcast"] = np.broadcast_to

# --------------------------------------------------------------------------- control flow


def _scan(eqn, args):
    params, body = eqn.params, eqn.params["jaxpr"]
    # Stacked values have one axis more outside the loop than in it.
    rank = lambda v: len(v.aval.shape)
    n_stacked = sum(rank(v) > rank(w) for v, w in zip(eqn.invars, body.jaxpr.invars))
    n_carry = sum(rank(v) == rank(w) for v, w in zip(eqn.outvars, body.jaxpr.outvars))
    n_consts = len(args) - n_stacked - n_carry
    consts, carry = args[:n_consts], args[n_consts : n_consts + n_carry]
    xs = args[n_consts + n_carry :]
    order = range(params["length"])
    ys = []
    for i in reversed(order) if params["reverse"] else order:
        out = _jaxpr(body.jaxpr, body.consts, [*consts, *carry, *(x[i] for x in xs)])
        carry = out[:n_carry]
        ys.append(out[n_carry:])
    ys = ys[::-1] if params["reverse"] else ys
    return [*carry, *(np.stack(y) for y in zip(*ys))]


def _while(eqn, args):
    params = eqn.params
    n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
    cond, body = params["cond_jaxpr"], params["body_jaxpr"]
    of_cond, of_body = args[:n_cond], args[n_cond : n_cond + n_body]
    carry = args[n_cond + n_body :]
    while _jaxpr(cond.jaxpr, cond.consts, [*of_cond, *carry])[0]:
        carry = _jaxpr(body.jaxpr, body.consts, [*of_body, *carry])
    return carry


def _cond(eqn, args):
    params = eqn.params
    which = int(np.clip(args[0], 0, len(params["branches"]) - 1))
    branch = params["branches"][which]
    return _jaxpr(branch.jaxpr, branch.consts, args[1:])


CONTROL = {"scan": _scan, "while": _while, "cond": _cond}
