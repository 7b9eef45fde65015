"""The cursors of the hook's own calls: placeholders as users write them, several statements at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.abc import Params, Query

from lakebase_provider.core.base.sql.sql_text import first_word, is_query, statements
from lakebase_provider.core.connect.connection import AsyncLakebaseCursor, LakebaseCursor
from lakebase_provider.core.connect.cursor import LakebaseServerCursor
from lakebase_provider.core.connect.parameters.placeholders import parse
from lakebase_provider.core.errors import ConfigError


class HookCursor(LakebaseCursor[Any]):
    """psycopg's cursor with the rules of :mod:`lakebase_provider.core.connect.parameters.placeholders`.

    Of several statements in one text, the last one's result can be fetched, as in psycopg 2.
    """

    _described: tuple[object, list[psycopg.Column] | None] = (None, None)

    def execute(self, query: Query, params: Params | None = None, **options: Any) -> HookCursor:
        """Run one statement, or several in one text."""
        text, values = bound(self.connection, query, params)
        super().execute(text, values, **options)
        if self._results[1:]:
            self.set_result(-1)
        return self

    @property
    def description(self) -> list[psycopg.Column] | None:
        """psycopg's, made once for each result: Airflow asks for it several times."""
        if self._described[0] is not self.pgresult:
            self._described = (self.pgresult, super().description)
        return self._described[1]


class HookServerCursor(LakebaseServerCursor[Any]):
    """psycopg's server-side cursor with the same rules, for one query."""

    def execute(self, query: Query, params: Params | None = None, **options: Any) -> HookServerCursor:
        """Declare the cursor."""
        text, values = bound(self.connection, query, params)
        super().execute(text, values, **options)
        return self


class AsyncHookCursor(AsyncLakebaseCursor[Any]):
    """:class:`HookCursor` for asyncio."""

    async def execute(self, query: Query, params: Params | None = None, **options: Any) -> AsyncHookCursor:
        """Run one statement, or several in one text."""
        text, values = bound(self.connection, query, params)
        await super().execute(text, values, **options)
        if self._results[1:]:
            await self.set_result(-1)
        return self


def single_statements(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], sql: str, params: Params | None
) -> list[tuple[Any, Params | None]]:
    """The statements of a text with their parameters, each in psycopg's form.

    Args:
        connection: Determines how values are written.
        sql: One or more statements, which share the parameters as in one cursor call.
        params: The values, or none.

    Raises:
        psycopg.ProgrammingError: The values do not match the placeholders.
    """
    text, values = bound(connection, sql, params)
    return [(one, values) for one in statements(text, placeholders=values is not None)]


def require_query(sql: str) -> None:
    """Refuse a statement whose rows the server cannot hand out piece by piece.

    Args:
        sql: The statement.

    Raises:
        ConfigError: It is not a SELECT, VALUES, TABLE or WITH … SELECT, or it changes data.
    """
    if not is_query(sql):
        raise ConfigError(
            "Argument 'output_path' needs a query whose rows to write; the last statement is "
            f"{first_word(sql) or 'nothing'}.",
            remedy="End 'sql' with a SELECT, VALUES, TABLE or WITH … SELECT that changes no data, or leave"
            " output_path out.",
        )


def bound(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any],
    query: Query,
    params: Params | None,
) -> tuple[Any, Params | None]:
    """A query and its parameters in psycopg's form.

    Args:
        connection: Determines quoting if the values of several statements are written into their text.
        query: The query, as the hook's users write it.
        params: Its parameters.
    """
    if not params:
        # Without parameters psycopg leaves every % alone, and Postgres takes several statements.
        return query, None
    if not isinstance(query, str):
        return query, params
    statement = parse(query)
    text, values = statement.bind(params if isinstance(params, Mapping) else list(params))
    if values is None or not statement.several:
        return text, values
    # The server binds the values of one statement only: for several they are written into the text.
    if isinstance(connection, psycopg.AsyncConnection):
        return psycopg.AsyncClientCursor(connection).mogrify(text, values), None
    return psycopg.ClientCursor(connection).mogrify(text, values), None
