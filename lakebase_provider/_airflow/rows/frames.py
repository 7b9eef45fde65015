"""Rows as data frames: turns a cursor's result into a pandas frame, whole or in chunks.

Exactness: ``numeric`` arrives as Python's ``Decimal`` (dtype ``object``; ``coerce_float=True`` makes floats).
So does a ``bigint`` that a float does not hold, beside NULL, which is ``pandas.NA`` then.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
from psycopg import errors, postgres
from psycopg.adapt import Transformer
from psycopg.pq import Format
from psycopg.rows import tuple_row

from lakebase_provider._airflow.statements.cursors import HookCursor, HookServerCursor
from lakebase_provider.core.bulk.types.intervals import NO_FIXED_LENGTH, ExactIntervalLoader, has_months
from lakebase_provider.core.connect.parameters.placeholders import Parameters
from lakebase_provider.core.errors import ConfigError, LoadError

if TYPE_CHECKING:
    from lakebase_provider.core.connect.connection import LakebaseConnection

Cursor = HookCursor | HookServerCursor

_BIGINT = postgres.types["int8"].oid
_EXACT_IN_FLOATS = 2**53
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

    Raises:
        LoadError: The last one returns no rows; what it has done is not committed.
    """
    cursor = HookCursor(connection, row_factory=tuple_row)
    for statement in [sql] if isinstance(sql, str) else sql:
        cursor.execute(statement, parameters)
    if cursor.description is None:
        raise LoadError(
            "The statement returns no columns, of which a data frame could be made; it is rolled back.",
            remedy="Give a query, or a statement with RETURNING; others are for run().",
        )
    return cursor


def require_chunksize(chunksize: object) -> None:
    """Refuse chunks of no size.

    Raises:
        ConfigError: It is no whole number of at least 1.
    """
    if isinstance(chunksize, bool) or not isinstance(chunksize, Integral) or chunksize < 1:
        raise ConfigError(
            f"chunksize is {chunksize!r}.", remedy="Give the number of rows of a chunk, at least 1."
        )


def streaming(connection: LakebaseConnection, sql: str | list[str], parameters: Parameters | None) -> Cursor:
    """Like :func:`executed`, with the rows left on the server until they are fetched, if possible.

    It is possible for a single query. The rows of several statements, ``INSERT … RETURNING`` and the like are
    held in memory.

    Raises:
        LoadError: As by :func:`executed`.
    """
    statements = [sql] if isinstance(sql, str) else sql
    if len(statements) > 1:
        return executed(connection, statements, parameters)
    cursor = HookServerCursor(connection, f"lakebase_{uuid4().hex}", row_factory=tuple_row)
    try:
        # Without columns psycopg takes the rows of a cursor for none.
        if cursor.execute(statements[0], parameters).description is not None:
            return cursor
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

    def fetchall(self) -> Any:
        return self._fetched(self._cursor.fetchall)

    def fetchmany(self, size: int) -> Any:
        return self._fetched(self._cursor.fetchmany, size)

    def _fetched(self, fetch: Callable[..., Any], *size: int) -> Any:
        try:
            return _with_exact_integers(fetch(*size), self._cursor)
        except (psycopg.DataError, LoadError, ValueError, OverflowError):
            # Those of psycopg quote the value, and name no column.
            error = _of_a_column(self._cursor)
            if error is None:
                raise
            raise error from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection if name in ("commit", "rollback") else self._cursor, name)


def to_pandas(connection: LakebaseConnection, cursor: Cursor, **options: Any) -> Any:
    """The result as a frame, or with `chunksize` as an iterator of frames.

    Args:
        connection: The cursor's connection.
        cursor: It holds the result.
        options: Those of ``pandas.read_sql``.

    Raises:
        LoadError: A column, which it names, holds a value that Python cannot represent, such as infinity.
    """
    import warnings

    from pandas.io import sql as pandas_sql

    options.setdefault("coerce_float", False)
    with warnings.catch_warnings():
        # pandas reads from any DB-API connection, and warns that it has tested only SQLAlchemy's.
        warnings.filterwarnings("ignore", "pandas only supports SQLAlchemy", UserWarning)
        ready: Any = _Ready(connection, cursor)
        return pandas_sql.read_sql("", con=ready, **options)


def _with_exact_integers(rows: list[tuple[Any, ...]], cursor: Cursor) -> list[Any]:
    """The rows, in which a NULL makes no floats of integers that floats do not hold."""
    wide = [
        place
        for place, column in enumerate(cursor.description or ())
        if column.type_code == _BIGINT and any(row[place] is None for row in rows)
    ]
    wide = [n for n in wide if any(abs(row[n] or 0) > _EXACT_IN_FLOATS for row in rows)]
    if not wide:
        return rows
    import pandas

    return [
        tuple(pandas.NA if value is None and n in wide else value for n, value in enumerate(row))
        for row in rows
    ]


def _of_a_column(cursor: Cursor) -> LoadError | None:
    """Why the rows that the cursor fetched last cannot be read, found by reading them column by column."""
    result = cursor.pgresult
    if result is None:
        return None
    transformer = Transformer(cursor)
    for place, column in enumerate(cursor.description or ()):
        loader = transformer.get_loader(column.type_code, Format(result.fformat(place)))
        for row in range(result.ntuples):
            data = result.get_value(row, place)
            try:
                _ = data if data is None else loader.load(data)
            except Exception:  # of many kinds
                kind, _is_array = kind_of(column)
                return unreadable(column.name, kind, has_months=has_months(data or b""))
    return None


def unreadable(name: str, kind: str, *, has_months: bool) -> LoadError:
    """The error of a column that holds a value that Python cannot represent.

    Args:
        name: The column's name.
        kind: Its type, or that of its elements.
        has_months: Whether it is an interval of months.
    """
    what = (
        f"a value of type {kind} that Python cannot represent, such as infinity, 24:00 or a year outside 1 "
        "to 9999"
    )
    return LoadError(
        f"Column {name!r} holds {NO_FIXED_LENGTH if has_months else what}.",
        remedy="Cast the column in the query, to text or to values that Python has.",
    )


def kind_of(column: psycopg.Column) -> tuple[str, bool]:
    """Name of the column's type, or of its elements', and whether it is an array."""
    known = postgres.types.get(column.type_code)
    return ("", False) if known is None else (known.name, column.type_code == known.array_oid)


def as_pandas_takes_them(connection: LakebaseConnection) -> None:
    """Make the connection refuse months, which would become 30 days.

    Args:
        connection: Borrowed only for this read.
    """
    connection.adapters.register_loader("interval", ExactIntervalLoader)
