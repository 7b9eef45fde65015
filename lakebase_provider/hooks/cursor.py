"""The cursors of the hook's own calls: placeholders as users write them, several statements at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.abc import Params, Query
from psycopg.rows import dict_row, namedtuple_row, tuple_row

from lakebase_provider.core.connection import AsyncLakebaseCursor, LakebaseCursor
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.hooks.placeholders import parse


class HookCursor(LakebaseCursor[Any]):
    """psycopg's cursor with the rules of :mod:`lakebase_provider.hooks.placeholders`.

    Of several statements in one text the last one's result is there to fetch, as psycopg 2 has it.
    """

    def execute(self, query: Query, params: Params | None = None, **options: Any) -> HookCursor:
        """Run one statement, or several in one text."""
        text, values = bound(self.connection, query, params)
        super().execute(text, values, **options)
        if self._results[1:]:
            self.set_result(-1)
        return self


class HookServerCursor(psycopg.ServerCursor[Any]):
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


def bound(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any],
    query: Query,
    params: Params | None,
) -> tuple[Any, Params | None]:
    """A query and its parameters as psycopg takes them.

    Args:
        connection: Says how to quote, where the values of several statements are written into their text.
        query: The query, as users of the hook write it.
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


def row_factory(cursor: str | None) -> Any:
    """How rows are made, by the name that PostgresHook has for it.

    Args:
        cursor: ``dictcursor`` or ``namedtuplecursor``; None for tuples.

    Raises:
        ConfigError: It is another.
    """
    try:
        return _ROW_FACTORIES[cursor.lower() if cursor else None]
    except KeyError:
        raise ConfigError(
            f"Setting 'cursor' is {cursor!r}.", remedy="Use dictcursor or namedtuplecursor, or leave it out."
        ) from None


_ROW_FACTORIES: dict[str | None, Any] = {
    None: tuple_row,
    "dictcursor": dict_row,
    "namedtuplecursor": namedtuple_row,
}
