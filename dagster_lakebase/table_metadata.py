"""What Dagster shows of a table, from the catalog."""

from __future__ import annotations

from typing import Any

import dagster as dg
import psycopg
from psycopg import sql

from lakebase_provider.core.bulk.table import Table

#: Tables that the catalog estimates to be larger are not counted: it would cost more than the load.
COUNTED_ROWS = 1_000_000

_COMMENTS = """
SELECT a.attname, pg_catalog.col_description(a.attrelid, a.attnum)
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
    AND pg_catalog.col_description(a.attrelid, a.attnum) IS NOT NULL
"""


def column_schema(connection: psycopg.Connection[Any], table: Table) -> dg.TableSchema:
    """The columns with their types, constraints and comments, as the catalog has them."""
    comments: dict[str, str] = dict(connection.execute(_COMMENTS, [table.oid]).fetchall())
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=column.type_name,
                description=comments.get(column.name),
                constraints=dg.TableColumnConstraints(
                    nullable=not column.not_null, unique=table.primary_key == (column.name,)
                ),
            )
            for column in table.columns
        ]
    )


def count_rows(
    connection: psycopg.Connection[Any], table: Table, condition: sql.Composable | None = None
) -> int:
    """Rows for which the condition holds, or all."""
    query = sql.SQL("SELECT count(*) FROM {}").format(table.name.sql())
    if condition is not None:
        query = sql.SQL("{} WHERE {}").format(query, condition)
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def is_small(connection: psycopg.Connection[Any], table: Table) -> bool:
    """Whether the catalog's estimate, which may be old, is below :data:`COUNTED_ROWS`."""
    row = connection.execute(
        "SELECT reltuples FROM pg_catalog.pg_class WHERE oid = %s", [table.oid]
    ).fetchone()
    return row is not None and row[0] < COUNTED_ROWS
