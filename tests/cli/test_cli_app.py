"""Options common to all commands, exit codes, and double precision for a while."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
import typer
from typer.testing import CliRunner

from widelimit.cli import main
from widelimit.cli.app import app
from widelimit.cli.exits import Failure, installed_version, print_json, sentences
from widelimit.precision import double_precision


def test_version():
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout == f"widelimit {installed_version()}\n"


def test_help_documents_the_commands_and_exit_codes():
    assert callable(main)
    for arguments in (["--help"], ["demo", "--help"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0
        assert "Exit codes" in result.stdout
        assert "130 interrupted" in " ".join(result.stdout.split())
    assert "demo" in CliRunner().invoke(app, ["--help"]).stdout


def test_wrong_usage():
    for arguments in (["demo", "--nonsense"], ["demo", "--seed", "-1"], ["nonsense"]):
        assert CliRunner().invoke(app, arguments).exit_code == 2


def test_starts_without_the_libraries_of_commands():
    heavy = "{'pandas', 'pyarrow', 'sklearn', 'matplotlib'} & set(sys.modules)"
    code = f"import sys, widelimit.cli.app; print(sorted({heavy}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_wrong_limits_and_memory_are_told_apart(monkeypatch, capsys):
    def command(error, *, as_json=False):
        raise error

    run = sentences(command)
    for error, code in ((Failure("No.", 2), 2), (MemoryError(), 1), (RuntimeError("x"), 1),
                        (RuntimeError("RESOURCE_EXHAUSTED: 9 GB"), 1)):  # fmt: skip
        with pytest.raises(typer.Exit) as end:
            run(error, as_json=True)
        assert end.value.exit_code == code
        out, err = capsys.readouterr()
        assert json.loads(out)["code"] == code
        assert json.loads(out)["error"] in err
        memory = isinstance(error, MemoryError) or "RESOURCE" in str(error)
        assert ("not enough memory" in out) == memory


def test_json_has_no_infinities(capsys):
    print_json({"a": [float("nan"), 1.5], "b": (float("inf"),), "ü": "é"})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5], "b": [None], "ü": "é"}


def test_double_precision_is_temporary():
    before = jax.config.jax_enable_x64
    try:
        jax.config.update("jax_enable_x64", False)
        with double_precision():
            assert jnp.ones(2).dtype == jnp.float64
        assert jnp.ones(2).dtype == jnp.float32
    finally:
        jax.config.update("jax_enable_x64", before)
