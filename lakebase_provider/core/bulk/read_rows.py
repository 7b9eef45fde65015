"""From a query to tuples, a few thousand at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from lakebase_provider.core.bulk.binary_copy import row_batches, split
from lakebase_provider.core.bulk.copy_out import copy_out
from lakebase_provider.core.bulk.query import (
    Parameters,
    copy_statement,
    description,
    is_plain_query,
    query_text,
)
from lakebase_provider.core.bulk.row_columns import RowColumn, row_columns
from lakebase_provider.core.bulk.row_values import read_column
from lakebase_provider.core.errors import LoadError

if TYPE_CHECKING:
    from psycopg.abc import Query

logger = logging.getLogger(__name__)

#: Rows that are read at once.
_ROWS = 4096


def read_rows(
    connection: psycopg.Connection[Any], query: Query, params: Parameters = None
) -> Iterator[tuple[Any, ...]]:
    """Run a query and give its rows as tuples of the values that psycopg's cursor gives, in constant memory.

    The connection is busy until the last row, or until the iterator is closed. A query that is closed before
    is cancelled, after which the transaction can only be rolled back.

    Args:
        connection: In whose transaction the query runs. Its loaders make the values.
        query: A SELECT, VALUES, TABLE or WITH streams: through binary COPY where numpy is installed, which
            decodes it, and else through a server-side cursor, which takes a transaction. Any other statement
            that returns rows is run by a cursor, and libpq holds its result.
        params: Its parameters, by position or by name.

    Raises:
        LoadError: The statement returns no rows.
        LoadInterruptedError: The connection was lost while the rows came.
        psycopg.Error: The server refuses the query, or cancels it; psycopg cannot read a value.
    """
    if not isinstance(query, (str, bytes, sql.Composable)):
        # A template string, whose parameters only psycopg's cursors take.
        yield from _by_server_cursor(connection, query, params)
        return
    text = query_text(connection, query, params)
    if not is_plain_query(text):
        logger.debug("Reading by a cursor: no plain query, COPY takes none other")
        yield from _by_cursor(connection, query, params)
    elif _has_numpy():
        yield from _by_copy(connection, text)
    else:
        logger.debug("Reading by a server-side cursor: numpy is not installed")
        yield from _by_server_cursor(connection, query, params)


def _by_copy(connection: psycopg.Connection[Any], text: bytes) -> Iterator[tuple[Any, ...]]:
    columns = row_columns(connection, description(connection, text))
    with copy_out(connection, copy_statement(connection, text, [column.cast for column in columns])) as copy:
        for data, sizes in row_batches(copy, _ROWS):
            yield from _rows(data, sizes, columns)


def _rows(data: bytearray, sizes: Sequence[int], columns: Sequence[RowColumn]) -> Iterable[tuple[Any, ...]]:
    """The rows of a batch."""
    raw = bytes(data)
    found = [
        read_column(column.read, fields, raw)
        for fields, column in zip(split(data, sizes, len(columns)), columns, strict=True)
    ]
    return zip(*found, strict=True) if columns else [()] * len(sizes)


def _by_server_cursor(
    connection: psycopg.Connection[Any], query: Query, params: Parameters
) -> Iterator[tuple[Any, ...]]:
    with psycopg.ServerCursor(connection, "lakebase_rows", row_factory=tuple_row) as cursor:
        cursor.execute(query, params)
        while rows := cursor.fetchmany(_ROWS):
            yield from rows


def _by_cursor(
    connection: psycopg.Connection[Any], query: Query, params: Parameters
) -> Iterator[tuple[Any, ...]]:
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(query, params)  # type: ignore[arg-type] # a Template is typed apart, and works
        if cursor.description is None:
            raise LoadError("The statement returns no rows.", remedy="Use execute for it.")
        while rows := cursor.fetchmany(_ROWS):
            yield from rows


def _has_numpy() -> bool:
    try:
        import numpy  # noqa: F401 - decoding takes it; where it is not, that is no error
    except ImportError:
        return False
    return True
