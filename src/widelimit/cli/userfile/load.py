"""A network from a user's Python file, and the comparison with finite networks."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from widelimit.cli.exits import Failure
from widelimit.errors import WideLimitError
from widelimit.finite import Report
from widelimit.finite import verify as compare
from widelimit.kernel import Kernel


@dataclass(frozen=True)
class Found:
    """A network, its parameters if it is a plain function, and where it is from."""

    model: Any
    params: Any
    file: Path
    name: str


def network(spec: str, params: str | None, seed: int) -> Found:
    """Run a file and find the network in it.

    Parameters
    ----------
    spec
        ``PATH:NAME``; the name may have dots.
    params
        The name of the parameters, if the network is a function of them.
    seed
        Of the random key, where a function asks for one.

    Raises
    ------
    Failure
        With exit code 2, if the file cannot be run, or if there is no network of that name.
    """
    path, colon, name = spec.rpartition(":")
    if not colon or not path or not name:
        msg = f"{spec!r} does not name a network; write PATH:NAME, such as model.py:network."
        raise Failure(msg, 2)
    file = Path(path)
    module = _run(file)
    with _blamed(file, 2):
        model = _look_up(module, file, name)
        given = None if params is None else _look_up(module, file, params)
        if given is None and _is_maker(model):
            model = _made(model, file, name, seed)
    if given is None and _is_pair(model):
        model, given = model
    if inspect.isclass(model):
        msg = f"{name} in {file} is a class; name an instance, or a function that returns one."
        raise Failure(msg, 2)
    if given is None and inspect.isroutine(model):
        msg = (
            f"{name} in {file} is a function of {_arguments(model)}; name its parameters with "
            "--params, or name a pair (f, params) or a function without arguments that returns it."
        )
        raise Failure(msg, 2)
    if not callable(model) and not isinstance(model, Kernel | tuple):
        msg = f"{name} in {file} is no network but of type {type(model).__name__}."
        raise Failure(msg, 2)
    return Found(model, given, file, name)


def run(found: Found, x: Any, *, seed: int, **options: Any) -> Report:
    """Compare the limit with finite networks; see :func:`widelimit.verify`.

    Raises
    ------
    WideLimitError
        If the network has no limit as written.
    Failure
        If the network's own code fails, naming its line.
    """
    arguments = (found.model, x) if found.params is None else (found.model, found.params, x)
    with _blamed(found.file, 1):
        return compare(*arguments, key=jax.random.key(seed), **options)


def _run(file: Path) -> ModuleType:
    if not file.is_file():
        msg = f"There is no file {file}."
        raise Failure(msg, 2)
    # Under this name, so that dataclasses and modules defined in it find themselves.
    name = "widelimit_user_file"
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        msg = f"{file} is not a Python file; its name should end in .py."
        raise Failure(msg, 2)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with _blamed(file, 2):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _blamed(file: Path, code: int) -> Iterator[None]:
    """Errors of the user's code as sentences with its line."""
    try:
        yield
    except (Failure, WideLimitError, KeyboardInterrupt, MemoryError):
        raise
    except SyntaxError as error:
        msg = f"{error.filename or file}:{error.lineno or 1}: {error.msg}."
        raise Failure(msg, 2) from error
    except (Exception, SystemExit) as error:
        first = (str(error).strip().splitlines() or ["no message"])[0].rstrip(".")
        msg = f"{_line(file, error)}{type(error).__name__}: {first}."
        raise Failure(msg, code) from error


def _line(file: Path, error: BaseException) -> str:
    here = str(file.resolve())
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == here]
    return f"{file}:{lines[-1]}: " if lines else ""


def _look_up(module: ModuleType, file: Path, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            public = [n for n in vars(module) if not n.startswith("_")]
            some = ", ".join(public[:20]) or "nothing"
            msg = f"{file} has no {name!r}; it has {some}."
            raise Failure(msg, 2)
        found = getattr(found, part)
    return found


def _is_maker(model: Any) -> bool:
    if not inspect.isroutine(model):
        return False
    needed = _needed(model)
    return not needed or needed == ["key"]


def _made(maker: Any, file: Path, name: str, seed: int) -> Any:
    model = maker(jax.random.key(seed)) if _needed(maker) else maker()
    if model is None:
        msg = f"{name}() in {file} returns nothing; it should return a network."
        raise Failure(msg, 2)
    return model


def _needed(function: Any) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ["?"]
    empty, kinds = inspect.Parameter.empty, inspect.Parameter
    loose = (kinds.VAR_KEYWORD, kinds.VAR_POSITIONAL)
    return [p.name for p in parameters if p.default is empty and p.kind not in loose]


def _arguments(function: Any) -> str:
    return ", ".join(_needed(function)) or "arguments"


def _is_pair(model: Any) -> bool:
    """Whether this is a function with its parameters, not a module with its state."""
    if not (isinstance(model, tuple) and len(model) == 2 and callable(model[0])):
        return False
    return type(model[1]).__name__ != "State"
