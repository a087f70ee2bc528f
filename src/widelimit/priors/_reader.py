"""An abstract interpreter that reads the distribution of every array a constructor makes.

Random arrays are followed from the bits of the generator to the output as functions of one
uniform variable per entry, so that their moments are exact. A value that is not understood is
carried along with the reason, and matters only if a parameter is made from it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core as jex

from widelimit.priors._entries import POINTWISE, bits, pointwise
from widelimit.priors._keys import constant, constant_words, nest, wrap
from widelimit.priors._laws import Normal
from widelimit.priors._moves import MOVES, PERMUTATIONS, pick, rearrange, row, shape_of
from widelimit.priors._orthogonal import factors, orthonormal
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


class Reader:
    """Interprets one constructor; remembers which random numbers have been drawn."""

    def __init__(self):
        self._keys: dict[Any, int] = {}
        self._draws = itertools.count()
        self._numbers = 0
        self._factorisations = itertools.count()

    def read(self, closed: Any, args: Sequence[Value]) -> list[Value]:
        """The abstract values of the outputs of a closed jaxpr."""
        consts = [constant(c) for c in closed.consts]
        return self._jaxpr(closed.jaxpr, consts, args)

    def _jaxpr(self, jaxpr: Any, consts: Sequence[Value], args: Sequence[Value]) -> list[Value]:
        env: dict[Any, Value] = {}
        env.update(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))
        look = lambda v: constant(v.val) if isinstance(v, jex.Literal) else env[v]
        for eqn in jaxpr.eqns:
            env.update(zip(eqn.outvars, self._eqn(eqn, [look(v) for v in eqn.invars])))
        return [look(v) for v in jaxpr.outvars]

    def _eqn(self, eqn: Any, values: list[Value]) -> list[Value]:
        name = eqn.primitive.name
        inner = _inner(eqn) if name in _CALLS else None
        if inner is not None and len(inner[0].invars) == len(values):
            return self._jaxpr(inner[0], [constant(c) for c in inner[1]], values)
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
        tagged = factors(name, eqn, values)
        if tagged is not None:
            return tagged
        if name == "mul" and (rotation := orthonormal(values, eqn)) is not None:
            return [rotation]
        blocked = next((v for v in values if isinstance(v, Opaque)), None)
        if blocked is not None:
            return [Opaque(blocked.reason)] * len(eqn.outvars)
        if name in MOVES:
            return self._move(name, eqn, values)
        if name == "qr":
            return self._factorise(eqn, values)
        if any(isinstance(v, Keys | Words) for v in values):
            return _opaque(eqn, f"a random key goes through `{name}`")
        if any(isinstance(v, Bits) for v in values):
            return [bits(name, eqn, values)]
        if name in POINTWISE or name in ("integer_pow", "convert_element_type", "nextafter"):
            return [pointwise(name, eqn, values)]
        return _opaque(eqn, f"there is no rule for the primitive `{name}`")

    # Keys and bits

    def _random(self, name: str, eqn: Any, values: list[Value]) -> Value:
        first = values[0]
        if isinstance(first, Opaque):
            return first
        if name == "random_seed":
            if isinstance(first, Known):
                return _evaluate(eqn, values)[0]
        elif name == "random_wrap":
            words = constant_words(first.array) if isinstance(first, Known) else first
            if isinstance(words, Words):
                return wrap(words)
        elif isinstance(first, Keys):
            if name == "random_unwrap":
                size = eqn.outvars[0].aval.shape[-1]
                return Words(nest(first.tokens, (size,), lambda token, i: (token, i)))
            if name == "random_split":
                shape = tuple(eqn.params["shape"])
                return Keys(nest(first.tokens, shape, lambda token, i: ("child", token, i)))
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
            starts = np.cumsum([0, *(math.prod(shape_of(v)) for v in data)])
            index = [
                np.arange(a, b, dtype=np.int32).reshape(shape_of(v))
                for a, b, v in zip(starts, starts[1:], data)
            ]
            moved = rearrange(name, eqn, index[0])
            return moved or _bind(eqn, [*index, *(v.array for v in rest)])

        return [
            pick(data, lambda i=i: indices()[i], tuple(var.aval.shape), name in PERMUTATIONS)
            for i, var in enumerate(eqn.outvars)
        ]

    def _scan(self, eqn: Any, values: list[Value]) -> list[Value]:
        # The roles of the operands, from their shapes: JAX versions spell them differently.
        p, body = eqn.params, eqn.params["jaxpr"].jaxpr
        carried = sum(a.aval.shape == b.aval.shape for a, b in zip(eqn.outvars, body.outvars))
        looped = sum(a.aval.shape != b.aval.shape for a, b in zip(eqn.invars, body.invars))
        fixed = len(values) - carried - looped
        consts, carry = values[:fixed], values[fixed : fixed + carried]
        sequences, length = values[fixed + carried :], int(p["length"])
        order = range(length - 1, -1, -1) if p["reverse"] else range(length)
        collected = {}
        for i in order:
            xs = [pick([v], row(shape_of(v), i), shape_of(v)[1:], False) for v in sequences]
            out = self.read(p["jaxpr"], [*consts, *carry, *xs])
            carry, collected[i] = out[:carried], out[carried:]
        stacked = []
        for k, var in enumerate(eqn.outvars[carried:]):
            rows, shape = [collected[i][k] for i in range(length)], tuple(var.aval.shape)
            stacked.append(pick(rows, lambda n=shape: np.arange(math.prod(n)).reshape(n), shape))
        return [*carry, *stacked]

    def _factorise(self, eqn: Any, values: list[Value]) -> list[Value]:
        (value,) = values
        rows, columns = shape_of(value)[-2:]
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


def _inner(eqn: Any) -> tuple[Any, Sequence[Any]] | None:
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = eqn.params.get(key)
        if hasattr(inner, "jaxpr"):  # a closed jaxpr
            return inner.jaxpr, inner.consts
        if inner is not None:
            return inner, ()
    return None


def _opaque(eqn: Any, reason: str) -> list[Value]:
    return [Opaque(reason)] * len(eqn.outvars)


def _bind(eqn: Any, arrays: Sequence[Any]) -> list[np.ndarray]:
    out = eqn.primitive.bind(*arrays, **eqn.params)
    return list(out) if eqn.primitive.multiple_results else [out]


def _fold(name: str, eqn: Any, arrays: list[np.ndarray]) -> list[np.ndarray] | None:
    """Evaluate a pointwise primitive with NumPy, which need not compile; None if it may differ."""
    dtype = eqn.outvars[0].aval.dtype
    if name == "convert_element_type":
        whole = np.dtype(dtype).kind in "iu" and arrays[0].dtype.kind not in "iub"
        return None if whole else [arrays[0].astype(dtype)]
    kinds = {dtype.kind, *(a.dtype.kind for a in arrays)}
    if name == "integer_pow" or not kinds <= {"f", "b"} or arrays[0].size > 1:
        return None
    return [np.asarray(POINTWISE[name](*arrays)).astype(dtype)]


def _evaluate(eqn: Any, values: list[Any]) -> list[Value]:
    name, shapes = eqn.primitive.name, [tuple(v.aval.shape) for v in eqn.outvars]
    fills = [v.fill() for v in values]
    filled = bool(values) and all(f is not None for f in fills)
    if filled and name == "broadcast_in_dim":
        return [Known(np.broadcast_to(fills[0], shapes[0]))]
    pointwise = name in POINTWISE or name in ("integer_pow", "convert_element_type")
    arrays = [v.array for v in values]
    if filled and pointwise:
        arrays = [np.asarray(f, dtype=v.array.dtype) for f, v in zip(fills, values)]
    try:
        out = _fold(name, eqn, arrays) if pointwise else None
        out = out or _bind(eqn, arrays)
    except Exception as error:
        return _opaque(eqn, f"`{name}` cannot be evaluated: {error}")
    constants = [constant(o) for o in out]
    if filled and pointwise and isinstance(constants[0], Known):
        return [Known(np.broadcast_to(constants[0].array, shapes[0]))]
    return constants
