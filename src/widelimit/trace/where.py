"""The line of the user's code behind an equation."""

from __future__ import annotations

import os
import sysconfig

from jax.extend.core import JaxprEqn

from widelimit.errors import Where

_LIBRARIES = (
    os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), ""),
    os.path.join(os.path.realpath(sysconfig.get_paths()["stdlib"]), ""),
)
_PACKAGES = tuple(
    os.sep + os.path.join("site-packages", p) + os.sep
    for p in ("jax", "jaxlib", "equinox", "flax", "jaxtyping", "beartype", "_pytest", "pluggy")
)


def where_of(eqn: JaxprEqn) -> Where | None:
    """The innermost line of the user's own code behind an equation, and who called it."""
    traceback = getattr(eqn.source_info, "traceback", None)
    if traceback is None:
        return None
    lines = [
        (frame.file_name, frame.line_num, frame.function_name)
        for frame in traceback.frames
        if _is_users(frame.file_name)
    ]
    if not lines:
        return None
    file, line, function = lines[0]
    return Where(file, line, function, tuple(Where(*above) for above in lines[1:4]))


def _is_users(file: str) -> bool:
    if any(p in file for p in _PACKAGES) or (file.startswith("<") and file != "<stdin>"):
        return False
    return "site-packages" in file or not file.startswith(_LIBRARIES)
