"""Model files: a ZIP archive of the training table and of numbers; nothing in it is executed."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from widelimit.cli.exits import Failure, installed_version
from widelimit.cli.shared import files
from widelimit.cli.shared.environment import versions
from widelimit.cli.tabular.columns import Column
from widelimit.cli.tabular.model import Model, Training

FORMAT, VERSION = "widelimit model", 1
_MEMBERS = ("model.json", "words.json", "numbers.npz")
_PROBES = 5
_PROBE_TOLERANCE = 1e-6
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, ValueError, TypeError,
    OverflowError, NotImplementedError, RuntimeError, OSError, AttributeError, IndexError,
    MemoryError,
)  # fmt: skip


def save(model: Model, path: Path) -> None:
    """Write a model.

    Raises
    ------
    Failure
        With exit code 2 if the file cannot be written; an older one is then left as it was.
    """
    files.write(path, pack(model), "model")


def pack(model: Model) -> bytes:
    """A model as the contents of its file.

    The members are the columns as numbers (``numbers.npz``) and words (``words.json``, UTF-8),
    everything else (``model.json``), and ``manifest.json`` with the format, its version, and the
    SHA-256 of the others.
    """
    training = model.frozen()
    members = dict(zip(_MEMBERS, (_json(_about(model, training)), *_table(training))))
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "library": installed_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "members": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in members.items()
        },
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {"manifest.json": _json(manifest), **members}.items():
            archive.writestr(name, data)
    return out.getvalue()


def load(path: Path) -> Model:
    """Read a model; everything is fitted again to the stored table, without learning.

    Raises
    ------
    Failure
        With exit code 2, if the file cannot be read, is none of ours, is damaged, was written by
        a later version, or does not reproduce its own predictions.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        msg = f"Cannot read the model {path}: {error.strerror or error}."
        raise Failure(msg, 2) from error
    members, manifest = _members(path, raw)
    try:
        about = json.loads(members["model.json"])
        training = _training(about, members)
        probe = {name: np.array(value) for name, value in about["probe"].items()}
    except _DAMAGE as error:
        raise _damaged(path, f"its contents make no sense ({type(error).__name__})") from error
    try:
        model = Model(training)
        agrees = _agrees(_probe(model), probe)
    except _DAMAGE as error:
        made = _made(manifest, about)
        msg = f"{path} {made} and cannot be fitted again here: {error}. Fit it anew."
        raise Failure(msg, 2) from error
    if not agrees:
        msg = (
            f"{path} {_made(manifest, about)}; this installation does not reproduce its "
            "predictions. Fit it anew."
        )
        raise Failure(msg, 2)
    return model


# --------------------------------------------------------------------------- writing


def _json(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False).encode("utf-8")


def _about(model: Model, training: Training) -> dict[str, Any]:
    return {
        "target": training.target,
        "task": training.task,
        "classes": [*training.classes],
        "columns": [c.as_json() for c in training.columns],
        "options": dict(training.options),
        "probe": {name: value.tolist() for name, value in _probe(model).items()},
        "versions": versions("numpy", "scipy", "scikit-learn"),
    }


def _table(training: Training) -> tuple[bytes, bytes]:
    """Categories as distinct words and their numbers; everything else as numbers."""
    words: dict[str, list[str]] = {}
    numbers: dict[str, np.ndarray] = {"answers": training.answers}
    for i, column in enumerate(training.used):
        values = training.values[column.name]
        if values.dtype == object:
            different = sorted(set(values))
            code = {word: k for k, word in enumerate(different)}
            words[str(i)] = different
            values = np.array([code[word] for word in values], np.int32)
        numbers[str(i)] = values
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **numbers)
    return _json(words), out.getvalue()


def _probe(model: Model) -> dict[str, np.ndarray]:
    """Predictions for a few rows of the training table."""
    found = model.of_features(model.features[:_PROBES])
    if found.probabilities is not None:
        return {"probabilities": found.probabilities}
    return {"mean": np.asarray(found.mean), "std": np.asarray(found.std)}


# --------------------------------------------------------------------------- reading


def _members(path: Path, raw: bytes) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The members that the manifest lists, checked, and the manifest."""
    if not raw:
        msg = f"The model {path} is empty."
        raise Failure(msg, 2)
    if not raw.startswith(b"PK"):
        msg = f"{path} is not a model file of widelimit."
        raise Failure(msg, 2)
    try:
        archive = zipfile.ZipFile(io.BytesIO(raw))
        names = archive.namelist()
    except _DAMAGE as error:
        raise _damaged(path, "its directory cannot be read; it may be cut short") from error
    if "manifest.json" not in names:
        msg = f"{path} is not a model file of widelimit: it has no manifest."
        raise Failure(msg, 2)
    try:
        manifest = json.loads(archive.read("manifest.json"))
        form, version = manifest["format"], manifest["version"]
    except _DAMAGE as error:
        raise _damaged(path, "its manifest cannot be read") from error
    if form != FORMAT or not isinstance(version, int):
        msg = f"{path} is not a model file of widelimit: it is {str(form)[:60]!r}."
        raise Failure(msg, 2)
    if version > VERSION:
        msg = (
            f"{path} has version {version} of the format, made by widelimit "
            f"{manifest.get('library')}; this is widelimit {installed_version()}, which reads up "
            f"to version {VERSION}. Upgrade, or fit it anew."
        )
        raise Failure(msg, 2)
    return {name: _member(path, archive, manifest, name) for name in _MEMBERS}, manifest


def _member(path: Path, archive: zipfile.ZipFile, manifest: dict[str, Any], name: str) -> bytes:
    try:
        wanted, size = manifest["members"][name]["sha256"], manifest["members"][name]["bytes"]
        if archive.getinfo(name).file_size != size:
            raise _damaged(path, f"{name} has the wrong size")
        data = archive.read(name)
    except _DAMAGE as error:
        raise _damaged(path, f"{name} cannot be read") from error
    if hashlib.sha256(data).hexdigest() != wanted:
        raise _damaged(path, f"{name} is not what was written")
    return data


def _training(about: Mapping[str, Any], members: Mapping[str, bytes]) -> Training:
    words = json.loads(members["words.json"])
    columns = tuple(Column.from_json(c) for c in about["columns"])
    values = {}
    with np.load(io.BytesIO(members["numbers.npz"]), allow_pickle=False) as numbers:
        answers = numbers["answers"]
        for i, column in enumerate(c for c in columns if c.kind != "dropped"):
            found = numbers[str(i)]
            if column.kind == "category":
                found = np.array(words[str(i)], dtype=object)[found]
            values[column.name] = found
    if about["task"] not in ("regression", "classification"):
        raise ValueError(about["task"])
    if {len(found) for found in values.values()} != {len(answers)}:
        msg = "columns of different lengths"
        raise ValueError(msg)
    return Training(
        str(about["target"]), about["task"], tuple(about["classes"]), columns, values, answers,
        about["options"],
    )  # fmt: skip


def _agrees(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    if found.keys() != wanted.keys():
        return False
    return all(
        found[k].shape == wanted[k].shape
        and np.allclose(found[k], wanted[k], rtol=_PROBE_TOLERANCE, atol=_scale(wanted[k]))
        for k in found
    )


def _scale(values: np.ndarray) -> float:
    return _PROBE_TOLERANCE * float(np.max(np.abs(values), initial=0))


def _made(manifest: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    made = about.get("versions", {})
    with_what = ", ".join(f"{k} {v}" for k, v in made.items() if k != "widelimit")
    return f"was made by widelimit {manifest.get('library')} with {with_what}"


def _damaged(path: Path, what: str) -> Failure:
    return Failure(f"The model file {path} is damaged: {what}.", 2)
