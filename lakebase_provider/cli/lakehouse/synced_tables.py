"""Synced tables that the environment leads to: ``lakebase synced-tables``."""

from __future__ import annotations

import argparse
from typing import Any

from lakebase_provider.cli import objects
from lakebase_provider.cli.objects import action, connected
from lakebase_provider.core.errors import ConfigError

_TABLE = "name in the Unity Catalog, <catalog>.<schema>.<table>"


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to `lakebase`."""
    group = commands.add_parser("synced-tables", help="list, show, sync and delete synced tables")
    actions = group.add_subparsers(required=True, metavar="ACTION")

    action(actions, "list", "list those of a Provisioned instance; Autoscaling's API lists none", _list)

    show = action(actions, "get", "show one", _get)
    show.add_argument("table", help=_TABLE)

    sync = action(actions, "sync", "copy what has changed, and wait until it is there", _sync, timeout="30m")
    sync.add_argument("table", help=_TABLE)
    sync.add_argument(
        "--version", type=int, metavar="N", help="of the source, whose rows must be there; default: all"
    )
    sync.add_argument("--full-refresh", action="store_true", help="copy all rows anew")

    delete = action(actions, "delete", "delete one; its table in Postgres stays", _delete)
    delete.add_argument("table", help=_TABLE)
    delete.add_argument("--missing-ok", action="store_true", help="succeed if there is none")


def _list(options: argparse.Namespace) -> int:
    with connected("full_refresh") as client:
        tables: Any = client.workspace.synced_tables
        if not client.config.instance:
            raise ConfigError(
                "Autoscaling's API lists no synced tables.",
                remedy="Name one with `lakebase synced-tables get`, or set LAKEBASE_INSTANCE.",
            )
        return objects._show(options, "synced-tables", tables.list())


def _get(options: argparse.Namespace) -> int:
    with connected("full_refresh") as client:
        return objects._show(options, "synced-tables", client.workspace.synced_tables.get(options.table))


def _sync(options: argparse.Namespace) -> int:
    with connected("full_refresh") as client:
        done = client.workspace.synced_tables.refresh(
            options.table,
            version=options.version,
            full_refresh=options.full_refresh,
            timeout=options.timeout,
        )
    return objects._show(options, "synced-tables", done.table)


def _delete(options: argparse.Namespace) -> int:
    with connected("full_refresh") as client:
        tables = client.workspace.synced_tables
        tables.delete(options.table, missing_ok=options.missing_ok, timeout=options.timeout)
        return objects._gone(options, tables.full_name(options.table))
