"""Rows as data frames: turns a cursor's result into a pandas frame, whole or in chunks.

Exactness: ``numeric`` arrives as Python's ``Decimal`` (dtype ``object``; ``coerce_float=True`` makes floats).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from psycopg import errors
from psycopg.rows import tuple_row

from lakebase_provider._airflow.statements.cursors import HookCursor, HookServerCursor
from lakebase_provider.core.connect.parameters.placeholders import Parameters

if TYPE_CHECKING:
    from lakebase_provider.core.connect.connection import LakebaseConnection

Cursor = HookCursor | HookServerCursor

#: What the server says if a statement cannot be read through a server-side cursor; nothing has run then.
_NO_CURSOR = (errors.SyntaxError, errors.FeatureNotSupported, errors.InvalidCursorDefinition)


def executed(
    connection: LakebaseConnection, sql: str | list[str], parameters: Parameters | None
) -> HookCursor:
    """A cursor that holds the result, the last one if there are several statements.

    Args:
        connection: The connection to run them on.
        sql: A statement, or several.
        parameters: Values for the placeholders of each.
    """
    cursor = HookCursor(connection, row_factory=tuple_row)
    for statement in [sql] if isinstance(sql, str) else sql:
        cursor.execute(statement, parameters)
    return cursor


def streaming(connection: LakebaseConnection, sql: str | list[str], parameters: Parameters | None) -> Cursor:
    """Like :func:`executed`, with the rows left on the server until they are fetched, if possible.

    It is possible for a single query. The rows of several statements, ``INSERT … RETURNING`` and the like are
    held in memory.
    """
    statements = [sql] if isinstance(sql, str) else sql
    if len(statements) > 1:
        return executed(connection, statements, parameters)
    cursor = HookServerCursor(connection, f"lakebase_{uuid4().hex}", row_factory=tuple_row)
    try:
        return cursor.execute(statements[0], parameters)
    except _NO_CURSOR:
        connection.rollback()
        cursor.close()
        return executed(connection, statements, parameters)


class _Ready:
    """A connection for pandas, with a single cursor that already has its result."""

    def __init__(self, connection: LakebaseConnection, cursor: Cursor) -> None:
        self._connection = connection
        self._cursor = cursor

    def cursor(self) -> _Ready:
        return self

    def execute(self, *_statement: object) -> None:
        """It has run already, under the hook's rules for placeholders."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection if name in ("commit", "rollback") else self._cursor, name)


def to_pandas(connection: LakebaseConnection, cursor: Cursor, **options: Any) -> Any:
    """The result as a frame, or with `chunksize` as an iterator of frames.

    Args:
        connection: The cursor's connection.
        cursor: It holds the result.
        options: Those of ``pandas.read_sql``.
    """
    import warnings

    from pandas.io import sql as pandas_sql

    options.setdefault("coerce_float", False)
    with warnings.catch_warnings():
        # pandas reads from any DB-API connection, and warns that it has tested only SQLAlchemy's.
        warnings.filterwarnings("ignore", "pandas only supports SQLAlchemy", UserWarning)
        ready: Any = _Ready(connection, cursor)
        return pandas_sql.read_sql("", con=ready, **options)
