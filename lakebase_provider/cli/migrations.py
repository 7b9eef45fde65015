"""Migrations of the database that the environment names: ``lakebase migrate``."""

from __future__ import annotations

import argparse
import json
import logging
from typing import TYPE_CHECKING

from lakebase_provider.cli.objects import action, add_lock_limits, connected, seconds

if TYPE_CHECKING:
    from lakebase_provider.core import MigrationReport

#: What remedies call by its name in Python, and commands by another.
_NOT_IN_A_SHELL = ("out_of_order",)


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to `lakebase`."""
    group = commands.add_parser("migrate", help="run files of SQL, each once, and compare databases")
    actions = group.add_subparsers(required=True, metavar="ACTION")

    run = action(actions, "run", "run the files of a folder that have not run yet", _run, timeout="1h")
    status = action(actions, "status", "compare a folder with the ledger; 1 if it needs attention", _status)
    for parser in (run, status):
        parser.add_argument("folder", help="with files such as 0001_orders.sql or V1__orders.sql")
        parser.add_argument(
            "--ledger", metavar="TABLE", help="the ledger; default: public.lakebase_migration"
        )
    run.add_argument("--target", metavar="VERSION", help="the last file to run; default: all")
    run.add_argument("--dry-run", action="store_true", help="change nothing, and say what is pending")
    add_lock_limits(run)
    run.add_argument(
        "--statement-timeout", type=seconds, metavar="DURATION", help="how long a statement may take"
    )
    run.add_argument(
        "--baseline", metavar="VERSION", help="enter the files up to this one as done, without running them"
    )
    run.add_argument(
        "--out-of-order", action="store_true", help="also run files that come before one that has run"
    )
    run.add_argument(
        "--rehearse", action="store_true", help="on a branch first, and here only if that went well"
    )
    run.add_argument("--lint", action="store_true", help="run nothing if squawk finds anything")

    diff = action(actions, "diff", "compare what is defined on a branch with another one", _diff)
    diff.add_argument("branch", help="the later one: its name, or its id in the environment's project")
    diff.add_argument("--from", dest="before", metavar="BRANCH", help="default: the environment's")


def _run(options: argparse.Namespace) -> int:
    if not options.json:
        # What it does is of interest while it does it.
        logging.getLogger("lakebase_provider.core.upkeep.migrations").setLevel(logging.INFO)
    given = {} if options.ledger is None else {"ledger": options.ledger}
    with connected(*_NOT_IN_A_SHELL) as client:
        report = client.migrations.run(
            options.folder,
            target=options.target,
            lock_timeout=options.lock_timeout,
            statement_timeout=options.statement_timeout,
            attempts=options.attempts,
            dry_run=options.dry_run,
            baseline=options.baseline,
            out_of_order=options.out_of_order,
            lint=options.lint,
            rehearse=options.rehearse,
            timeout=options.timeout,
            **given,
        )
    if report.rehearsal is not None and not options.json:
        print(report.rehearsal.to_markdown())
    _show(options, report)
    return 1 if report.findings else 0


def _status(options: argparse.Namespace) -> int:
    given = {} if options.ledger is None else {"ledger": options.ledger}
    with connected(*_NOT_IN_A_SHELL) as client:
        report = client.migrations.status(options.folder, timeout=options.timeout, **given)
    _show(options, report)
    return 1 if report.refused or report.of_state("part") else 0


def _diff(options: argparse.Namespace) -> int:
    from lakebase_provider.core import LakebaseClient

    with connected() as client, LakebaseClient(client.config.on_branch(options.branch)) as later:
        after = later.migrations.dump(timeout=options.timeout)
        if options.before is None:
            before = client.migrations.dump(timeout=options.timeout)
        else:
            with LakebaseClient(client.config.on_branch(options.before)) as earlier:
                before = earlier.migrations.dump(timeout=options.timeout)
        difference = client.migrations.diff(before, after)
    print(json.dumps(difference.to_dict(), indent=2) if options.json else difference.to_markdown(), end="")
    if options.json:
        print()
    return 0


def _show(options: argparse.Namespace, report: MigrationReport) -> None:
    print(json.dumps(report.to_dict(), indent=2) if options.json else report.to_text())
