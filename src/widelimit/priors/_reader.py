"""An abstract interpreter that reads the distribution of every array a constructor makes.

Random arrays are followed from the bits of the generator to the output as functions of one
uniform variable per entry, so that their moments are exact. A value that is not understood is
carried along with the reason, and matters only if a parameter is made from it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex
from scipy import special

from widelimit.priors import _laws
from widelimit.priors._laws import Law, Moments, Normal, Uniform
from widelimit.priors._values import Bits, Keys, Known, Opaque, Random, Source, Value, Words

_CALLS = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
    "remat",
    "remat2",
    "checkpoint",
}
_MOVES = {
    "reshape",
    "transpose",
    "squeeze",
    "expand_dims",
    "rev",
    "slice",
    "split",
    "unstack",
    "dynamic_slice",
    "broadcast_in_dim",
    "gather",
    "concatenate",
}
_PERMUTATIONS = {"reshape", "transpose", "squeeze", "expand_dims", "rev"}
_SAME = {
    "copy",
    "copy_p",
    "stop_gradient",
    "optimization_barrier",
    "sharding_constraint",
    "reduce_precision",
    "pvary",
    "reshard",
    "mesh_cast",
}

_POINTWISE: dict[str, Callable[..., Any]] = {
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


class Reader:
    """Interprets one constructor; remembers which random numbers have been drawn."""

    def __init__(self):
        self._keys: dict[Any, int] = {}
        self._draws = itertools.count()
        self._numbers = 0
        self._factorisations = itertools.count()

    def read(self, closed: Any, args: Sequence[Value]) -> list[Value]:
        """The abstract values of the outputs of a closed jaxpr."""
        consts = [_constant(c) for c in closed.consts]
        return self._jaxpr(closed.jaxpr, consts, args)

    def _jaxpr(self, jaxpr: Any, consts: Sequence[Value], args: Sequence[Value]) -> list[Value]:
        env: dict[Any, Value] = {}
        env.update(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))
        look = lambda v: _constant(v.val) if isinstance(v, jex.Literal) else env[v]
        for eqn in jaxpr.eqns:
            env.update(zip(eqn.outvars, self._eqn(eqn, [look(v) for v in eqn.invars])))
        return [look(v) for v in jaxpr.outvars]

    def _eqn(self, eqn: Any, values: list[Value]) -> list[Value]:
        name = eqn.primitive.name
        inner = _inner(eqn) if name in _CALLS else None
        if inner is not None and len(inner[0].invars) == len(values):
            return self._jaxpr(inner[0], [_constant(c) for c in inner[1]], values)
        if name == "cond" and isinstance(values[0], Known):
            branches = eqn.params["branches"]
            index = int(np.clip(int(values[0].array), 0, len(branches) - 1))
            return self.read(branches[index], values[1:])
        if name == "scan":
            return self._scan(eqn, values)
        if name.startswith("random_"):
            return [self._random(name, eqn, values)]
        if all(isinstance(v, Known) for v in values):
            return _evaluate(eqn, values)
        if name in _SAME:
            return list(values)
        tagged = _factors(name, eqn, values)
        if tagged is not None:
            return tagged
        if name == "mul" and (rotation := _orthonormal(values, eqn)) is not None:
            return [rotation]
        blocked = next((v for v in values if isinstance(v, Opaque)), None)
        if blocked is not None:
            return [Opaque(blocked.reason)] * len(eqn.outvars)
        if name in _MOVES:
            return self._move(name, eqn, values)
        if name == "qr":
            return self._factorise(eqn, values)
        if any(isinstance(v, Keys | Words) for v in values):
            return _opaque(eqn, f"a random key goes through `{name}`")
        if any(isinstance(v, Bits) for v in values):
            return [_bits(name, eqn, values)]
        if name in _POINTWISE or name in ("integer_pow", "convert_element_type", "nextafter"):
            return [_pointwise(name, eqn, values)]
        return _opaque(eqn, f"there is no rule for the primitive `{name}`")

    # Keys and bits

    def _random(self, name: str, eqn: Any, values: list[Value]) -> Value:
        first = values[0]
        if isinstance(first, Opaque):
            return first
        if name == "random_seed":
            if isinstance(first, Known):
                return Keys(_each(first.array, lambda seed: ("seed", int(seed))))
        elif name == "random_wrap":
            words = _constant_words(first.array) if isinstance(first, Known) else first
            if isinstance(words, Words):
                return _wrap(words)
        elif isinstance(first, Keys):
            if name == "random_unwrap":
                size = eqn.outvars[0].aval.shape[-1]
                return Words(_nest(first.tokens, (size,), lambda token, i: (token, i)))
            if name == "random_split":
                shape = tuple(eqn.params["shape"])
                return Keys(_nest(first.tokens, shape, lambda token, i: ("child", token, i)))
            if name == "random_clone":
                return first
            if name == "random_fold_in" and isinstance(values[1], Known):
                data = np.broadcast_to(values[1].array, first.tokens.shape)
                out = np.empty(first.tokens.shape, object)
                for i in np.ndindex(out.shape):
                    out[i] = ("child", first.tokens[i], int(data[i]))
                return Keys(out)
            if name == "random_bits":
                return self._draw(first, eqn)
        return Opaque(f"there is no rule for the primitive `{name}` with these arguments")

    def _draw(self, keys: Keys, eqn: Any) -> Value:
        shape = tuple(eqn.outvars[0].aval.shape)
        tokens = list(keys.tokens.reshape(-1))
        draws = [(self._keys.setdefault(t, len(self._keys)), next(self._draws)) for t in tokens]
        first, size = self._numbers, math.prod(shape)
        self._numbers += size
        identities = lambda: np.arange(first, first + size).reshape(shape)
        source = Source(frozenset(draws), identities, len(set(tokens)) == len(tokens))
        return Bits(source, shape, int(eqn.params["bit_width"]))

    # Moving entries about

    def _move(self, name: str, eqn: Any, values: list[Value]) -> list[Value]:
        count = len(values) if name == "concatenate" else 1
        data, rest = values[:count], values[count:]
        if not all(isinstance(v, Known) for v in rest):
            return _opaque(eqn, f"`{name}` at positions that are not fixed")

        def indices() -> list[np.ndarray]:
            starts = np.cumsum([0, *(math.prod(_shape(v)) for v in data)])
            index = [
                np.arange(a, b, dtype=np.int32).reshape(_shape(v))
                for a, b, v in zip(starts, starts[1:], data)
            ]
            return _bind(eqn, [*index, *(v.array for v in rest)])

        return [
            _pick(data, lambda i=i: indices()[i], tuple(var.aval.shape), name in _PERMUTATIONS)
            for i, var in enumerate(eqn.outvars)
        ]

    def _scan(self, eqn: Any, values: list[Value]) -> list[Value]:
        p = eqn.params
        fixed, carried = p["num_consts"], p["num_carry"]
        consts, carry = values[:fixed], values[fixed : fixed + carried]
        sequences, length = values[fixed + carried :], int(p["length"])
        order = range(length - 1, -1, -1) if p["reverse"] else range(length)
        collected = {}
        for i in order:
            xs = [_pick([v], _row(_shape(v), i), _shape(v)[1:], False) for v in sequences]
            out = self.read(p["jaxpr"], [*consts, *carry, *xs])
            carry, collected[i] = out[:carried], out[carried:]
        stacked = []
        for k, var in enumerate(eqn.outvars[carried:]):
            rows, shape = [collected[i][k] for i in range(length)], tuple(var.aval.shape)
            stacked.append(_pick(rows, lambda n=shape: np.arange(math.prod(n)).reshape(n), shape))
        return [*carry, *stacked]

    def _factorise(self, eqn: Any, values: list[Value]) -> list[Value]:
        (value,) = values
        rows, columns = _shape(value)[-2:]
        gaussian = (
            isinstance(value, Random)
            and isinstance(value.law.family, Normal)
            and value.law.family.mu == 0
            and value.source.whole
        )
        full = eqn.params.get("full_matrices") or eqn.params.get("pivoting")
        if not gaussian or rows < columns or full or len(eqn.outvars) != 2:
            return _opaque(eqn, "a QR factorisation of anything but tall Gaussian matrices")
        number = next(self._factorisations)
        why = "a QR factor whose signs are not fixed by sign(diag(R))"
        return [
            Opaque(why, ("q", number, rows, value.source)),
            Opaque("the triangular factor of a QR factorisation", ("r", number)),
        ]


# Structure


def _row(shape: tuple[int, ...], i: int) -> Callable[[], np.ndarray]:
    return lambda: np.arange(math.prod(shape)).reshape(shape)[i]


def _pick(
    data: Sequence[Value],
    indices: Callable[[], np.ndarray],
    shape: tuple[int, ...],
    permutation: bool = False,
) -> Value:
    """The array of entries of ``data`` (ravelled, one after the other) at ``indices``."""
    blocked = next((v for v in data if isinstance(v, Opaque)), None)
    if blocked is not None:
        return Opaque(blocked.reason, blocked.factor if len(data) == 1 else ())
    if all(isinstance(v, Known) for v in data):
        fills = {None if (f := v.fill()) is None else f.item() for v in data}
        if len(fills) == 1 and None not in fills:
            return Known(np.broadcast_to(np.asarray(data[0].fill()), shape))
        return Known(np.concatenate([v.array.reshape(-1) for v in data])[indices()])
    for kind in (Keys, Words):
        if all(isinstance(v, kind) for v in data):
            tokens = np.concatenate([v.tokens.reshape(-1) for v in data])
            return kind(_each(np.asarray(indices()), lambda i, tokens=tokens: tokens[i]))
    if not (all(isinstance(v, Random) for v in data) or all(isinstance(v, Bits) for v in data)):
        return Opaque("parts with different distributions are put into one array")
    first = data[0]
    size = sum(math.prod(v.shape) for v in data)
    if len(data) == 1 and math.prod(shape) > size:
        return Opaque("one random number fills several entries")
    draws = [d for v in data for d in v.source.draws]
    old = [v.source.identities for v in data]
    identities = None
    if None not in old:
        identities = lambda: np.concatenate([i().reshape(-1) for i in old])[indices()]
    whole = (
        all(v.source.whole for v in data)
        and len({key for key, _ in draws}) == len(draws)
        and (permutation or math.prod(shape) == size)
        and (permutation or identities is None or _distinct(identities()))
    )
    source = Source(frozenset(draws), identities, whole)
    if isinstance(first, Bits):
        if any((v.width, v.shift, v.ones) != (first.width, first.shift, first.ones) for v in data):
            return Opaque("different kinds of random bits are put into one array")
        return Bits(source, shape, first.width, first.shift, first.ones)
    law = first.law
    if any(v.law is not law for v in data):
        moments = [v.law.family.moments() for v in data]
        if not np.allclose(moments, moments[0], rtol=1e-12, atol=0):
            return Opaque("parts with different distributions are put into one array")
        if len({v.law.family.name for v in data}) > 1:
            law = Law(Moments(*moments[0], "mixture"), None)
        elif isinstance(law.family, _laws.Mapped):
            law = Law(Moments(*moments[0], law.family.name), None)
    return Random(source, law, shape)


def _distinct(identities: np.ndarray) -> bool:
    return len(np.unique(identities)) == identities.size


def _shape(value: Value) -> tuple[int, ...]:
    if isinstance(value, Keys | Words):
        return value.tokens.shape
    return () if isinstance(value, Opaque) else tuple(value.shape)


def _inner(eqn: Any) -> tuple[Any, Sequence[Any]] | None:
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = eqn.params.get(key)
        if isinstance(inner, jex.ClosedJaxpr):
            return inner.jaxpr, inner.consts
        if isinstance(inner, jex.Jaxpr):
            return inner, ()
    return None


def _opaque(eqn: Any, reason: str) -> list[Value]:
    return [Opaque(reason)] * len(eqn.outvars)


# Concrete values and keys


def _constant(value: Any) -> Value:
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        words = _constant_words(np.asarray(jax.random.key_data(value)))
        return _wrap(words)
    return Known(np.asarray(value))


def _constant_words(array: np.ndarray) -> Words:
    out = np.empty(array.shape, object)
    for i in np.ndindex(array.shape[:-1]):
        token = ("constant", array[i].tobytes())
        for j in range(array.shape[-1]):
            out[(*i, j)] = (token, j)
    return Words(out)


def _wrap(words: Words) -> Value:
    out = np.empty(words.tokens.shape[:-1], object)
    for i in np.ndindex(out.shape):
        row = words.tokens[i]
        token = row[0][0]
        if any(pair != (token, j) for j, pair in enumerate(row)):
            return Opaque("a random key is put together from the words of several keys")
        out[i] = token
    return Keys(out)


def _each(array: np.ndarray, make: Callable[[Any], Any]) -> np.ndarray:
    out = np.empty(np.shape(array), object)
    for i in np.ndindex(out.shape):
        out[i] = make(array[i])
    return out


def _nest(
    tokens: np.ndarray, shape: tuple[int, ...], make: Callable[[Any, int], Any]
) -> np.ndarray:
    out = np.empty((*tokens.shape, *shape), object)
    for i in np.ndindex(tokens.shape):
        for flat, j in enumerate(np.ndindex(shape)):
            out[(*i, *j)] = make(tokens[i], flat)
    return out


def _bind(eqn: Any, arrays: Sequence[Any]) -> list[np.ndarray]:
    out = eqn.primitive.bind(*arrays, **eqn.params)
    return list(out) if eqn.primitive.multiple_results else [out]


def _evaluate(eqn: Any, values: list[Any]) -> list[Value]:
    name, shapes = eqn.primitive.name, [tuple(v.aval.shape) for v in eqn.outvars]
    fills = [v.fill() for v in values]
    filled = bool(values) and all(f is not None for f in fills)
    if filled and name == "broadcast_in_dim":
        return [Known(np.broadcast_to(fills[0], shapes[0]))]
    pointwise = name in _POINTWISE or name in ("integer_pow", "convert_element_type")
    arrays = [v.array for v in values]
    if filled and pointwise:
        arrays = [np.asarray(f, dtype=v.array.dtype) for f, v in zip(fills, values)]
    try:
        out = _bind(eqn, arrays)
    except Exception as error:
        return _opaque(eqn, f"`{name}` cannot be evaluated: {error}")
    constants = [_constant(o) for o in out]
    if filled and pointwise and isinstance(constants[0], Known):
        return [Known(np.broadcast_to(constants[0].array, shapes[0]))]
    return constants


# Rules for random arrays


def _bits(name: str, eqn: Any, values: list[Value]) -> Value:
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
        if name == "convert_element_type" and fresh and aval.dtype.kind == "u":
            if 8 * aval.dtype.itemsize >= bits.width:
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


def _pointwise(name: str, eqn: Any, values: list[Value]) -> Value:
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
    if function is None:
        return Opaque(f"there is no rule for the primitive `{name}`")
    evaluate = lambda u: function(*(n if m is None else m(u) for m, n in zip(maps, numbers)))
    return Random(source, Law(_laws.Mapped(evaluate), evaluate), shape)


def _function(name: str, eqn: Any) -> Callable[..., Any] | None:
    if name == "integer_pow":
        power = eqn.params["y"]
        return lambda x: np.asarray(x, float) ** power
    if name == "convert_element_type":
        kind = np.dtype(eqn.outvars[0].aval.dtype).kind
        if kind in "iu":
            return lambda x: np.trunc(np.asarray(x, float))
        return (lambda x: np.asarray(x) != 0) if kind == "b" else (lambda x: np.asarray(x, float))
    return _POINTWISE.get(name)


def _one(name: str, eqn: Any, numbers: list[Any], law: Law) -> Law | None:
    """The law of a function that stays within a named family, or None."""
    dtype = eqn.outvars[0].aval.dtype
    floating = jax.numpy.issubdtype(dtype, np.floating)
    if not floating:
        return None
    left = numbers[0] if numbers else None
    number = next((n for n in numbers if n is not None), None)
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


# QR: for a Gaussian matrix, Q sign(diag(R)) is uniform over matrices with orthonormal columns
# and independent of R (Mezzadri 2007, "How to generate random matrices from the classical
# compact groups"); every column is a uniform unit vector, so that entries have variance 1/rows.


def _factors(name: str, eqn: Any, values: list[Value]) -> list[Value] | None:
    operands = values[1:] if name == "cond" else values
    tags = {v.factor for v in operands if isinstance(v, Opaque)}
    if len(tags) != 1 or not all(isinstance(v, Known | Opaque) for v in operands):
        return None
    (tag,) = tags
    if not tag or tag[0] == "q":
        return None
    if tag[0] == "r":
        tag = ("sign", tag[1]) if name == "sign" else tag
    elif name not in _MOVES and name != "convert_element_type":
        return None
    return [Opaque("the triangular factor of a QR factorisation", tag)] * len(eqn.outvars)


def _orthonormal(values: list[Value], eqn: Any) -> Random | None:
    if not all(isinstance(v, Opaque) for v in values):
        return None
    tags = {v.factor[0]: v.factor for v in values if v.factor}
    if set(tags) != {"q", "sign"} or tags["q"][1] != tags["sign"][1]:
        return None
    _, _, rows, source = tags["q"]
    law = Law(Moments(0.0, 1 / math.sqrt(rows), "orthogonal"), None)
    return Random(Source(source.draws, None), law, tuple(eqn.outvars[0].aval.shape))
