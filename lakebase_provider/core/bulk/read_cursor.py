"""From a cursor's Python values to Arrow, for statements that COPY does not take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.adapt import Buffer
from psycopg.types.datetime import IntervalLoader
from psycopg.types.string import TextLoader

from lakebase_provider.core.bulk.query import Parameters
from lakebase_provider.core.bulk.result_types import ResultColumn, result_columns
from lakebase_provider.core.cursor import plain_cursor
from lakebase_provider.core.errors import LoadError
from lakebase_provider.core.sql_text import with_inert_comments

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg.abc import Query

#: Types that psycopg would make Python objects of, for which Arrow has no type: they come as their text.
_AS_TEXT = (
    *("json", "jsonb", "uuid", "inet", "cidr"),
    *("int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange"),
    *("int4multirange", "int8multirange", "nummultirange"),
    *("datemultirange", "tsmultirange", "tstzmultirange"),
)


@contextmanager
def cursor_batches(
    connection: psycopg.Connection[Any], query: Query, params: Parameters, batch_rows: int
) -> Iterator[pa.RecordBatchReader]:
    """Run any statement that returns rows and give them as record batches; libpq holds all of them.

    Raises:
        LoadError: The statement returns no rows; while reading: a value does not fit its column's Arrow type.
        psycopg.Error: The server refuses the statement.
    """
    import pyarrow as pa

    with plain_cursor(connection) as cursor:
        for type_name in _AS_TEXT:
            cursor.adapters.register_loader(type_name, TextLoader)
        cursor.adapters.register_loader("interval", _ExactIntervalLoader)
        cursor.execute(with_inert_comments(query, params), params)
        if cursor.description is None:
            raise LoadError("The statement returns no rows.", remedy="Use execute for it.")
        columns = result_columns(connection, cursor.description)
        schema = pa.schema([pa.field(column.name, column.arrow_type) for column in columns])
        yield pa.RecordBatchReader.from_batches(schema, _batches(cursor, columns, schema, batch_rows))


def _batches(
    cursor: psycopg.Cursor[Any], columns: Sequence[ResultColumn], schema: pa.Schema, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    converters = [_converter(column) for column in columns]
    while rows := cursor.fetchmany(batch_rows):
        values = zip(*rows, strict=True) if columns else ()
        arrays = [
            _array(list(items), field, convert)
            for items, field, convert in zip(values, schema, converters, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _converter(column: ResultColumn) -> Callable[[Any], Any] | None:
    import pyarrow as pa

    if pa.types.is_string(column.arrow_type):
        return str
    if pa.types.is_list(column.arrow_type) and pa.types.is_string(column.arrow_type.value_type):
        return lambda items: [None if item is None else str(item) for item in items]
    return None


def _array(values: list[Any], field: pa.Field, convert: Callable[[Any], Any] | None) -> pa.Array:
    import pyarrow as pa

    if convert is not None:
        values = [None if value is None else convert(value) for value in values]
    try:
        return pa.array(values, type=field.type)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        # The value itself is the user's data: neither the message nor a cause shows it.
        raise LoadError(
            f'Column "{field.name}" holds a value that {field.type} cannot ({type(error).__name__}).',
            remedy="Cast the column in the query, or declare precision and scale of a numeric.",
        ) from None


class _ExactIntervalLoader(IntervalLoader):
    """psycopg's, but for months and years, which it would count as 30 and 365 days."""

    def load(self, data: Buffer) -> timedelta:
        text = bytes(data)
        if b"mon" in text or b"year" in text:
            raise LoadError(
                "An interval holds months or years, which have no fixed length.",
                remedy="Cast the column to text in the query.",
            )
        return super().load(data)
