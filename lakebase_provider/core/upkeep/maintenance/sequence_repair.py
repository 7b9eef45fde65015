"""Moves sequences on that are behind the rows of their tables, as after a load with values of its own."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from lakebase_provider.core.database.catalog import Table, TableName, read_table
from lakebase_provider.core.database.rows.owned_sequences import MovedSequence, move_on
from lakebase_provider.core.upkeep.maintenance.own_session import OwnSession
from lakebase_provider.core.upkeep.maintenance.tended_tables import TendedTable, all_tables, named_tables


def repair(session: OwnSession, tables: Sequence[TableName] | None) -> None:
    """Move sequences on; see ``client.maintenance.repair_sequences``."""
    found = all_tables(session) if tables is None else named_tables(session, tables)
    for table in found:
        if table.obstacle is not None or table.kind == "m":
            if tables is not None:
                session.skip(str(table.name), table.obstacle or "it is a materialized view")
            continue
        with session.going_on():
            _repair(session, table)


def _repair(session: OwnSession, table: TendedTable) -> None:
    columns = read_table(session.connection, table.name)
    what = f"Moving the sequences of {table.name} on"
    moved, seconds = session.transaction(what, lambda: _moved(session, columns))
    for one in moved:
        session.did(one.name, f"its next value is {one.after} now, and was {one.before}", seconds)


def _moved(session: OwnSession, table: Table) -> tuple[MovedSequence, ...]:
    def furthest(column: str, which: str) -> sql.Composed:
        return sql.SQL("SELECT {}({}) FROM {}").format(
            sql.SQL(which), sql.Identifier(column), table.name.sql()
        )

    names = tuple(column.name for column in table.columns)
    return move_on(session.connection, table, names, furthest, dry_run=False)
