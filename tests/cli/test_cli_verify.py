"""``widelimit verify`` on users' files: verdicts, exit codes, and sentences with lines."""

import json

import numpy as np
import pytest
from cli_support import sentence

from widelimit.cli.userfile import load
from widelimit.finite import verify

SOURCE = '''
import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx

print("noise on stdout")


def network(params, x):
    w1, w2 = params
    return w2 @ jax.nn.relu(w1 @ x / jnp.sqrt(x.size)) / jnp.sqrt(w2.shape[-1])


shapes = [jax.ShapeDtypeStruct((32, 3), float), jax.ShapeDtypeStruct((1, 32), float)]
pair = (network, shapes)


def make():
    return network, shapes


def keyed(key):
    return eqx.nn.MLP(in_size=3, out_size=1, width_size=32, depth=1, key=key)


module = keyed(jax.random.key(0))
flax = nnx.Sequential(nnx.Linear(3, 32, rngs=nnx.Rngs(0)), nnx.relu,
                      nnx.Linear(32, 1, rngs=nnx.Rngs(1)))


class Box:
    inner = module


def tied(params, x):
    w, v = params
    return v @ (w.T @ jnp.tanh(w @ x))


bad = (tied, [jax.ShapeDtypeStruct((64, 3), float), jax.ShapeDtypeStruct((1, 3), float)])


def nothing():
    pass


def broken():
    return 1 / 0


number = 3
'''
FAST = ("--draws", 100, "--no-ntk", "--multipliers", "1", "--examples", 2)


@pytest.fixture
def file(cli, tmp_path):
    (tmp_path / "m.py").write_text(SOURCE)
    return cli


def test_report_is_that_of_the_library(file, monkeypatch):
    kept = []

    def compare(*arguments, **options):
        kept.append((arguments, options, verify(*arguments, **options)))
        return kept[0][2]

    monkeypatch.setattr(load, "compare", compare)
    found = file("verify", "m.py:pair", "--x", 3, "--json", *FAST)
    assert found.code == 0, found.err
    assert "noise on stdout" in found.err
    (((_, params, x), options, report),) = kept
    assert x.shape == (2, 3)
    assert [p.shape for p in params] == [(32, 3), (1, 32)]
    assert (options["draws"], options["ntk"], options["multipliers"]) == (100, False, (1.0,))
    assert {k: found.json[k] for k in report.to_dict()} == json.loads(json.dumps(report.to_dict()))


@pytest.mark.parametrize("spelling", ["network --params shapes", "make", "keyed", "module"])
def test_spellings(file, spelling, monkeypatch):
    kept = []
    monkeypatch.setattr(load, "compare", lambda *a, **k: kept.append(a) or _agreed())
    words = spelling.split()
    given = () if words[0] in ("keyed", "module") else ("--x", "3")
    found = file("verify", f"m.py:{words[0]}", *words[1:], *given)
    assert found.code == 0, found.err
    assert "noise" not in found.out
    (arguments,) = kept
    assert arguments[-1].shape == (4, 3)
    assert len(arguments) == (2 if words[0] in ("keyed", "module") else 3)


@pytest.mark.parametrize("name", ["flax", "Box.inner"])
def test_modules_by_dotted_names(file, name, monkeypatch):
    monkeypatch.setattr(load, "compare", lambda *_, **__: _agreed())
    assert file("verify", f"m.py:{name}").code == 0


class _agreed:
    verdict = "agrees"

    def __rich__(self):
        return "fine"


def test_disagreement_is_exit_code_1(file, monkeypatch):
    class Wrong(_agreed):
        verdict = "disagrees"

    monkeypatch.setattr(load, "compare", lambda *_, **__: Wrong())
    found = file("verify", "m.py:module")
    assert found.code == 1
    assert found.out.strip() == "fine"


def test_refusal_names_the_line(file):
    found = file("verify", "m.py:bad", "--x", "3", "--json")
    assert found.code == 1
    assert found.json["code"] == 1
    line = 1 + SOURCE[: SOURCE.index("return v @")].count("\n")
    assert f"m.py:{line}, in tied" in found.json["error"]
    assert "instead" in found.err
    assert "Traceback" not in found.err


@pytest.mark.parametrize(
    ("arguments", "code", "wanted"),
    [
        (["m.py"], 2, "write PATH:NAME"),
        (["none.py:f"], 2, "no file none.py"),
        (["m.py:nope"], 2, "has no 'nope'; it has eqx, jax"),
        (["m.py:network"], 2, "is a function of params, x; name its parameters with --params"),
        (["m.py:Box"], 2, "is a class"),
        (["m.py:number"], 2, "no network but of type int"),
        (["m.py:nothing"], 2, "returns nothing"),
        (["m.py:broken"], 2, "ZeroDivisionError: division by zero"),
        (["m.py:pair"], 2, "is not known; give the shape"),
        (["m.py:pair", "--x", "three"], 2, "neither the shape"),
        (["m.py:pair", "--x", "0"], 2, "neither the shape"),
        (["m.py:pair", "--x", "none.npy"], 2, "Cannot read the inputs"),
        (["m.py:pair", "--x", "m.npy"], 2, "is not a file of numbers"),
        (["m.py:pair", "--x", "nan.npy"], 2, "all of them finite"),
        (["m.py:pair", "--x", "5"], 1, "m.py:12: TypeError"),
        (["m.py:pair", "--x", "3", "--multipliers", "a"], 2, "numbers with commas"),
        (["syntax.py:f"], 2, "syntax.py:1: "),
        (["imports.py:f"], 2, "imports.py:2: ModuleNotFoundError"),
        (["exits.py:f"], 2, "exits.py:1: SystemExit"),
        (["text.txt:f"], 2, "should end in .py"),
    ],
)
def test_sentences(file, tmp_path, arguments, code, wanted):
    np.save("nan.npy", np.array([[np.nan] * 3]))
    (tmp_path / "m.npy").write_bytes(b"nonsense")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "imports.py").write_text("import os\nimport no_such_module_anywhere\n")
    (tmp_path / "exits.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "text.txt").write_text("hello")
    assert wanted in sentence(file("verify", *arguments), code)


def test_inputs_from_a_file(file, monkeypatch):
    kept = []
    monkeypatch.setattr(load, "compare", lambda *a, **_: kept.append(a[-1]) or _agreed())
    x = np.arange(6.0).reshape(2, 3)
    np.save("x.npy", x)
    assert file("verify", "m.py:pair", "--x", "x.npy").code == 0
    np.testing.assert_array_equal(kept[0], x)
    assert file("verify", "m.py:pair", "--x", "8x8x3", "--examples", "2").code == 0
    assert kept[1].shape == (2, 8, 8, 3)
