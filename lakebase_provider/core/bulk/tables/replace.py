"""Replace: readers see the old rows or the new ones, never neither."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import Table


def delete_rows(connection: psycopg.Connection[Any], table: Table, where: sql.Composable | None) -> int:
    """Delete the rows of a slice, or all; other sessions see them until the transaction commits.

    Args:
        connection: The connection whose transaction it becomes part of.
        table: The table.
        where: The slice; None for the whole table.

    Returns:
        How many rows were deleted.
    """
    query = sql.SQL("DELETE FROM {}").format(table.name.sql())
    if where is not None:
        query = sql.SQL("{} WHERE {}").format(query, where)
    return plain_cursor(connection).execute(query).rowcount
