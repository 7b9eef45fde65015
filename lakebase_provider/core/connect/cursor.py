"""psycopg's cursors with comments treated as comments, and the cursor of the package's own queries."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import psycopg
from psycopg import sql
from psycopg._queries import PostgresQuery
from psycopg.abc import Params, Query
from psycopg.rows import Row, TupleRow, tuple_row

from lakebase_provider.core.base.sql.sql_text import with_inert_comments


class _Statement(PostgresQuery):
    """psycopg's statement, whose comments neither need a value nor contain a bad placeholder."""

    __slots__ = ()

    def convert(self, query: Query, vars: Params | None) -> None:
        if vars is not None and isinstance(query, sql.Composable):
            query = query.as_bytes(self._tx)
        super().convert(with_inert_comments(query, vars), vars)


class InertComments:
    """A cursor that ignores a statement's comments in every way of running it."""

    __slots__ = ()

    # execute, executemany, stream and the server's cursors make statements of this class; copy does not.
    _query_cls: type[PostgresQuery] = _Statement

    def _start_copy_gen(self, statement: Query, params: Params | None = None) -> Generator[Any, Any, None]:
        steps: Generator[Any, Any, None] = super()._start_copy_gen(  # type: ignore[misc]
            with_inert_comments(statement, params), params
        )
        return steps


class LakebaseServerCursor(InertComments, psycopg.ServerCursor[Row]):
    """psycopg's server-side cursor."""

    __slots__ = ()


class AsyncLakebaseServerCursor(InertComments, psycopg.AsyncServerCursor[Row]):
    """psycopg's server-side cursor, for asyncio."""

    __slots__ = ()


class PlainCursor(InertComments, psycopg.Cursor[TupleRow]):
    """psycopg's own cursor, which knows whether it has sent a statement."""

    __slots__ = ()

    @property
    def has_sent(self) -> bool:
        """Whether a statement was sent to the server, not refused by psycopg for its placeholders."""
        return self._last_query is not None


def plain_cursor(connection: psycopg.Connection[Any]) -> PlainCursor:
    """A plain psycopg cursor that returns tuples, whatever the connection's cursors are and return."""
    return PlainCursor(connection, row_factory=tuple_row)
