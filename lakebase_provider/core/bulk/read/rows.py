"""From a query to tuples, a few thousand at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import capabilities
from psycopg.adapt import AdaptersMap, Buffer
from psycopg.pq import Format
from psycopg.types.json import JsonbLoader, JsonLoader

from lakebase_provider.core.bulk.read.statement import Parameters
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.refusals import interrupted_reads, readable
from lakebase_provider.core.errors import LoadError

if TYPE_CHECKING:
    from psycopg.abc import Query

#: Rows that libpq holds at once. It could hold all of them, or one, before its version 17.
_ROWS = 4096
_DECODER = json.JSONDecoder()


def read_rows(
    connection: psycopg.Connection[Any], query: Query, params: Parameters = None
) -> Iterator[tuple[Any, ...]]:
    """Run a statement and give its rows as tuples of psycopg's values as they come, in constant memory.

    The connection can do nothing else until the last row, or until the iterator is closed. A statement that
    is closed before its last row is cancelled, after which the transaction can only be rolled back.

    Args:
        connection: In whose transaction the statement runs. Its loaders make the values.
        query: Any statement that returns rows.
        params: Its parameters, by position or by name.

    Raises:
        LoadError: The statement returns no rows, or a value cannot be read.
        LoadInterruptedError: The connection was lost while the rows came.
        psycopg.Error: The server refuses the statement, or cancels it; psycopg cannot read a value, or the
            parameters do not fit the placeholders.
    """
    with plain_cursor(connection) as cursor:
        register_json(cursor.adapters, _QuickJsonLoader)
        size = _ROWS if capabilities.has_stream_chunked() else 1
        try:
            with interrupted_reads(), readable("a value of the result"):
                yield from cursor.stream(query, params, size=size)
        except psycopg.ProgrammingError as error:
            if cursor.has_sent and error.sqlstate is None and cursor.description is None:
                raise LoadError("The statement returns no rows.", remedy="Use execute for it.") from error
            raise


def register_json(adapters: AdaptersMap, loader: type[JsonLoader]) -> None:
    """Have JSON read by a loader where psycopg's default would read it, and nobody has set another.

    Args:
        adapters: Those of a connection or cursor.
        loader: Of both types.
    """
    for name, stock in (("json", JsonLoader), ("jsonb", JsonbLoader)):
        oid = adapters.types[name].oid
        if adapters.get_loader(oid, Format.TEXT) is stock and stock(oid).loads is json.loads:
            adapters.register_loader(oid, loader)


class _QuickJsonLoader(JsonLoader):
    """psycopg's values in a third of the time.

    Most of it is spent around Python's scanner, on encodings and blanks that the server's text does not have.
    """

    def load(self, data: Buffer) -> Any:
        try:
            text = str(data, "utf-8")
            value, end = _DECODER.raw_decode(text)
        except (ValueError, RecursionError):
            # The error, or the value, is that of psycopg's own way.
            return super().load(data)
        return value if end == len(text) else super().load(data)
