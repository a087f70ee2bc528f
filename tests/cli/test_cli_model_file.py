"""Model files: round trip, damage, strangers, later versions, interrupted writing."""

import errno
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cli_support import lines, sentence

from widelimit.cli.exits import Failure
from widelimit.cli.shared import files
from widelimit.cli.tabular import archive


@pytest.fixture
def model(cli, cheap, shop, tmp_path):
    """The path of a model and its predictions of some rows as CSV text."""
    (tmp_path / "shop.csv").write_text(lines(shop), "utf-8")
    found = cli("fit", "shop.csv", "--target", "price", "--folds", 2, "--no-baselines")
    assert found.code == 0, found.err
    return tmp_path / "model.wide", _predictions(cli)


def _predictions(cli):
    assert cli("predict", "model.wide", "shop.csv", "--output", "o.csv").code == 0
    return Path("o.csv").read_text("utf-8")


def _members(path):
    with zipfile.ZipFile(path) as found:
        return {name: found.read(name) for name in found.namelist()}


def _write(path, members):
    with zipfile.ZipFile(path, "w") as out:
        for name, data in members.items():
            out.writestr(name, data)


def test_contents(model):
    path, _ = model
    members = _members(path)
    assert list(members) == ["manifest.json", "model.json", "words.json", "numbers.npz"]
    manifest = json.loads(members["manifest.json"])
    assert (manifest["format"], manifest["version"]) == ("widelimit model", 1)
    assert set(manifest["members"]) == set(members) - {"manifest.json"}
    assert "Köln" in members["words.json"].decode("utf-8")
    for data in members.values():
        with pytest.raises((pickle.UnpicklingError, ValueError, EOFError, KeyError)):
            pickle.loads(data)
    with np.load(io.BytesIO(members["numbers.npz"]), allow_pickle=False) as numbers:
        assert all(numbers[name].dtype != object for name in numbers.files)


def test_loading_gives_the_same_model(model):
    path, _ = model
    first = archive.load(path)
    archive.save(first, path)
    second = archive.load(path)
    for name, values in first.training.values.items():
        np.testing.assert_array_equal(values, second.training.values[name])
    for a, b in zip(first.of_features(first.features), second.of_features(first.features)):
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_cut_anywhere(model):
    path, _ = model
    raw = path.read_bytes()
    places = np.unique(np.linspace(0, len(raw) - 1, 150).astype(int))
    for place in places:
        path.write_bytes(raw[:place])
        with pytest.raises(Failure, match=r"model\.wide") as error:
            archive.load(path)
        assert error.value.code == 2


def test_flipped_anywhere(model, cli):
    path, before = model
    raw = path.read_bytes()
    random = np.random.default_rng(0)
    harmless = 0
    directory = raw.index(b"PK\x01\x02")
    places = [*random.integers(0, len(raw), 90), *random.integers(directory, len(raw), 90)]
    for place in places:
        damaged = bytearray(raw)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(bytes(damaged))
        try:
            archive.load(path)
        except Failure as error:
            assert error.code == 2
            assert "model.wide" in str(error)
        else:
            # A date or a flag of the archive, which changes nothing.
            harmless += 1
            assert _predictions(cli) == before
    assert harmless < len(places) / 2


def test_changed_contents_are_noticed(model, cli):
    path, _ = model
    for name in ("model.json", "words.json", "numbers.npz"):
        members = _members(path)
        changed = path.with_name("changed.wide")
        _write(changed, {**members, name: members[name].replace(b"1", b"2", 1)})
        assert f"is damaged: {name}" in sentence(_predict(cli, changed))
        _write(changed, {k: v for k, v in members.items() if k != name})
        assert f"is damaged: {name}" in sentence(_predict(cli, changed))


def _predict(cli, path):
    return cli("predict", path, "shop.csv", "--output", "o.csv")


def _resigned(path, **changes):
    """A copy whose manifest fits the changed members."""
    import hashlib

    members = _members(path)
    about = json.loads(members["model.json"])
    about.update(changes)
    members["model.json"] = json.dumps(about).encode()
    manifest = json.loads(members["manifest.json"])
    manifest["members"]["model.json"] = {
        "sha256": hashlib.sha256(members["model.json"]).hexdigest(),
        "bytes": len(members["model.json"]),
    }
    members["manifest.json"] = json.dumps(manifest).encode()
    changed = path.with_name("changed.wide")
    _write(changed, members)
    return changed


def test_models_that_do_not_reproduce_their_predictions(model, cli):
    path, _ = model
    about = json.loads(_members(path)["model.json"])
    probe = dict(about["probe"], mean=[m + 0.01 for m in about["probe"]["mean"]])
    text = sentence(_predict(cli, _resigned(path, probe=probe)))
    assert "does not reproduce its predictions" in text
    assert "scikit-learn" in text


def test_contents_that_make_no_sense(model, cli):
    path, _ = model
    for changes in ({"columns": [1]}, {"task": None}, {"options": {"nonsense": 1}},
                    {"options": [3]}, {"probe": 3}):  # fmt: skip
        sentence(_predict(cli, _resigned(path, **changes)))


def test_later_version(model, cli):
    path, _ = model
    members = _members(path)
    manifest = json.loads(members["manifest.json"])
    manifest |= {"version": 2, "library": "9.1"}
    _write(path, {**members, "manifest.json": json.dumps(manifest)})
    text = sentence(_predict(cli, path))
    assert "version 2" in text
    assert "widelimit 9.1" in text


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (None, "Cannot read the model"),
        (b"", "is empty"),
        (b"a,b\n1,2\n", "is not a model file"),
        (b"PK\x03\x04 and nothing else", "is damaged"),
        ({"content.xml": b"<a/>"}, "has no manifest"),
        ({"manifest.json": b"{}"}, "manifest cannot be read"),
        ({"manifest.json": b"[1]"}, "manifest cannot be read"),
        ({"manifest.json": b'{"format": "other", "version": 1}'}, "it is 'other'"),
        ({"manifest.json": b'{"format": "widelimit model", "version": 1}'}, "is damaged"),
        ({"manifest.json": b"\xff\xfe\x00"}, "manifest cannot be read"),
    ],
)
def test_strangers(cli, tmp_path, raw, wanted):
    if isinstance(raw, dict):
        _write(tmp_path / "m.wide", raw)
    elif raw is not None:
        (tmp_path / "m.wide").write_bytes(raw)
    (tmp_path / "shop.csv").write_text("a\n1\n")
    found = _predict(cli, "m.wide")
    assert wanted in sentence(found)
    assert not (tmp_path / "o.csv").exists()


# --------------------------------------------------------------------------- writing


def test_full_disk_leaves_the_old_file(model, tmp_path, monkeypatch):
    path, _ = model
    old = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    loaded = archive.load(path)
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(Failure, match=r"Cannot write the model to .*: No space left") as error:
        archive.save(loaded, path)
    assert error.value.code == 2
    assert path.read_bytes() == old
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".part")]


def test_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.wide"
    path.write_bytes(b"old")

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(path, b"new", "model")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.wide"]


def test_devices_stay_devices(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write(pipe, b"new", "model")
        assert os.read(reader, 9) == b"new"
        assert pipe.is_fifo()
    finally:
        os.close(reader)


def test_links_and_permissions_are_kept(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    files.write(link, b"new", "model")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert real.stat().st_mode & 0o777 == 0o640
