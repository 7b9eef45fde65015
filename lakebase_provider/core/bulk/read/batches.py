"""From a query to Arrow record batches, piece by piece."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

from lakebase_provider.core.bulk.read.by_cursor import cursor_batches
from lakebase_provider.core.bulk.read.decoding.binary_copy import row_batches
from lakebase_provider.core.bulk.read.decoding.decode import decode_batch
from lakebase_provider.core.bulk.read.result_columns import ResultColumn
from lakebase_provider.core.bulk.read.statement import (
    Parameters,
    copy_statement,
    describe,
    is_plain_query,
    query_text,
)
from lakebase_provider.core.bulk.read.stream import CopyOut, copy_out
from lakebase_provider.core.bulk.types.decimals import Numeric, require_numeric
from lakebase_provider.core.connect.session import UTF8, settings
from lakebase_provider.core.database.refusals import interrupted_reads
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg.abc import Query

logger = logging.getLogger(__name__)

#: Rows of a record batch: while few are decoded, the server goes on and fills the socket's buffer.
BATCH_ROWS = 16_384


class Batches:
    """A result as record batches, to be read once.

    Attributes:
        schema: Of a result whose numerics all fit the types that are usual for them; else batches may differ
            from it, and from each other, in the scale of decimals.
    """

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        self.schema = schema
        self._batches = batches

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._batches


@contextmanager
def read_batches(
    connection: psycopg.Connection[Any],
    query: Query,
    params: Parameters = None,
    *,
    batch_rows: int = BATCH_ROWS,
    numeric: Numeric = "decimal",
    same_types_always: bool = False,
    for_file: bool = False,
) -> Iterator[pa.RecordBatchReader]:
    """Run a query and give its result as a stream of record batches of one schema, in constant memory.

    A numeric that declares no digits, such as an average, is a decimal of 38 digits with 18 behind the point,
    or with as many as the first batch needs. The connection is busy until the stream is read or the context
    is left.

    Args:
        connection: In whose transaction the query runs.
        query: A SELECT, VALUES, TABLE or WITH streams through binary COPY; any other statement that returns
            rows is run by a cursor, and libpq holds its result.
        params: Its parameters, by position or by name.
        batch_rows: Rows of a batch, at most.
        numeric: ``"decimal"``, or ``"text"`` to read numerics as text.
        same_types_always: Whether the types may not depend on the values.
        for_file: Whether a load is to read the rows back as they were: intervals come as text, for a duration
            knows neither days nor months, and an array that is not counted from 1 is refused.

    Raises:
        ConfigError: `batch_rows` is not positive, or `numeric` unknown.
        LoadError: The statement returns no rows; while reading: a value does not fit its column's Arrow type.
        LoadInterruptedError: The connection was lost while the rows came.
        psycopg.Error: The server refuses the query, or cancels it.

    Example:
        >>> with client.connection() as conn, read_batches(conn, "SELECT * FROM orders") as batches:
        ...     pq.write_table(batches.read_all(), "orders.parquet")
    """
    import pyarrow as pa

    with _running(connection, query, params, batch_rows, numeric, for_file=for_file) as (columns, batch):
        schema = _schema_of(columns)
        if same_types_always or not any(column.is_open for column in columns):
            yield pa.RecordBatchReader.from_batches(schema, _all(batch, columns, widen=False))
            return
        first = batch(columns, schema, widen=True)
        if first is None:
            yield pa.RecordBatchReader.from_batches(schema, iter(()))
            return
        columns = _of_types(columns, first.schema.types)
        started = _started([first], _all(batch, columns, widen=False))
        del first  # not held while the next ones come
        yield pa.RecordBatchReader.from_batches(_schema_of(columns), started)


@contextmanager
def read_whole(
    connection: psycopg.Connection[Any],
    query: Query,
    params: Parameters = None,
    *,
    numeric: Numeric = "decimal",
) -> Iterator[Batches]:
    """As :func:`read_batches`, for who holds all of the result: numerics get the digits that they need.

    Args:
        connection: In whose transaction the query runs.
        query: Any statement that returns rows.
        params: Its parameters, by position or by name.
        numeric: ``"decimal"``, or ``"text"`` to read numerics as text.
    """
    with _running(connection, query, params, BATCH_ROWS, numeric) as (columns, batch):
        yield Batches(_schema_of(columns), _all(batch, columns, widen=True))


class _NextBatch(Protocol):
    def __call__(
        self, columns: Sequence[ResultColumn], schema: pa.Schema, *, widen: bool
    ) -> pa.RecordBatch | None:
        """The next batch; None after the last one."""


@contextmanager
def _running(
    connection: psycopg.Connection[Any],
    query: Query,
    params: Parameters,
    batch_rows: int,
    numeric: Numeric,
    *,
    for_file: bool = False,
) -> Iterator[tuple[list[ResultColumn], _NextBatch]]:
    """The columns of a query that runs, and what gives its batches one after another."""
    with ExitStack() as run:
        # What happens later is the reader's, such as the loss of another connection.
        with interrupted_reads():
            begun = _begun(connection, query, params, batch_rows, numeric, for_file=for_file)
            found = run.enter_context(begun)
        yield found


@contextmanager
def _begun(
    connection: psycopg.Connection[Any],
    query: Query,
    params: Parameters,
    batch_rows: int,
    numeric: Numeric,
    *,
    for_file: bool,
) -> Iterator[tuple[list[ResultColumn], _NextBatch]]:
    require_numeric(numeric)
    if batch_rows < 1:
        raise ConfigError(f"batch_rows is {batch_rows}.", remedy="Give a number of rows of 1 or more.")
    with settings(connection, UTF8):
        text = query_text(connection, query, params)
        if not is_plain_query(text):
            logger.debug("Reading by a cursor: no plain query, COPY takes none other")
            with cursor_batches(connection, query, params, numeric) as (columns, batches):
                yield columns, partial(batches.next, rows=batch_rows)
            return
        columns = describe(connection, text, numeric, for_file=for_file)
        statement = copy_statement(connection, text, [column.cast for column in columns])
        with copy_out(connection, statement) as copy:
            yield columns, _CopiedBatches(copy, batch_rows).next


class _CopiedBatches:
    def __init__(self, copy: CopyOut, batch_rows: int) -> None:
        self._rows = row_batches(copy, batch_rows)
        self._first_row = 1

    def next(
        self, columns: Sequence[ResultColumn], schema: pa.Schema, *, widen: bool
    ) -> pa.RecordBatch | None:
        data, sizes = next(self._rows, (None, ()))
        if data is None:
            return None
        batch = decode_batch(data, sizes, columns, schema, self._first_row, widen=widen)
        self._first_row += len(sizes)
        return batch


def _all(batch: _NextBatch, columns: Sequence[ResultColumn], *, widen: bool) -> Iterator[pa.RecordBatch]:
    schema = _schema_of(columns)
    while (found := batch(columns, schema, widen=widen)) is not None:
        if widen and not found.schema.equals(schema):
            # What one batch needed, the next one will.
            columns, schema = _of_types(columns, found.schema.types), found.schema
        yield found
        del found  # not held while the next one comes


def _of_types(columns: Sequence[ResultColumn], kinds: Sequence[pa.DataType]) -> list[ResultColumn]:
    return [replace(column, arrow_type=kind) for column, kind in zip(columns, kinds, strict=True)]


def _started(first: list[pa.RecordBatch], rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first.pop()
    yield from rest


def _schema_of(columns: Sequence[ResultColumn]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([pa.field(column.name, column.arrow_type) for column in columns])
