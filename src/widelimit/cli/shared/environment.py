"""Versions and machine, for the record."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import jax

from widelimit.cli.exits import installed_version


def versions(*packages: str) -> dict[str, str]:
    """The versions of this library, of JAX, of some packages and of Python."""
    return {
        "widelimit": installed_version(),
        "jax": jax.__version__,
        **{name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
    }


def machine() -> dict[str, str]:
    """What was computed on."""
    device = jax.devices()[0]
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": str(os.cpu_count()),
        "jax device": f"{jax.device_count()} × {device.device_kind}",
    }
