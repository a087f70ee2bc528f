"""A network as a function of one example, a list of arrays, and what is random about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from widelimit.errors import UnknownPriorError
from widelimit.models import _equinox
from widelimit.models._check import require_plausible
from widelimit.models._origin import Origin
from widelimit.priors import FIXED, STANDARD_NORMAL, Prior, Priors, as_prior, assign, leaves
from widelimit.priors._names import is_equinox, is_flax, struct

DOCUMENTED = "documented"


@dataclass(frozen=True, eq=False)
class Description:
    """A network, read from the object its author wrote.

    Attributes
    ----------
    arrays
        Shape and dtype of each parameter.
    names
        A readable path for each parameter, such as ``layers[0].weight``.
    priors
        The prior of each parameter.
    trainable
        Whether each parameter is trained; a frozen one is random but adds nothing to the NTK.
    values
        The parameters' current values, abstract where the model was given abstractly.
    unflatten
        Puts arrays into the model (or parameter pytree) in place of its parameters.
    library
        ``"params"``, ``"equinox"`` or ``"flax"``.
    """

    arrays: tuple[jax.ShapeDtypeStruct, ...]
    names: tuple[str, ...]
    priors: tuple[Prior, ...]
    trainable: tuple[bool, ...]
    values: tuple[Any, ...] = field(repr=False)
    unflatten: Callable[[Sequence[Any]], Any] = field(repr=False)
    library: str
    _call: Callable[[Any, Any], Any] = field(repr=False)

    def apply(self, arrays: Sequence[Any], x: Any) -> Any:
        """The network's output for one example, with ``arrays`` as its parameters.

        Pure and traceable; the arrays may be tracers, and of another dtype.
        """
        return self._call(self.unflatten(arrays), x)


def describe(
    model: Any, params: Any = None, *, prior: Any = None, trainable: Any = None
) -> Description:
    """Read a network as (function of one example, arrays, priors).

    Parameters
    ----------
    model
        One of: a plain function ``f(params, x)`` of one example; an Equinox module; the pair
        ``(module, state)`` of a stateful Equinox module; a Flax NNX module. Modules are called
        as ``model(x)``, as ``model(*x)`` if x is a tuple, and as ``model(**x)`` if it is a dict.
    params
        The parameters of a plain function: a pytree of arrays, abstract arrays, or modules.
        Floating-point arrays are parameters; integers, booleans and Python numbers constants.
    prior
        What is random, where it is not to be read off: a Prior, a number (the standard
        deviation of all entries), a pytree prefix of those, a mapping from names or beginnings
        of names, a callable of (name, ShapeDtypeStruct), or the result of ``prior_of``. A None
        in these leaves an array to be read off. ``"fixed"`` in place of a Prior says that an
        array is a table, such as the angles of rotary positions: known as it is, neither random
        nor trained, and no parameter of the description. ``"documented"`` takes the documented
        initialisation of library layers without comparing it with the arrays' values. Arrays of
        plain parameter pytrees are standard Gaussian by default, those of Equinox and Flax
        layers have the layer's initialisation.
    trainable
        A bool, a pytree prefix of bools, a mapping from names, or a callable of
        (name, ShapeDtypeStruct). Everything is trainable by default.

    Returns
    -------
    Description
        The network and its parameters.

    Raises
    ------
    UnknownPriorError
        The prior of an array cannot be determined.
    RandomnessError, BatchStatisticsError
        Dropout or batch normalisation in training mode.
    ValueError
        There are no parameters, or a key of ``prior`` or ``trainable`` names none.
    """
    holder, call = called(model, params)
    found = leaves(holder)
    if not found.values:
        msg = f"{type(holder).__name__} holds no floating-point arrays, so nothing is random"
        raise ValueError(msg)
    structs = tuple(struct(v) for v in found.values)
    for name, s in zip(found.names, structs):
        if jnp.issubdtype(s.dtype, jnp.complexfloating):
            msg = f"{name} is complex"
            raise UnknownPriorError(
                msg,
                why="The limit is taken over real parameters.",
                remedy="write the layer with a real and an imaginary array",
            )
    _require_concrete(holder)
    priors = _priors(holder, found, structs, prior)
    train = assign(trainable, found.names, structs, _as_bool, "trainable")
    parameter = [p != FIXED for p in priors]
    if not any(parameter):
        msg = f"every array of {type(holder).__name__} is fixed, so nothing is random"
        raise ValueError(msg)
    found = found.keep(parameter)
    return Description(
        arrays=tuple(s for s, chosen in zip(structs, parameter) if chosen),
        names=found.names,
        priors=tuple(p for p in priors if isinstance(p, Prior)),
        trainable=tuple(t is not False for t, chosen in zip(train, parameter) if chosen),
        values=found.values,
        unflatten=found.rebuild,
        library=found.library,
        _call=call,
    )


def called(model: Any, params: Any) -> tuple[Any, Callable[[Any, Any], Any]]:
    """What holds the parameters, and how to call it."""
    if params is not None:
        if not callable(model):
            msg = f"expected a function f(params, x), got {type(model).__name__}"
            raise TypeError(msg)
        return params, model
    state = None
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[1], eqx.nn.State):
        model, state = model
    if is_equinox(model) and callable(model):
        _equinox.require_deterministic(model)
        _equinox.require_state(model, state)
        if state is None:
            return model, _call_module
        return model, lambda m, x: _call_module(m, x, state=state)[0]
    if is_flax(model) and callable(model):
        from widelimit.models import _flax

        _flax.require_deterministic(model)
        return model, _call_module
    if callable(model):
        msg = (
            "a plain function needs its parameters: describe(f, params) with f(params, x). "
            "To read priors off Equinox or Flax modules, pass the module, or f and the module."
        )
        raise TypeError(msg)
    msg = f"{type(model).__name__} is not a function, an Equinox module or a Flax NNX module"
    raise TypeError(msg)


def _call_module(module: Any, x: Any, **state: Any) -> Any:
    if type(x) is tuple:
        return module(*x, **state)
    if isinstance(x, dict):
        return module(**x, **state)
    return module(x, **state)


def _require_concrete(holder: Any) -> None:
    if is_flax(holder):
        return
    for leaf in jax.tree_util.tree_leaves(holder):
        if isinstance(leaf, jax.ShapeDtypeStruct) and not jnp.issubdtype(leaf.dtype, jnp.inexact):
            msg = f"a {leaf.dtype} array is a constant of the network, so it needs its values"
            raise ValueError(msg)


def _origins(holder: Any) -> dict[str, Origin]:
    if is_flax(holder):
        from widelimit.models import _flax

        return _flax.origins(holder)
    return _equinox.origins(holder)


def _priors(holder: Any, found: Any, structs: Any, prior: Any) -> tuple[Prior | str, ...]:
    """The prior of every array, or FIXED."""
    trust = isinstance(prior, str)
    if trust and prior != DOCUMENTED:
        msg = f"prior={prior!r}: the only string it can be is {DOCUMENTED!r}"
        raise ValueError(msg)
    if isinstance(prior, Priors):
        return _from_constructor(prior, found, structs)
    given = assign(None if trust else prior, found.names, structs, as_prior, "prior")
    if None not in given:
        return tuple(given)
    if found.library == "params" and not any(True for _ in _equinox.modules(holder)):
        return tuple(STANDARD_NORMAL if p is None else p for p in given)
    origins = _origins(holder)
    out, first_at = [], {}
    for name, value, chosen in zip(found.names, found.values, given):
        if chosen is not None:
            out.append(chosen)
            continue
        origin = origins[name]
        if origin.prior is None:
            msg = f"the prior of {name} is unknown"
            raise UnknownPriorError(
                msg,
                why=f"{origin.reason[0].upper()}{origin.reason[1:]}.",
                remedy=f"give it, describe(model, prior={{{name!r}: Prior(mean, std)}}), read it "
                "off the constructor, prior=prior_of(lambda key: Model(..., key)), or let the "
                f"module state it in a method {_equinox.PROTOCOL}; a table that is neither random "
                f"nor trained is prior={{{name!r}: 'fixed'}}",
            )
        if isinstance(origin.prior, Prior) and not origin.stated and not trust:
            require_plausible(name, value, origin.prior, origin.support)
        if isinstance(value, jax.Array) and _random(origin.prior):
            other = first_at.setdefault(id(value), name)
            if other != name:
                msg = f"{other} and {name} are one and the same array"
                raise UnknownPriorError(
                    msg,
                    why="As two parameters they start equal, so that they are not independent.",
                    remedy="tie them with eqx.nn.Shared, or draw each from a key of its own",
                )
        out.append(origin.prior)
    return tuple(out)


def _random(prior: Prior | str) -> bool:
    return isinstance(prior, Prior) and not (isinstance(prior.std, int | float) and prior.std == 0)


def _from_constructor(prior: Priors, found: Any, structs: Any) -> tuple[Prior | str, ...]:
    missing = [name for name in found.names if name not in prior]
    extra = [name for name in prior if name not in found.names]
    if missing or extra:
        msg = (
            "prior_of read another model: "
            f"it lacks {', '.join(missing) or 'nothing'}, and has {', '.join(extra) or 'nothing'}"
            " besides"
        )
        raise ValueError(msg)
    for name, s in zip(found.names, structs):
        made = prior.structs[name].shape
        if made != s.shape:
            msg = f"prior_of read another model: its {name} has shape {made}, here it is {s.shape}"
            raise ValueError(msg)
    return tuple(prior[name] for name in found.names)


def _as_bool(value: Any) -> bool | None:
    return bool(value) if isinstance(value, bool | np.bool_) else None
