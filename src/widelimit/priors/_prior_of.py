"""Read priors exactly off the program that makes the arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.errors import UnknownPriorError
from widelimit.precision import double_precision
from widelimit.priors._assign import assign
from widelimit.priors._names import leaves, struct
from widelimit.priors._prior import FIXED, Prior, as_prior
from widelimit.priors._reader import Reader
from widelimit.priors._values import Keys, Known, Random, Value, Words

_GIVE = (
    "give this array's prior yourself: describe(..., prior={{{name!r}: Prior(mean, std)}}), or "
    "prior_of(..., given=...) likewise; 'fixed' is for a table, neither random nor trained"
)


class Priors(Mapping[str, Prior | str]):
    """The priors of the arrays that a constructor makes, by name, with their shapes.

    An array that is known as it is has "fixed" in place of a prior.
    """

    def __init__(
        self, priors: Mapping[str, Prior | str], structs: Mapping[str, jax.ShapeDtypeStruct]
    ):
        self._priors = dict(priors)
        self.structs = dict(structs)

    def __getitem__(self, name: str) -> Prior | str:
        return self._priors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._priors)

    def __len__(self) -> int:
        return len(self._priors)

    def __repr__(self) -> str:
        rows = [
            f"  {name}: {p.distribution}, mean {p.mean:.6g}, std {p.std:.6g}"
            if isinstance(p, Prior) else f"  {name}: {p}"
            for name, p in self._priors.items()
        ]
        return "\n".join(["Priors(", *rows, ")"])


def prior_of(make: Callable[..., Any], *args: Any, given: Any = None) -> Priors:
    r"""Read the prior of every array that ``make(key, *args)`` creates, from its program.

    ``make`` is traced, never run. Each array is followed from the random bits of the generator
    as a function g of uniform variables U, so that its entries have

    .. math:: \text{mean} = \int_0^1 g(u)\,du, \qquad
              \text{std}^2 = \int_0^1 (g(u) - \text{mean})^2\,du .

    Parameters
    ----------
    make
        Takes a random key (and ``args``), returns a parameter pytree, an Equinox module or a
        Flax NNX module. The key may be used as a typed key or as raw words.
    args
        Further arguments of ``make``, passed on as they are.
    given
        What is not to be read: a mapping from names, or beginnings of names, of arrays to
        their Prior, to a standard deviation, or to ``"fixed"`` for a table that is neither
        random nor trained.

    Returns
    -------
    Priors
        A mapping from array names to priors, which ``describe(prior=...)`` accepts.

    Raises
    ------
    UnknownPriorError
        An array's entries are not identically distributed and independent, depend on something
        that is not understood, or two arrays are drawn from one key.
    ValueError
        A key of ``given`` names no array.
    """
    found: dict[str, Any] = {}

    def run(key: Any) -> list[Any]:
        parts = leaves(make(key, *args))
        found["names"] = parts.names
        found["structs"] = tuple(struct(v) for v in parts.values)
        return [jnp.asarray(v) for v in parts.values]

    values = _trace(run)
    names, structs = found["names"], found["structs"]
    said = dict(zip(names, assign(given, names, structs, as_prior, "given")))
    read = {name: v for name, v in zip(names, values) if said[name] is None}
    priors = {
        name: _conclude(read[name], name)[0] if name in read else said[name] for name in names
    }
    drawn = [(name, v) for name, v in zip(names, values) if said[name] != FIXED]
    _require_independent([name for name, _ in drawn], [v for _, v in drawn])
    return Priors(priors, dict(zip(names, structs)))


def of_initializer(init: Callable[..., Any], shape: Sequence[int], dtype: Any = None) -> Prior:
    """Read the prior of the array that an initializer ``init(key, shape, dtype)`` makes.

    Reads initializers of ``jax.nn.initializers`` and ``flax.nnx.initializers``, and any other
    function of that signature that :func:`prior_of` understands. Raises ``UnknownPriorError``
    otherwise.
    """
    return of_initializer_with_support(init, shape, dtype)[0]


def of_initializer_with_support(
    init: Callable[..., Any], shape: Sequence[int], dtype: Any = None, name: str = "the array"
) -> tuple[Prior, tuple[float, float]]:
    """Read the prior of an initializer and an interval that contains every entry."""
    dtype = jnp.dtype(float if dtype is None else dtype)
    run = lambda key, dtype: [jnp.asarray(init(key, tuple(shape), dtype))]
    values = None
    if jnp.issubdtype(dtype, jnp.floating):
        # The numbers that are meant, rather than their rounding to the array's dtype.
        try:
            with double_precision():
                values = _trace(lambda key: run(key, jnp.dtype("float64")))
        except Exception:
            values = None
    if values is None:
        values = _trace(lambda key: run(key, dtype))
    return _conclude(values[0], name)


def _trace(run: Callable[[Any], list[Any]]) -> list[Value]:
    """Abstract values of the arrays that ``run(key)`` returns."""
    token = np.empty((), object)
    token[()] = "the key"
    try:
        closed, arg = jax.make_jaxpr(run)(jax.random.key(0)), Keys(token)
    except (TypeError, ValueError, IndexError) as error:
        raw = jax.random.PRNGKey(0)
        try:
            closed = jax.make_jaxpr(run)(raw)
        except Exception:
            raise error from None
        words = np.empty(raw.shape, object)
        for i in range(len(words)):
            words[i] = ("the key", i)
        arg = Words(words)
    with jax.ensure_compile_time_eval():
        return Reader().read(closed, [arg])


def _conclude(value: Value, name: str) -> tuple[Prior, tuple[float, float]]:
    """The prior of an output, and an interval that contains its entries."""
    if isinstance(value, Known):
        fill = value.fill()
        if value.array.size == 0:
            return Prior.constant(0.0), (0.0, 0.0)
        if fill is None:
            raise _unknown(name, "it is a fixed array whose entries differ from one another")
        return Prior.constant(float(fill)), (float(fill), float(fill))
    if isinstance(value, Random):
        identities = value.source.identities
        if not value.source.whole and identities is None:
            raise _unknown(name, "it takes apart an array that combines several random numbers")
        if not value.source.whole and identities is not None:
            drawn = identities()
            if len(np.unique(drawn)) != drawn.size:
                raise _unknown(name, "one random number fills several of its entries")
        if not value.source.whole and len({k for k, _ in value.source.draws}) < len(
            value.source.draws
        ):
            raise _unknown(name, "parts of it are drawn from the same key, so that they are equal")
        family = value.law.family
        try:
            mean, std = family.moments()
        except ArithmeticError as error:
            raise _unknown(name, f"it has no finite variance ({error})") from None
        if not math.isfinite(mean) or not math.isfinite(std):
            raise _unknown(name, "it has no finite variance")
        if abs(mean) <= 1e-9 * std:
            mean = 0.0
        if std == 0:
            return Prior.constant(float(mean)), (mean, mean)
        return Prior(float(mean), float(std), family.name), family.support()
    reason = getattr(value, "reason", "it is made from a random key directly")
    raise _unknown(name, reason)


def _require_independent(names: Sequence[str], values: Sequence[Value]) -> None:
    """Refuse two arrays that are made from the same random numbers."""
    users: dict[int, list[tuple[str, Random, frozenset[int]]]] = {}
    for name, value in zip(names, values):
        if isinstance(value, Random) and _varies(value):
            by_key: dict[int, set[int]] = {}
            for key, draw in value.source.draws:
                by_key.setdefault(key, set()).add(draw)
            for key, draws in by_key.items():
                users.setdefault(key, []).append((name, value, frozenset(draws)))
    checked = set()
    for sharing in users.values():
        for i, (name, value, draws) in enumerate(sharing):
            for other, second, others in sharing[:i]:
                if (other, name) in checked:
                    continue
                checked.add((other, name))
                if draws == others and len(draws) == 1 and _disjoint(value, second):
                    continue
                msg = f"{other} and {name} are drawn from the same random key"
                raise UnknownPriorError(
                    msg,
                    why="One key gives the same numbers every time, so that the two arrays are "
                    "not independent.",
                    remedy="split the key with jax.random.split, and use each part once",
                )


def _varies(value: Random) -> bool:
    try:
        return value.law.family.moments()[1] > 0
    except ArithmeticError:  # no finite variance
        return True


def _disjoint(a: Random, b: Random) -> bool:
    if a.source.identities is None or b.source.identities is None:
        return False
    return not len(np.intersect1d(a.source.identities(), b.source.identities()))


def _unknown(name: str, reason: str) -> UnknownPriorError:
    return UnknownPriorError(
        f"the prior of {name} cannot be read from its initialisation",
        why=f"{reason[0].upper()}{reason[1:]}.",
        remedy=_GIVE.format(name=name),
    )
