"""Moving entries about: slices, reshapes, concatenations of what is known about arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from widelimit.priors import _laws
from widelimit.priors._keys import each
from widelimit.priors._laws import Law, Moments
from widelimit.priors._values import Bits, Keys, Known, Opaque, Random, Source, Value, Words

MOVES = {
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
PERMUTATIONS = {"reshape", "transpose", "squeeze", "expand_dims", "rev"}


def row(shape: tuple[int, ...], i: int) -> Callable[[], np.ndarray]:
    return lambda: np.arange(math.prod(shape)).reshape(shape)[i]


def rearrange(name: str, eqn: Any, array: np.ndarray) -> list[np.ndarray] | None:
    """Apply the commonest moves with NumPy, which need not compile; None for the others."""
    p = eqn.params
    if name in ("squeeze", "expand_dims") or (name == "reshape" and p.get("dimensions") is None):
        return [array.reshape(eqn.outvars[0].aval.shape)]
    if name == "transpose":
        return [array.transpose(p["permutation"])]
    if name == "slice":
        steps = p["strides"] or (1,) * array.ndim
        return [array[tuple(map(slice, p["start_indices"], p["limit_indices"], steps))]]
    if name == "unstack":
        return [np.take(array, i, p["axis"]) for i in range(array.shape[p["axis"]])]
    return None


def pick(
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
    kinds: tuple[Any, ...] = (Keys, Words)
    for kind in kinds:
        if all(isinstance(v, kind) for v in data):
            tokens = np.concatenate([v.tokens.reshape(-1) for v in data])
            return kind(each(np.asarray(indices()), lambda i, tokens=tokens: tokens[i]))
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
        names = {v.law.family.name for v in data}
        if len(names) > 1 or isinstance(law.family, _laws.Mapped):
            mean, std = moments[0]
            law = Law(Moments(mean, std, names.pop() if len(names) == 1 else "mixture"), None)
    return Random(source, law, shape)


def _distinct(identities: np.ndarray) -> bool:
    return len(np.unique(identities)) == identities.size


def shape_of(value: Value) -> tuple[int, ...]:
    if isinstance(value, Keys | Words):
        return value.tokens.shape
    return () if isinstance(value, Opaque) else tuple(value.shape)
