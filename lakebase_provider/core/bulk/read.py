"""From a query to Arrow record batches, piece by piece."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from lakebase_provider.core.bulk.binary_copy import row_batches
from lakebase_provider.core.bulk.copy_out import CopyOut, copy_out
from lakebase_provider.core.bulk.decode import decode_batch
from lakebase_provider.core.bulk.query import (
    Parameters,
    copy_statement,
    describe,
    is_plain_query,
    query_text,
)
from lakebase_provider.core.bulk.read_cursor import cursor_batches
from lakebase_provider.core.bulk.result_types import ResultColumn
from lakebase_provider.core.bulk.session import UTF8, settings
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg.abc import Query

logger = logging.getLogger(__name__)

#: Rows of a record batch: while few are decoded, the server goes on and fills the socket's buffer.
BATCH_ROWS = 16_384


@contextmanager
def read_batches(
    connection: psycopg.Connection[Any],
    query: Query,
    params: Parameters = None,
    *,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[pa.RecordBatchReader]:
    """Run a query and give its result as a stream of record batches, in constant memory.

    The connection is busy until the stream is read or the context is left.

    Args:
        connection: In whose transaction the query runs.
        query: A SELECT, VALUES, TABLE or WITH streams through binary COPY; any other statement that returns
            rows is run by a cursor, and libpq holds its result.
        params: Its parameters, by position or by name.
        batch_rows: Rows of a batch, at most.

    Raises:
        ConfigError: `batch_rows` is not positive.
        LoadError: The statement returns no rows; while reading: a value does not fit its column's Arrow type.
        LoadInterruptedError: The connection was lost while the rows came.
        psycopg.Error: The server refuses the query, or cancels it.

    Example:
        >>> with client.connection() as conn, read_batches(conn, "SELECT * FROM orders") as batches:
        ...     pq.write_table(batches.read_all(), "orders.parquet")
    """
    import pyarrow as pa

    if batch_rows < 1:
        raise ConfigError(f"batch_rows is {batch_rows}.", remedy="Give a number of rows of 1 or more.")
    with settings(connection, UTF8):
        text = query_text(connection, query, params)
        if not is_plain_query(text):
            logger.debug("Reading by a cursor: no plain query, COPY takes none other")
            with cursor_batches(connection, query, params, batch_rows) as reader:
                yield reader
            return
        columns = describe(connection, text)
        schema = pa.schema([pa.field(column.name, column.arrow_type) for column in columns])
        statement = copy_statement(connection, text, [column.cast for column in columns])
        with copy_out(connection, statement) as copy:
            yield pa.RecordBatchReader.from_batches(schema, _batches(copy, columns, schema, batch_rows))


def _batches(
    copy: CopyOut, columns: Sequence[ResultColumn], schema: pa.Schema, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    first_row = 1
    for data, sizes in row_batches(copy, batch_rows):
        batch = decode_batch(data, sizes, columns, schema, first_row)
        first_row += len(sizes)
        del data, sizes  # not held while the next ones come
        yield batch
        del batch
