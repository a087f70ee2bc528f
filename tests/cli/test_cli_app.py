"""Options common to all commands, exit codes, and double precision for a while."""

import jax
import jax.numpy as jnp
from typer.testing import CliRunner

from widelimit.cli import main
from widelimit.cli.app import app
from widelimit.cli.exits import installed_version
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


def test_double_precision_is_temporary():
    before = jax.config.jax_enable_x64
    try:
        jax.config.update("jax_enable_x64", False)
        with double_precision():
            assert jnp.ones(2).dtype == jnp.float64
        assert jnp.ones(2).dtype == jnp.float32
    finally:
        jax.config.update("jax_enable_x64", before)
