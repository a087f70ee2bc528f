"""Output files: checked before the work is done, written in one piece."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from widelimit.cli.exits import Failure


def require_writable(path: Path, what: str, option: str) -> None:
    """Fail before any work is done if a file cannot be written.

    Parameters
    ----------
    path
        The file.
    what
        What it will hold, for the sentence.
    option
        The option that names it.

    Raises
    ------
    Failure
        With exit code 2.
    """
    try:
        if path.is_dir():
            example = path / f"{what}.file"
            msg = f"{path} is a directory; give {option} the name of a file, such as {example}."
            raise Failure(msg, 2)
        if _in_place(path):
            with path.open("ab"):
                pass
        else:
            part = _part(path)
            part.touch()
            part.unlink()
    except OSError as error:
        raise _unwritable(path, what, error) from error


def require_apart(outputs: dict[str, Path], inputs: dict[str, Path]) -> None:
    """Fail if an output is one of the inputs, or two outputs are one file.

    Raises
    ------
    Failure
        With exit code 2.
    """
    seen = {os.path.realpath(path): name for name, path in inputs.items()}
    for name, path in outputs.items():
        if _in_place(path):
            continue
        other = seen.setdefault(os.path.realpath(path), name)
        if other != name:
            msg = f"{name} and {other} are the same file, {path}; give {name} another name."
            raise Failure(msg, 2)


def write(path: Path, data: bytes | str, what: str) -> None:
    """Write a file so that readers find the old contents or the new ones, never a part.

    The new contents go to a file beside it that takes its place when complete. Devices and pipes
    are written to directly.

    Raises
    ------
    Failure
        With exit code 2 if that is not possible; the old file is left as it was.
    """
    raw = data.encode("utf-8") if isinstance(data, str) else data
    try:
        if _in_place(path):
            path.write_bytes(raw)
            return
        _replace(path.resolve(), raw)
    except OSError as error:
        raise _unwritable(path, what, error) from error


def _replace(path: Path, raw: bytes) -> None:
    part = _part(path)
    try:
        with part.open("xb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            part.chmod(path.stat().st_mode & 0o777)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def _part(path: Path) -> Path:
    return path.resolve().with_name(f".{path.name[:100]}.{os.getpid()}.part")


def _in_place(path: Path) -> bool:
    """Whether this is a device or a pipe."""
    return os.path.exists(path) and not os.path.isfile(path)


def _unwritable(path: Path, what: str, error: OSError) -> Failure:
    return Failure(f"Cannot write the {what} to {path}: {error.strerror or error}.", 2)
