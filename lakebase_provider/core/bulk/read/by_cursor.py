"""From a cursor's Python values to Arrow, for statements that COPY does not take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.string import TextLoader

from lakebase_provider.core.bulk.read.result_columns import ResultColumn, result_columns
from lakebase_provider.core.bulk.read.statement import Parameters
from lakebase_provider.core.bulk.types.decimals import MOST_DIGITS, Numeric, decimal_for, digits_of
from lakebase_provider.core.bulk.types.decimals import REMEDY as DECIMALS_REMEDY
from lakebase_provider.core.bulk.types.intervals import ExactIntervalLoader
from lakebase_provider.core.bulk.types.postgres_types import of_family
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.refusals import readable
from lakebase_provider.core.errors import LoadError

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg.abc import Query

#: Types that psycopg would make Python objects of, for which Arrow has no type: they come as their text.
_AS_TEXT = tuple(kind.name for kind in of_family("json", "uuid", "network", "range"))


@contextmanager
def cursor_batches(
    connection: psycopg.Connection[Any], query: Query, params: Parameters, numeric: Numeric = "decimal"
) -> Iterator[tuple[list[ResultColumn], CursorBatches]]:
    """Run any statement that returns rows and give its columns and record batches; libpq holds all of them.

    Raises:
        LoadError: The statement returns no rows; while reading: a value does not fit its column's Arrow type,
            or cannot be read.
        psycopg.Error: The server refuses the statement.
    """
    with plain_cursor(connection) as cursor:
        for type_name in (*_AS_TEXT, *(("numeric",) if numeric == "text" else ())):
            cursor.adapters.register_loader(type_name, TextLoader)
        cursor.adapters.register_loader("interval", ExactIntervalLoader)
        cursor.execute(query, params)  # type: ignore[arg-type] # query_text has refused a template
        if cursor.description is None:
            raise LoadError("The statement returns no rows.", remedy="Use execute for it.")
        with readable("a description of the statement's columns"):
            columns = result_columns(connection, cursor.description, numeric)
        yield columns, CursorBatches(cursor)


class CursorBatches:
    """The rows that a cursor has, as record batches.

    Args:
        cursor: It has run its statement.
    """

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    def next(
        self, columns: Sequence[ResultColumn], schema: pa.Schema, rows: int, *, widen: bool
    ) -> pa.RecordBatch | None:
        """The next batch; None after the last one.

        Args:
            columns: What they hold.
            schema: Their Arrow schema.
            rows: At most so many.
            widen: Whether a numeric that declares no digits may become another decimal than the schema's.

        Raises:
            LoadError: A value does not fit its column's Arrow type.
        """
        import pyarrow as pa

        with readable("a value of the result"):
            found = self._cursor.fetchmany(rows)
        if not found:
            return None
        arrays = [
            _array(list(values), column, widen=widen)
            for values, column in zip(zip(*found, strict=True), columns, strict=True)
        ]
        if widen:
            return pa.RecordBatch.from_arrays(arrays, names=schema.names)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _converter(column: ResultColumn) -> Callable[[Any], Any] | None:
    import pyarrow as pa

    if pa.types.is_string(column.arrow_type):
        return str
    if pa.types.is_list(column.arrow_type) and pa.types.is_string(column.arrow_type.value_type):
        return lambda items: [None if item is None else str(item) for item in items]
    return None


def _array(values: list[Any], column: ResultColumn, *, widen: bool) -> pa.Array:
    import pyarrow as pa

    convert = _converter(column)
    if convert is not None:
        values = [None if value is None else convert(value) for value in values]
    try:
        if column.kind.startswith("numeric"):
            _refuse_vanishing(values)
        return pa.array(values, type=column.arrow_type)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        kind = _needed(values, column) if widen and column.is_open else None
        if kind is not None:
            return pa.array(values, type=kind)
        # The value itself is the user's data: neither the message nor a cause shows it.
        raise LoadError(
            f'Column "{column.name}" holds a value that {column.arrow_type} cannot ({type(error).__name__}).',
            remedy=DECIMALS_REMEDY if column.kind.startswith("numeric") else "Cast the column in the query.",
        ) from None


def _refuse_vanishing(values: list[Any]) -> None:
    # pyarrow makes 0 of what has more places behind the point than it has decimals for.
    numbers = [number for number in _numbers(values) if number.is_finite()]
    if digits_of(numbers)[1] > MOST_DIGITS:
        raise ValueError


def _numbers(values: list[Any]) -> list[Any]:
    items = (item for value in values for item in (value if isinstance(value, list) else (value,)))
    return [item for item in items if isinstance(item, Decimal)]


def _needed(values: list[Any], column: ResultColumn) -> pa.DataType | None:
    """The decimal, or the list of decimals, that holds all of these; None if there is none."""
    import pyarrow as pa

    is_list, numbers = pa.types.is_list(column.arrow_type), _numbers(values)
    if not all(number.is_finite() for number in numbers):
        return None
    kind = decimal_for(*digits_of(numbers))
    return pa.list_(kind) if is_list and kind is not None else kind
