"""A change that is tried on a branch first: ``lakebase rehearse``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lakebase_provider.cli.database import write_page
from lakebase_provider.cli.objects import action, add_lock_limits, connected, seconds
from lakebase_provider.core.base.files.plain_files import open_to_read
from lakebase_provider.core.errors import ConfigError, RehearsalError

if TYPE_CHECKING:
    from lakebase_provider.core import RehearsalReport
    from lakebase_provider.core.upkeep.branches.lease_options import LeaseOptions


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to `lakebase`."""
    about = "try a change on a branch that is purged afterwards; 1 if it or a check failed"
    parser = action(commands, "rehearse", about, _rehearse, timeout="1h")
    parser.add_argument("work", help="a file of SQL, a folder of migrations, or - for standard input")
    parser.add_argument(
        "--check",
        action="append",
        default=[],
        metavar="SQL",
        help="a query whose values must be true afterwards; may be repeated",
    )
    parser.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="TABLE[:COLUMNS]",
        help="compare its rows by its primary key, or by columns with commas between; may be repeated",
    )
    parser.add_argument(
        "--then", choices=("stop", "run"), default="stop", help="run it here if all went well; default: stop"
    )
    parser.add_argument(
        "--approved", metavar="CHECKSUM", help="of an earlier report: run nothing but the same statements"
    )
    parser.add_argument(
        "--examples", type=int, default=5, metavar="N", help="how many rows of each kind are shown; 5"
    )
    parser.add_argument(
        "--run-id", metavar="ID", help="of the run whose branch it is, which a retry replaces"
    )
    parser.add_argument("--html", metavar="FILE", help="also write the report as a page for a browser")
    add_lock_limits(parser)
    parser.add_argument(
        "--statement-timeout", type=seconds, metavar="DURATION", help="how long a statement may take"
    )
    parser.add_argument(
        "--max-cu", type=float, metavar="CU", help="size of the branch's endpoint in capacity units; 0.5"
    )


def _rehearse(options: argparse.Namespace) -> int:
    lease: LeaseOptions = {}
    if options.max_cu is not None:
        lease = {"min_cu": options.max_cu, "max_cu": options.max_cu}
    with connected() as client:
        try:
            report = client.rehearse(
                _work(options.work),
                checks=options.check,
                tables=dict(map(_table, options.table)),
                then=options.then,
                approved=options.approved,
                examples=options.examples,
                run_id=options.run_id,
                lock_timeout=options.lock_timeout,
                statement_timeout=options.statement_timeout,
                attempts=options.attempts,
                timeout=options.timeout,
                lease=lease,
            )
        except RehearsalError as error:
            if error.report is not None:
                _show(options, error.report)
            raise
    _show(options, report)
    return 0 if report.ok else 1


def _work(given: str) -> str | Path:
    if given == "-":
        return sys.stdin.read()
    path = Path(given)
    if path.is_dir():
        return path
    try:
        with open_to_read(path, "the file of SQL") as file:
            return file.read().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{given!r} cannot be read: {error}.", remedy="Give a file of SQL, a folder of migrations, or -."
        ) from error


def _table(given: str) -> tuple[str, list[str] | None]:
    name, _, columns = given.partition(":")
    return name, columns.split(",") if columns else None


def _show(options: argparse.Namespace, report: RehearsalReport) -> None:
    if options.html is not None:
        write_page(options.html, report.to_html())
    print(json.dumps(report.to_dict(), indent=2) if options.json else report.to_markdown())
