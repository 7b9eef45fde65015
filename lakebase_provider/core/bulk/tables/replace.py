"""Replace: readers see the old rows or the new ones, never neither."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import Table, lock


def lock_rows(connection: psycopg.Connection[Any], table: Table, where: sql.Composable | None) -> None:
    """Wait until no other load replaces the rows of the same slice, or all; they wait until this one ends."""
    shown = "" if where is None else where.as_string(connection)
    lock(connection, f"rows {table.name} {shown}")


def delete_rows(connection: psycopg.Connection[Any], table: Table, where: sql.Composable | None) -> int:
    """Delete the rows of a slice, or all; other sessions see them until the transaction commits.

    Who replaces the same slice waits. Else two loads of it would each delete what was there before, and both
    leave their rows.

    Args:
        connection: The connection whose transaction it becomes part of.
        table: The table.
        where: The slice; None for the whole table.

    Returns:
        How many rows were deleted.
    """
    lock_rows(connection, table, where)
    # Not TRUNCATE, which would make readers wait, and would let a snapshot taken before see no rows.
    query = sql.SQL("DELETE FROM {}").format(table.name.sql())
    if where is not None:
        query = sql.SQL("{} WHERE {}").format(query, where)
    return plain_cursor(connection).execute(query).rowcount
