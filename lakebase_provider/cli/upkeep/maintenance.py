"""Maintenance of the database that the environment names: ``lakebase maintain``."""

from __future__ import annotations

import argparse
import json
import logging
from typing import TYPE_CHECKING, Any

from lakebase_provider.cli.objects import action, add_lock_limits, connected, seconds
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.maintenance.maintenance_options import ACTIONS, PATIENCE

if TYPE_CHECKING:
    from lakebase_provider.core.upkeep.maintenance.maintenance_report import MaintenanceReport

_Actions = argparse._SubParsersAction
_TABLES = "such as sales.orders"
_CONCURRENTLY = {"auto": "auto", "yes": True, "no": False}


def add_parsers(commands: _Actions[argparse.ArgumentParser]) -> None:
    """Add the commands to `lakebase`."""
    group = commands.add_parser("maintain", help="look after tables in use, since Lakebase has no pg_cron")
    actions = group.add_subparsers(required=True, metavar="ACTION")
    _add_rows(actions)
    _add_indexes(actions)
    _add_partitions(actions)

    repair = _kind(actions, "sequences", "repair_sequences", "move on sequences that are behind the rows")
    repair.add_argument(
        "tables", nargs="*", metavar="TABLE", help=f"{_TABLES}; default: all that the role owns"
    )

    digest = _kind(actions, "digest", "digest_statements", "keep what pg_stat_statements knows in a table")
    digest.add_argument("--into", metavar="TABLE", help="default: public.lakebase_statements")
    digest.add_argument("--top", type=int, metavar="N", help="how many statements are kept; 500")
    kept = digest.add_mutually_exclusive_group()
    kept.add_argument("--keep-days", type=int, metavar="N", help="days until earlier digests are removed; 90")
    kept.add_argument("--keep-all", action="store_true", help="remove none")


def _kind(
    actions: _Actions[argparse.ArgumentParser], name: str, method: str, about: str
) -> argparse.ArgumentParser:
    """Add a kind of maintenance, with the options that all have."""
    parser = action(actions, name, about, _maintain, timeout="1h")
    add_lock_limits(parser)
    parser.set_defaults(work=method)
    return parser


def _add_rows(actions: _Actions[argparse.ArgumentParser]) -> None:
    vacuum = _kind(actions, "vacuum", "vacuum", "remove dead rows, and renew statistics")
    vacuum.add_argument(
        "tables", nargs="*", metavar="TABLE", help=f"{_TABLES}; default: all that the role may"
    )
    vacuum.add_argument(
        "--dead-share",
        type=float,
        metavar="SHARE",
        help="of dead rows from which on; default: any of tables that are named, else 0.1",
    )
    vacuum.add_argument(
        "--no-analyze", dest="analyze", action="store_false", help="leave the statistics as they are"
    )
    vacuum.add_argument(
        "--long-transaction", type=seconds, metavar="DURATION", help="from which on one counts as long; 5m"
    )
    analyze = _kind(actions, "analyze", "analyze", "renew the statistics by which queries are planned")
    analyze.add_argument(
        "tables", nargs="*", metavar="TABLE", help=f"{_TABLES}; default: all that the role may"
    )
    refresh = _kind(actions, "refresh", "refresh", "refresh materialized views, in their order")
    refresh.add_argument("views", nargs="+", metavar="VIEW", help="such as sales.by_day")
    refresh.add_argument(
        "--concurrently",
        choices=tuple(_CONCURRENTLY),
        help="whether readers go on; default: auto, where that is possible",
    )


def _add_indexes(actions: _Actions[argparse.ArgumentParser]) -> None:
    create = _kind(actions, "create-index", "create_index", "have an index, built while others write")
    create.add_argument("table", help=_TABLES)
    create.add_argument("columns", nargs="*", metavar="COLUMN", help="its columns, in order; or else --on")
    create.add_argument(
        "--on", metavar="SQL", help="all that stands in the parentheses, such as lower(email)"
    )
    create.add_argument("--name", help="without a schema; default: by the table and the columns")
    create.add_argument("--unique", action="store_true", help="it refuses a second row of the same")
    create.add_argument("--method", help="such as gin or hnsw; default: btree")
    create.add_argument(
        "--include", action="append", metavar="COLUMN", help="it holds this one besides; may be repeated"
    )
    create.add_argument("--where", metavar="SQL", help="condition of the rows that it holds; default: all")

    rebuild = _kind(actions, "reindex", "reindex", "rebuild a table's indexes, or one, while others write")
    rebuild.add_argument("table", nargs="?", help=f"{_TABLES}; or else --index")
    rebuild.add_argument("--index", help="such as sales.orders_day_idx")

    drop = _kind(actions, "drop-index", "drop_index", "drop an index while others write, if it is there")
    drop.add_argument("index", help="such as sales.orders_day_idx")


def _add_partitions(actions: _Actions[argparse.ArgumentParser]) -> None:
    parser = _kind(actions, "partitions", "partitions", "make partitions of time, and retire old ones")
    parser.add_argument("table", help="partitioned by range of time")
    parser.add_argument(
        "--every", required=True, choices=("month", "week", "day"), help="how much time one holds"
    )
    parser.add_argument("--premake", type=int, metavar="N", help="how many beyond that of now; 3")
    parser.add_argument(
        "--keep", type=int, metavar="N", help="whole periods before that of now; default: all"
    )
    parser.add_argument(
        "--archive",
        metavar="FILE",
        help="where rows go before a partition is dropped, such as /lake/{partition}.parquet",
    )
    parser.add_argument("--at", metavar="TIME", help="what counts as now, such as 2027-01-31T12:00:00Z")


def _maintain(options: argparse.Namespace) -> int:
    if not options.json:
        # What it does is of interest while it does it.
        logging.getLogger("lakebase_provider.core.upkeep.maintenance").setLevel(logging.INFO)
    with connected() as client:
        work = getattr(client.maintenance, options.work)
        _show(options, work(**_given(options)))
    return 0


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of the method: what is not given is left to it."""
    given = dict(vars(options))
    if options.work == "create_index":
        given["on"] = _declared(options)
    if given.get("concurrently") is not None:
        given["concurrently"] = _CONCURRENTLY[given["concurrently"]]
    known = (*ACTIONS[options.work], *PATIENCE)
    found = {name: given[name] for name in known if given.get(name) not in (None, [])}
    return {**found, "keep_days": None} if given.get("keep_all") else found


def _declared(options: argparse.Namespace) -> str | list[str]:
    if bool(options.columns) == (options.on is not None):
        raise ConfigError(
            "An index is on columns, or on what --on says.", remedy="Give either columns or --on, as SQL."
        )
    columns: list[str] = options.columns
    return columns or str(options.on)


def _show(options: argparse.Namespace, report: MaintenanceReport) -> None:
    print(json.dumps(report.to_dict(), indent=2) if options.json else report.to_markdown(), end="")
    if options.json:
        print()
