"""A Lakebase on this machine: ``lakebase local``, where it is installed."""

from __future__ import annotations

import argparse

from lakebase_provider.core.errors import ConfigError


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to `lakebase`, or one that says what is missing."""
    try:
        from lakebase_provider.local.parent import commands as installed
    except ImportError:
        missing = commands.add_parser(
            "local", help="a Lakebase on this machine (needs lakebase-provider[local])"
        )
        missing.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
        missing.set_defaults(run=_missing)
    else:
        installed.add_parsers(commands)


def _missing(_options: argparse.Namespace) -> int:
    raise ConfigError(
        "The local Lakebase is not installed.", remedy="pip install 'lakebase-provider[local]'."
    )
