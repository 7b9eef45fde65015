"""Removes dead rows and renews statistics, table by table, and not where it would not help."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.upkeep.maintenance.own_session import OwnSession
from lakebase_provider.core.upkeep.maintenance.tended_tables import (
    TendedTable,
    all_tables,
    held_back,
    named_tables,
    with_partitions,
)

#: Below so many dead rows, which is autovacuum's own bound, the share of them says nothing.
LEAST_DEAD = 50


def vacuum(
    session: OwnSession,
    tables: Sequence[TableName] | None,
    *,
    dead_share: float | None,
    analyze: bool,
    long_transaction: float,
) -> None:
    """Vacuum tables; see ``client.maintenance.vacuum``.

    Args:
        session: The session.
        tables: The tables; None for all.
        dead_share: The least share of dead rows; None for any.
        analyze: Whether to renew statistics, too.
        long_transaction: Seconds from which on a transaction keeps a table from being vacuumed.
    """
    for table in _wanted(session, tables, dead_share):
        if table.kind == "p" and not analyze:
            continue
        reason = table.obstacle_to_vacuum
        if reason is None and table.kind != "p":
            held = held_back(session, long_transaction)
            reason = held and f"its dead rows could not be removed: {held}"
        if reason is not None:
            session.skip(str(table.name), reason)
            continue
        with session.going_on(), session.alone_with(str(table.name)):
            if table.kind == "p":
                # It has no rows of its own; autovacuum never renews its statistics.
                _analyze(session, table)
            else:
                _vacuum(session, table, analyze)


def analyze(session: OwnSession, tables: Sequence[TableName] | None) -> None:
    """Renew statistics; see ``client.maintenance.analyze``."""
    found = all_tables(session) if tables is None else named_tables(session, tables)
    for table in found:
        if table.obstacle_to_vacuum is not None:
            if tables is not None or table.is_synced:
                session.skip(str(table.name), table.obstacle_to_vacuum)
            continue
        with session.going_on(), session.alone_with(str(table.name)):
            _analyze(session, table)


def _wanted(
    session: OwnSession, tables: Sequence[TableName] | None, dead_share: float | None
) -> list[TendedTable]:
    if tables is None:
        found = [table for table in all_tables(session) if table.kind != "p"]
    else:
        trees = [with_partitions(session, table) for table in named_tables(session, tables)]
        # The partitions first: the table's own statistics are of all their rows.
        found = sorted(
            dict.fromkeys(table for tree in trees for table in tree), key=lambda one: one.kind == "p"
        )
    if dead_share is None:
        return found
    return [table for table in found if table.dead >= LEAST_DEAD and table.dead_share >= dead_share]


def _vacuum(session: OwnSession, table: TendedTable, analyze: bool) -> None:
    options = "(ANALYZE) " if analyze else ""
    statement = sql.SQL("VACUUM {}{}").format(sql.SQL(options), table.name.sql())
    seconds = session.run(f"Vacuuming {table.name}", statement)
    what = "vacuumed and analyzed" if analyze else "vacuumed"
    session.did(
        str(table.name), f"{what} ({table.dead} dead rows of about {table.live + table.dead})", seconds
    )


def _analyze(session: OwnSession, table: TendedTable) -> None:
    # Without ONLY the partitions would be read once more.
    only = table.kind == "p" and session.connection.info.server_version >= 180000
    statement = sql.SQL("ANALYZE {}{}").format(sql.SQL("ONLY " if only else ""), table.name.sql())
    seconds = session.run(f"Analyzing {table.name}", statement)
    session.did(str(table.name), "analyzed", seconds)
