"""Rows as data frames: what a cursor holds becomes one of pandas or polars, whole or in chunks.

Exactness: ``numeric`` arrives in pandas as Python's ``Decimal`` (dtype ``object``; ``coerce_float=True``
makes floats) and in polars as ``Decimal`` of the column's precision and scale, up to polars' 38 digits.
For polars, ``json`` and ``uuid`` are text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
from psycopg import errors, postgres
from psycopg.rows import tuple_row
from psycopg.types.string import TextLoader

from lakebase_provider.hooks.cursor import HookCursor, HookServerCursor
from lakebase_provider.hooks.placeholders import Parameters

if TYPE_CHECKING:
    import polars

    from lakebase_provider.core.connection import LakebaseConnection

Cursor = HookCursor | HookServerCursor

#: What the server says when a statement cannot be read by a cursor of its own; nothing has run then.
_NO_CURSOR = (errors.SyntaxError, errors.FeatureNotSupported, errors.InvalidCursorDefinition)
#: Digits that polars' decimals have at most.
_POLARS_DIGITS = 38


def executed(
    connection: LakebaseConnection, sql: str | list[str], parameters: Parameters | None
) -> HookCursor:
    """A cursor that holds the result, the last statement's of several.

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
    """As :func:`executed`, with the rows left on the server until they are fetched, where it can.

    It can for one query. The rows of several statements, of ``INSERT … RETURNING`` and the like are held in
    memory.
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
    """What pandas takes for a connection, with one cursor that has its result already."""

    def __init__(self, connection: LakebaseConnection, cursor: Cursor) -> None:
        self._connection = connection
        self._cursor = cursor

    def cursor(self) -> _Ready:
        return self

    def execute(self, *_statement: object) -> None:
        """It ran before, by the hook's own rules for placeholders."""

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
        # pandas reads from any DB-API connection and warns that it has tested SQLAlchemy's alone.
        warnings.filterwarnings("ignore", "pandas only supports SQLAlchemy", UserWarning)
        ready: Any = _Ready(connection, cursor)
        return pandas_sql.read_sql("", con=ready, **options)


def as_polars_takes_them(connection: LakebaseConnection) -> None:
    """Let the connection hand out as text what polars has no type for."""
    for name in ("uuid", "json", "jsonb"):
        connection.adapters.register_loader(name, TextLoader)


def to_polars(
    cursor: Cursor,
    *,
    schema_overrides: Mapping[str, Any] | None = None,
    infer_schema_length: int | None = None,
) -> polars.DataFrame:
    """The result as a frame."""
    return _polars_frame(cursor, cursor.fetchall(), schema_overrides, infer_schema_length)


def to_polars_by_chunks(
    cursor: Cursor,
    chunksize: int,
    *,
    schema_overrides: Mapping[str, Any] | None = None,
    infer_schema_length: int | None = None,
) -> Iterator[polars.DataFrame]:
    """The result as frames of the same column types."""
    while rows := cursor.fetchmany(chunksize):
        yield _polars_frame(cursor, rows, schema_overrides, infer_schema_length)


def _polars_frame(
    cursor: Cursor,
    rows: list[tuple[Any, ...]],
    overrides: Mapping[str, Any] | None,
    infer_schema_length: int | None,
) -> polars.DataFrame:
    import polars

    schema = {column.name: _polars_type(column) for column in cursor.description or ()}
    # What the server says of a column holds for all rows; guessing from the first ones would not.
    return polars.DataFrame(
        rows,
        schema=schema,
        schema_overrides=overrides,
        orient="row",
        infer_schema_length=infer_schema_length,
    )


def _polars_type(column: psycopg.Column) -> Any:
    import polars

    if _type_name(column.type_code) == "numeric":
        digits, scale = column.precision, column.scale
        # Without declared digits polars finds the scale in the values.
        if digits is None or scale is None or not 0 <= scale <= digits <= _POLARS_DIGITS:
            return None
        return polars.Decimal(digits, scale)
    return {
        "bool": polars.Boolean,
        "int2": polars.Int16,
        "int4": polars.Int32,
        "int8": polars.Int64,
        "oid": polars.Int64,
        "float4": polars.Float32,
        "float8": polars.Float64,
        "text": polars.String,
        "varchar": polars.String,
        "bpchar": polars.String,
        "name": polars.String,
        "json": polars.String,
        "jsonb": polars.String,
        "uuid": polars.String,
        "bytea": polars.Binary,
        "date": polars.Date,
        "time": polars.Time,
        "timestamp": polars.Datetime("us"),
        "timestamptz": polars.Datetime("us", "UTC"),
    }.get(_type_name(column.type_code) or "")


def _type_name(oid: int) -> str | None:
    known = postgres.types.get(oid)
    return None if known is None or oid == known.array_oid else known.name
