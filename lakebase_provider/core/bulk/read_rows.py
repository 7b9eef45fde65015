"""From a query to tuples, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import tuple_row

from lakebase_provider.core.bulk.query import Parameters

if TYPE_CHECKING:
    from psycopg.abc import Query

#: Rows that are fetched at once.
_ROWS = 2000


def read_rows(
    connection: psycopg.Connection[Any], query: Query, params: Parameters = None
) -> Iterator[tuple[Any, ...]]:
    """Run a query and give its rows as tuples of psycopg's values, in constant memory.

    Args:
        connection: In whose transaction the query runs; not in autocommit mode.
        query: A query that a cursor can be declared for: SELECT or VALUES.
        params: Its parameters.

    Raises:
        psycopg.Error: The server refuses the query.
    """
    name = "lakebase_rows"
    with psycopg.ServerCursor(connection, name, row_factory=tuple_row) as cursor:
        cursor.execute(query, params)
        while rows := cursor.fetchmany(_ROWS):
            yield from rows
