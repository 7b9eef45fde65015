"""Many small statements in psycopg's pipeline mode: one round trip for many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

import psycopg
from psycopg.abc import Query

from lakebase_provider.core.bulk.load.plan import LOAD_OPTIONS
from lakebase_provider.core.bulk.sources.seen import read_once
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.connect.parameters.adaptation import register
from lakebase_provider.core.database.refusals import typed_errors
from lakebase_provider.core.errors.remedy import without_options


def executemany_pipeline(
    connection: psycopg.Connection[Any],
    query: Query,
    rows: Iterable[Sequence[Any] | Mapping[str, Any]],
) -> int:
    """Run one statement for each row of parameters, in the connection's transaction.

    Args:
        connection: The connection whose transaction it becomes part of.
        query: The statement.
        rows: Its parameters, row by row.

    Returns:
        How many rows the server changed in all.

    Raises:
        ConfigError: An earlier attempt consumed `rows`, which can be read only once.
        LoadError: A statement failed; the transaction must be rolled back.
    """
    items, reading = read_once(rows)
    with (
        closing(reading),
        without_options(*LOAD_OPTIONS),
        typed_errors("Statements in a pipeline"),
        plain_cursor(connection) as cursor,
    ):
        register(cursor)  # the connection may be the caller's own
        # psycopg's executemany makes the server prepare the statement, and queues without waiting.
        cursor.executemany(query, items)
        return cursor.rowcount
