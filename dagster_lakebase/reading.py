"""From a query to Arrow record batches, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.adapt import Buffer
from psycopg.types.datetime import IntervalLoader
from psycopg.types.string import TextLoader

from lakebase_provider.core.errors import LoadError

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows of a record batch: some megabytes, and seldom more than one round trip for a small table.
BATCH_ROWS = 50_000

#: What an undeclared numeric is read as: what 128 bits hold, half of it behind the point.
_NUMERIC = (38, 18)
#: Types that psycopg would make Python objects of, for which Arrow has no type: they come as their text.
_AS_TEXT = (
    *("json", "jsonb", "uuid", "inet", "cidr"),
    *("int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange"),
    *("int4multirange", "int8multirange", "nummultirange"),
    *("datemultirange", "tsmultirange", "tstzmultirange"),
)


@contextmanager
def read_batches(
    connection: psycopg.Connection[Any],
    query: bytes | sql.Composable,
    params: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    server_side: bool = False,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[pa.RecordBatchReader]:
    """Run a query and give its result as a stream of record batches.

    A numeric is a decimal of the declared precision and scale, never a float. What Arrow has no type for
    (uuid, json, enums, network addresses, ranges, …) comes as its text.

    Args:
        connection: Not in autocommit mode if `server_side`.
        query: The query.
        params: Its parameters.
        server_side: Keep the result on the server and fetch one batch at a time, so that memory stays
            constant; for SELECT alone. Otherwise libpq holds all of it.
        batch_rows: Rows of a batch, at most.

    Raises:
        LoadError: The statement returns no rows; while reading: a value does not fit its column's Arrow type.
        psycopg.Error: The server refuses the query.
    """
    import pyarrow as pa

    name = "lakebase_batches" if server_side else ""
    make: Any = connection.cursor(name) if name else connection.cursor()
    with closing(make) as cursor:
        for type_name in _AS_TEXT:
            cursor.adapters.register_loader(type_name, TextLoader)
        cursor.adapters.register_loader("interval", _ExactIntervalLoader)
        cursor.execute(query, params)
        if cursor.description is None:
            raise LoadError("The statement returns no rows.", remedy="Use execute for it.")
        types = [_arrow_type(column) for column in cursor.description]
        schema = pa.schema(
            [pa.field(column.name, kind) for column, (kind, _) in zip(cursor.description, types, strict=True)]
        )
        yield pa.RecordBatchReader.from_batches(schema, _batches(cursor, schema, types, batch_rows))


def _batches(
    cursor: Any,
    schema: pa.Schema,
    types: Sequence[tuple[pa.DataType, Callable[[Any], Any] | None]],
    batch_rows: int,
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    while rows := cursor.fetchmany(batch_rows):
        columns = zip(*rows, strict=True) if schema.names else ()
        arrays = [
            _array(list(values), field, convert)
            for values, field, (_, convert) in zip(columns, schema, types, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


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


def _arrow_type(column: psycopg.Column) -> tuple[pa.DataType, Callable[[Any], Any] | None]:
    """The Arrow type of a result's column, and what its values need to become it."""
    import pyarrow as pa

    info = psycopg.adapters.types.get(column.type_code)
    if info is None:
        return pa.string(), str
    if column.type_code == info.array_oid:
        element, convert = _scalar_type(info.name, column)
        return pa.list_(element), None if convert is None else lambda items: _each(items, convert)
    return _scalar_type(info.name, column)


def _each(items: Any, convert: Callable[[Any], Any]) -> Any:
    return [None if item is None else convert(item) for item in items]


def _scalar_type(name: str, column: psycopg.Column) -> tuple[pa.DataType, Callable[[Any], Any] | None]:
    import pyarrow as pa

    if name == "numeric":
        return _decimal_type(column), None
    plain: dict[str, pa.DataType] = {
        "bool": pa.bool_(),
        "int2": pa.int16(),
        "int4": pa.int32(),
        "int8": pa.int64(),
        "oid": pa.int64(),
        "float4": pa.float32(),
        "float8": pa.float64(),
        "date": pa.date32(),
        "time": pa.time64("us"),
        "timestamp": pa.timestamp("us"),
        "timestamptz": pa.timestamp("us", tz="UTC"),
        "interval": pa.duration("us"),
        "bytea": pa.binary(),
    }
    if name in plain:
        return plain[name], None
    return pa.string(), str


def _decimal_type(column: psycopg.Column) -> pa.DataType:
    import pyarrow as pa

    precision, scale = _NUMERIC if column.precision is None else (column.precision, column.scale or 0)
    # Postgres allows a scale beyond the precision, or below zero; Arrow's digits then have to cover it.
    precision = max(precision - min(scale, 0), scale)
    scale = max(scale, 0)
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(min(precision, 76), scale)


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
