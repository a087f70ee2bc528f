"""Spreading what the user gives (one value, a prefix, a mapping, a function) over the arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from widelimit.priors._names import path_name
from widelimit.priors._prior import Prior


def assign(
    given: Any,
    names: Sequence[str],
    structs: Sequence[jax.ShapeDtypeStruct],
    convert: Callable[[Any], Any],
    what: str,
) -> list[Any]:
    """One value for each name, None where nothing is given.

    ``given`` is a single value, a callable of (name, struct), a mapping from names (or from the
    beginnings of names) to values, or a pytree prefix. ``convert`` accepts a value or returns
    None. Raises ``ValueError`` for a key that no array has.
    """
    if given is None:
        return [None] * len(names)
    single = convert(given)
    if single is not None:
        return [single] * len(names)
    if callable(given) and not isinstance(given, Mapping) and not _is_tree(given):
        return [_of_call(given, n, s, convert, what) for n, s in zip(names, structs)]
    out: list[Any] = [None] * len(names)
    for prefix, value in _flatten(given, convert, names, ""):
        hits = [i for i, name in enumerate(names) if _covers(prefix, name)]
        if not hits:
            msg = f"{what}: no parameter is called {prefix!r}; there are {', '.join(names)}"
            raise ValueError(msg)
        for i in hits:
            out[i] = value
    return out


def _of_call(given: Callable, name: str, struct: Any, convert: Callable, what: str) -> Any:
    value = given(name, struct)
    if value is None:
        return None
    converted = convert(value)
    if converted is None:
        msg = f"{what}({name!r}, ...) returned {value!r}"
        raise ValueError(msg)
    return converted


def _is_tree(given: Any) -> bool:
    """Whether a callable is a module whose leaves are priors."""
    return any(isinstance(leaf, Prior) for leaf in jax.tree_util.tree_leaves(given, is_leaf=_prior))


def _prior(node: Any) -> bool:
    return isinstance(node, Prior)


def _covers(prefix: str, name: str) -> bool:
    if prefix in ("", name):
        return True
    return name.startswith((f"{prefix}.", f"{prefix}["))


def _flatten(given: Any, convert: Callable, names: Sequence[str], at: str) -> list[tuple[str, Any]]:
    """The values in ``given`` with the beginnings of names that they apply to."""
    if isinstance(given, Mapping):
        steps = [(_mapping_step(key, names, at), value) for key, value in given.items()]
    else:
        flat, _ = jax.tree_util.tree_flatten_with_path(given, is_leaf=lambda n: n is not given)
        steps = [(_join(at, path_name(path)), value) for path, value in flat if path]
    out = []
    for name, value in steps:
        if value is None:
            continue
        converted = convert(value)
        if converted is not None:
            out.append((name, converted))
        elif isinstance(given, Mapping) and isinstance(value, str):
            msg = f"{name} is given {value!r}, which is nothing that an array can have here"
            raise ValueError(msg)
        elif not callable(value) or _is_tree(value):
            out.extend(_flatten(value, convert, names, name))
    return out


def _mapping_step(key: Any, names: Sequence[str], at: str) -> str:
    if isinstance(key, str):
        literal = _join(at, key)
        if any(_covers(literal, name) for name in names):
            return literal
    return _join(at, path_name((jax.tree_util.DictKey(key),)))


def _join(a: str, b: str) -> str:
    if not a or b.startswith("["):
        return a + b
    return f"{a}.{b}"
