"""Rules for functions of random entries: from raw bits to any function of a uniform variable."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from scipy import special

from widelimit.priors import _laws
from widelimit.priors._laws import Law, Moments, Normal
from widelimit.priors._values import Bits, Known, Opaque, Random, Source, Value

POINTWISE: dict[str, Callable[..., Any]] = {
    "neg": np.negative,
    "sign": np.sign,
    "abs": np.abs,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "cbrt": np.cbrt,
    "square": np.square,
    "erf": special.erf,
    "erfc": special.erfc,
    "erf_inv": special.erfinv,
    "tanh": np.tanh,
    "logistic": special.expit,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "floor": np.floor,
    "ceil": np.ceil,
    "not": np.logical_not,
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "pow": np.power,
    "atan2": np.arctan2,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "clamp": lambda low, x, high: np.clip(x, low, high),
    "select_n": lambda which, *cases: np.where(which, cases[-1], cases[0]),
}

# Where integers are handled as real numbers are (division, for one, rounds).
_ON_INTEGERS = {
    "convert_element_type",
    "neg",
    "sign",
    "abs",
    "add",
    "sub",
    "mul",
    "max",
    "min",
    "clamp",
    "select_n",
}


def bits(name: str, eqn: Any, values: list[Value]) -> Value:
    bits, *rest = values
    number = rest[0].fill() if rest and isinstance(rest[0], Known) else None
    aval = eqn.outvars[0].aval
    if isinstance(bits, Known) and len(rest) == 1 and name == "or":
        (bits,), number = rest, bits.fill()
    if isinstance(bits, Bits):
        keep = (bits.source, bits.shape, bits.width)
        fresh = bits.shift == 0 and bits.ones == 0
        if name == "shift_right_logical" and number is not None and fresh:
            return Bits(*keep, int(number))
        wide = aval.dtype.kind == "u" and 8 * aval.dtype.itemsize >= bits.width
        if name == "convert_element_type" and fresh and wide:
            return bits
        if name == "or" and number is not None and bits.ones == 0:
            return Bits(*keep, bits.shift, int(number))
        if name == "bitcast_convert_type" and jax.numpy.issubdtype(aval.dtype, np.floating):
            one = np.ones((), aval.dtype)
            exponent = int(one.view(f"u{one.dtype.itemsize}"))
            mantissa = int(jax.numpy.finfo(aval.dtype).nmant)
            if bits.ones == exponent and bits.width - bits.shift == mantissa:
                return Random(bits.source, _laws.BASE.affine(1.0, 1.0), bits.shape)
    return Opaque(f"random bits go through `{name}`")


def pointwise(name: str, eqn: Any, values: list[Value]) -> Value:
    aval = eqn.outvars[0].aval
    shape = tuple(aval.shape)
    randoms = [v for v in values if isinstance(v, Random)]
    if any(v.shape != shape for v in randoms):
        return Opaque("one random number fills several entries")
    numbers: list[Any] = [None if isinstance(v, Random) else v.fill() for v in values]
    if any(n is None and not isinstance(v, Random) for n, v in zip(numbers, values)):
        return Opaque(f"entries differ by a constant factor or offset in `{name}`")
    if jax.numpy.issubdtype(aval.dtype, np.complexfloating):
        return Opaque("complex numbers are not supported")
    numbers = [n if n is None or n.dtype == bool else float(n) for n in numbers]
    source = randoms[0].source
    if any(v.source is not source for v in randoms):
        return _independent(name, values, shape)
    if len(randoms) == 1:
        law = _one(name, eqn, numbers, randoms[0].law)
        if law is not None:
            return Random(source, law, shape)
    if any(v.law.map is None for v in randoms):
        return Opaque(f"`{name}` of a distribution of which only the moments are known")
    maps = [v.law.map if isinstance(v, Random) else None for v in values]
    function = _function(name, eqn)
    if function is None or not _means_the_same(name, eqn):
        return Opaque(f"there is no rule for the primitive `{name}`")
    evaluate = lambda u: function(*(n if m is None else m(u) for m, n in zip(maps, numbers)))
    return Random(source, Law(_laws.Mapped(evaluate), evaluate), shape)


def _means_the_same(name: str, eqn: Any) -> bool:
    """Whether the function of real numbers is what the primitive computes for this dtype."""
    kind = np.dtype(eqn.outvars[0].aval.dtype).kind
    if name in ("and", "or", "not"):
        return kind == "b"
    if name == "select_n" and len(eqn.invars) != 3:
        return False
    return kind != "u" and (kind != "i" or name in _ON_INTEGERS)


def _function(name: str, eqn: Any) -> Callable[..., Any] | None:
    if name == "integer_pow":
        power = eqn.params["y"]
        return lambda x: np.asarray(x, float) ** power
    if name == "convert_element_type":
        kind = np.dtype(eqn.outvars[0].aval.dtype).kind
        if kind == "i":
            return lambda x: np.trunc(np.asarray(x, float))
        if kind == "b":
            return lambda x: np.asarray(x) != 0
        return lambda x: np.asarray(x, float)
    return POINTWISE.get(name)


def _one(name: str, eqn: Any, numbers: list[Any], law: Law) -> Law | None:
    """The law of a function that stays within a named family, or None."""
    dtype = eqn.outvars[0].aval.dtype
    floating = jax.numpy.issubdtype(dtype, np.floating)
    if not floating:
        return None
    left = numbers[0] if numbers else None
    number: Any = next((n for n in numbers if n is not None), None)
    if name == "convert_element_type":
        source = eqn.invars[0].aval.dtype
        return law if jax.numpy.issubdtype(source, np.floating) else None
    if name == "neg":
        return law.affine(-1.0, 0.0)
    if name == "erf_inv":
        return _laws.erf_inv(law, float(jax.numpy.finfo(dtype).eps))
    if name in ("add", "add_any"):
        return law.affine(1.0, number)
    if name == "sub":
        return law.affine(1.0, -number) if left is None else law.affine(-1.0, number)
    if name == "mul":
        return law.affine(number, 0.0)
    if name == "div" and left is None and number:
        return law.affine(1 / number, 0.0)
    if name == "integer_pow" and eqn.params["y"] == 1:
        return law
    if name in ("max", "min"):
        idle = _laws.clamp_is_idle(law, number, from_below=name == "max")
        return law if idle else None
    if name == "clamp" and numbers[1] is None:
        low = _laws.clamp_is_idle(law, numbers[0], from_below=True)
        return law if low and _laws.clamp_is_idle(law, numbers[2], from_below=False) else None
    return None


def _independent(name: str, values: list[Any], shape: tuple[int, ...]) -> Value:
    """Sums, differences and products of two arrays made from different random numbers."""
    if name not in ("add", "add_any", "sub", "mul") or not all(
        isinstance(v, Random) for v in values
    ):
        return Opaque(f"different random arrays meet in `{name}`")
    a, b = values
    keys = [{key for key, _ in v.source.draws} for v in values]
    if keys[0] & keys[1] or not (a.source.whole and b.source.whole):
        return Opaque(f"arrays made from the same random key meet in `{name}`")
    source = Source(a.source.draws | b.source.draws, None)
    (m, s), (n, t) = a.law.family.moments(), b.law.family.moments()
    if name == "mul":
        variance = (m * m + s * s) * (n * n + t * t) - (m * n) ** 2
        return Random(source, Law(Moments(m * n, math.sqrt(variance), "product"), None), shape)
    mean, std = (m - n if name == "sub" else m + n), math.hypot(s, t)
    gaussian = isinstance(a.law.family, Normal) and isinstance(b.law.family, Normal)
    family = Normal(mean, std) if gaussian else Moments(mean, std, "sum")
    return Random(source, Law(family, None), shape)
