"""When tables were last written, as far as Postgres can tell."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timezone
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.config import arguments
from lakebase_provider.core.database.catalog import read_table
from lakebase_provider.core.errors import ConfigError, TableNotFoundError

_COMMIT_TIME = sql.SQL("SELECT max(pg_catalog.pg_xact_commit_timestamp(xmin)) FROM {table}")
_NEWEST = sql.SQL("SELECT max({column}) FROM {table}")


def last_updated(
    connection: psycopg.Connection[Any],
    tables: Sequence[str],
    *,
    schema: str = "public",
    timestamp_column: str | None = None,
    ignore_missing_tables: bool = False,
) -> dict[str, datetime | None]:
    """When each table was last written.

    The catalog has no such time. It is read from a column that every write sets, with one index look-up if it
    is indexed. Without a column, it is the newest row's commit time, if the server keeps these times
    (``track_commit_timestamp``): this reads the whole table, does not see deletions, and forgets what is
    older than the server's horizon.

    Args:
        connection: Reads only.
        tables: Names, without the schema.
        schema: The tables' schema.
        timestamp_column: A column that holds the time of each row's last write. Times without a zone are
            taken as UTC, dates as their midnight in UTC.
        ignore_missing_tables: Leave out tables that do not exist.

    Returns:
        By table, the time in UTC; None for a table without rows or without a known time.

    Raises:
        ConfigError: No column is given and the server keeps no commit times; or the column holds no time.
        TableNotFoundError: A table does not exist.
    """
    if timestamp_column is None:
        _require_commit_times(connection)
    found: dict[str, datetime | None] = {}
    for name in tables:
        try:
            table = read_table(connection, (schema, name)).name.sql()
        except TableNotFoundError:
            if ignore_missing_tables:
                continue
            raise
        if timestamp_column is None:
            query = _COMMIT_TIME.format(table=table)
        else:
            query = _NEWEST.format(table=table, column=sql.Identifier(timestamp_column))
        row = connection.execute(query).fetchone()
        found[name] = _utc(row[0] if row else None, name, timestamp_column)
    return found


def _require_commit_times(connection: psycopg.Connection[Any]) -> None:
    row = connection.execute("SHOW track_commit_timestamp").fetchone()
    if row is None or row[0] != "on":
        raise ConfigError(
            "This server does not record when transactions were committed (track_commit_timestamp is off), "
            "so it cannot tell when a table was last written.",
            remedy="Set timestamp_column to a column that every write updates.",
        )


def _utc(value: object, table: str, column: str | None) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
        return arguments.in_utc(
            f'timestamp_column: a time in column "{column}" of table "{table}"', aware, "Correct that row."
        )
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=timezone.utc)
    raise ConfigError(
        f'timestamp_column: column "{column}" of table "{table}" holds {type(value).__name__}, not a time.',
        remedy="Name a column of type timestamptz, timestamp or date.",
    )
