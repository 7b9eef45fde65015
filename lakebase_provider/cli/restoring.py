"""Moments to come back to: ``lakebase restore-point`` and ``lakebase restore-rows``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lakebase_provider.cli.objects import action, add_lock_limits, connected
from lakebase_provider.core.errors import ConfigError

#: What remedies call by its name in Python, and commands by another.
_NOT_IN_A_SHELL = ("dry_run",)


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to `lakebase`."""
    action(commands, "restore-point", "print the moment that the branch has reached, to come back to", _note)

    about = "put rows of a table back from an earlier moment; without --run say what would be"
    rows = action(commands, "restore-rows", about, _restore, timeout="1h")
    rows.add_argument("table", help="such as orders or sales.orders")
    rows.add_argument(
        "--at",
        required=True,
        metavar="POINT",
        help="what restore-point printed, a time such as 2027-01-31T12:00:00Z, or a position in the log",
    )
    rows.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="COLUMN",
        help="by which rows are the same ones; may be repeated; default: the primary key",
    )
    rows.add_argument("--where", metavar="SQL", help="condition of the rows; default: all")
    rows.add_argument("--run", dest="dry_run", action="store_false", help="put them back")
    rows.add_argument("--overwrite", action="store_true", help="also rows that have changed since")
    rows.add_argument(
        "--examples", type=int, default=5, metavar="N", help="how many rows of each kind are shown; 5"
    )
    add_lock_limits(rows)


def _note(options: argparse.Namespace) -> int:
    with connected() as client:
        point = client.restore_point(options.timeout)
    # One form for people and programs: it is to be given to the other command.
    print(json.dumps(point.to_dict()))
    return 0


def _restore(options: argparse.Namespace) -> int:
    with connected(*_NOT_IN_A_SHELL) as client:
        report = client.restore_rows(
            options.table,
            _point(options.at),
            keys=options.key,
            where=options.where,
            dry_run=options.dry_run,
            overwrite=options.overwrite,
            examples=options.examples,
            lock_timeout=options.lock_timeout,
            attempts=options.attempts,
            timeout=options.timeout,
        )
    print(json.dumps(report.to_dict(), indent=2) if options.json else report.to_markdown())
    return 0


def _point(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise ConfigError("--at is no JSON.", remedy="Give what restore-point printed.") from None
