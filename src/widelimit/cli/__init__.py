"""The ``widelimit`` command."""

from widelimit.cli.app import main as main
