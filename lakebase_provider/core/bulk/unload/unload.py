"""From a query to files: streamed, complete or not at all, and from one snapshot."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Clock
from lakebase_provider.core.base.threads import in_this_context
from lakebase_provider.core.bulk.read.batches import BATCH_ROWS, read_batches
from lakebase_provider.core.bulk.read.statement import Parameters, bare, describe, is_plain_query, query_text
from lakebase_provider.core.bulk.read.stream import copy_out
from lakebase_provider.core.bulk.sources.delta.opened import is_delta
from lakebase_provider.core.bulk.types.decimals import Numeric
from lakebase_provider.core.bulk.unload.as_json import require_distinct, write_json_lines
from lakebase_provider.core.bulk.unload.destination import Destination, Format, format_of
from lakebase_provider.core.bulk.unload.options import WriteMode, check_unload_options
from lakebase_provider.core.bulk.unload.to_delta import DeltaTarget
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.connect.session import UTF8, settings
from lakebase_provider.core.database.refusals import interrupted_reads
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg.abc import Query

logger = logging.getLogger(__name__)

Connections = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]

#: Rows in a Parquet row group: what is held in memory, and what readers read at once.
_ROW_GROUP = 65_536
#: Bytes of distinct values from which on a column is written without a dictionary: one as big as Parquet's
#: default costs time, memory and size where most values differ.
_DICTIONARY = 128 << 10
#: The settings with which text is exact. For money it depends on the server's lc_monetary.
_TEXT = {
    **UTF8,
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
}
#: Seconds that a request to cancel a query may take, and between two requests.
_CANCEL_TIMEOUT = 2.0


@dataclass(frozen=True)
class UnloadResult:
    """What an unload wrote.

    Attributes:
        rows: Rows in all files; of a Delta table, those that were written to it.
        bytes: Bytes of all files, or of the record batches that a Delta table was given.
        seconds: Seconds from the first statement to the last file's renaming.
        files: How many files; 0 for a Delta table, whose library tells no number.
        version: The version of the Delta table that has the rows; None for files.
        skipped: Whether the Delta table had the rows already from an unload with the same id.
    """

    rows: int
    bytes: int
    seconds: float
    files: int
    version: int | None = None
    skipped: bool = False


def unload(
    connections: Connections,
    query: Query,
    to: Any,
    *,
    format: Format | None = None,
    params: Parameters = None,
    batch_rows: int | None = None,
    parallel: int = 1,
    by: str | None = None,
    numeric: Numeric = "decimal",
    mode: WriteMode | None = None,
    keys: Sequence[str] | None = None,
    unload_id: str | None = None,
    max_connections: int | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> UnloadResult:
    """Write what a query returns to a file, or to several at once, or to a Delta table.

    Args:
        connections: Lends a connection; as many at once as `parallel` says.
        query: A SELECT, VALUES, TABLE or WITH.
        to: As for :class:`~lakebase_provider.core.bulk.unload.destination.Destination`; or a Delta table, as
            for :class:`~lakebase_provider.core.bulk.unload.to_delta.DeltaTarget`.
        format: What to write; None for what a single file's suffix says, else Parquet.
        params: The query's parameters.
        batch_rows: Maximum number of rows in a row group or record batch.
        parallel: How many files are written at once; more than one go to a folder.
        by: The column that divides the rows among them.
        numeric: For Parquet and Arrow: ``"text"`` writes numerics as text, with any number of digits, NaN
            included.
        mode: For a Delta table: ``"append"``, ``"overwrite"`` or ``"merge"``.
        keys: For merge: names of the columns that identify a row.
        unload_id: For a Delta table: identifies an unload; a second one with the same id is skipped.
        max_connections: How many connections can be open at once, if known.
        clock: Where the time comes from.

    Raises:
        ConfigError: Arguments contradict each other; nothing was read.
        ColumnMismatchError: The result does not have exactly one column named `by`, or in Parquet or JSON
            lines has two with one name.
        LoadInterruptedError: The connection was lost, or another unload to the same place has started.
        LoadError: A value does not fit its column's Arrow type.
        psycopg.Error: The server refuses the query, or cancels it.
        OSError: A file could not be written.
    """
    check_unload_options(
        {
            "to": to,
            "format": format,
            "parallel": parallel,
            "by": by,
            "batch_rows": batch_rows,
            "numeric": numeric,
            "mode": mode,
            "keys": keys,
            "unload_id": unload_id,
        }
    )
    if is_delta(to):
        target = DeltaTarget(to, mode or "append", keys, unload_id)
        return _to_delta(connections, query, params, target, _Manner(batch_rows, numeric), clock)
    if max_connections is not None and parallel > max_connections:
        raise ConfigError(
            f"parallel is {parallel}, and the pool has at most {max_connections} connections.",
            remedy="Raise the configuration's max_size, or write fewer files at once.",
        )
    began = clock.elapsed()
    destination = Destination(to)
    if format is None:
        format = (format_of(destination.name.rstrip("/"), "to") if by is None else None) or "parquet"
    _require_pyarrow(format)
    with destination.files(format, None if by is None else parallel) as files:
        manner = _Manner(batch_rows, numeric, is_part=by is not None)
        with interrupted_reads():
            if by is None:
                with connections() as connection:
                    text = _plain(connection, query, params)
                    rows = _written(connection, text, files[0], format, manner)
            else:
                rows = _unload_parts(connections, query, params, files, by, format, manner)
        sizes = [file.tell() for file in files]
    result = UnloadResult(rows, sum(sizes), clock.elapsed() - began, len(sizes))
    logger.info(
        "Unloaded %s rows, %.1f MB, to %s in %.1f s",
        f"{result.rows:,}",
        result.bytes / 1e6,
        destination.name,
        result.seconds,
    )
    return result


def _to_delta(
    connections: Connections,
    query: Query,
    params: Parameters,
    target: DeltaTarget,
    manner: _Manner,
    clock: Clock,
) -> UnloadResult:
    began = clock.elapsed()
    table = target.find()
    if table is not None and target.is_done(table):
        logger.info("Skipped: %s has the rows of this unload_id.", target.name)
        return UnloadResult(0, 0, 0.0, 0, table.version(), skipped=True)
    with connections() as connection, settings(connection, _TEXT):
        text = _plain(connection, query, params)
        with _read(connection, text, manner.batch_rows or BATCH_ROWS, manner) as batches:
            written = target.write(connection, batches, table)
    logger.info("Unloaded %s rows to %s, version %d", f"{written.rows:,}", target.name, written.version)
    return UnloadResult(
        written.rows, written.bytes, clock.elapsed() - began, 0, written.version, skipped=written.skipped
    )


def unload_within(
    connection: psycopg.Connection[Any],
    query: Query,
    destination: Destination,
    *,
    format: Format,
    params: Parameters = None,
    commit: Callable[[], object],
) -> int:
    """Write what a query returns to a file, as the last part of a transaction, and return the number of rows.

    Args:
        connection: The connection in whose transaction the query runs.
        query: A SELECT, VALUES, TABLE or WITH.
        destination: The file.
        format: What to write.
        params: The query's parameters.
        commit: Ends the transaction; called when the file is complete but not renamed. If it fails, an
            existing file stays.

    Raises:
        Exception: As :func:`unload` does, and what `commit` raises.
    """
    check_unload_options({"format": format})
    _require_pyarrow(format)
    with destination.files(format, None, commit) as files, interrupted_reads():
        return _written(connection, _plain(connection, query, params), files[0], format, _Manner())


@dataclass(frozen=True)
class _Manner:
    """How rows are written, whatever the format.

    Attributes:
        batch_rows: Maximum number of rows in a row group or record batch.
        numeric: What numerics become.
        is_part: Whether it is one of several files, which all have the same types.
    """

    batch_rows: int | None = None
    numeric: Numeric = "decimal"
    is_part: bool = False


def _written(
    connection: psycopg.Connection[Any], text: bytes, file: Any, format: Format, manner: _Manner
) -> int:
    with settings(connection, _TEXT):
        return _WRITERS[format](connection, text, file, manner)


def _require_pyarrow(format: str) -> None:
    if format in ("parquet", "arrow") and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            f"Writing {format} needs pyarrow, which is not installed.",
            remedy="Install lakebase-provider[arrow], or write csv or jsonl.",
        )


def _plain(connection: psycopg.Connection[Any], query: Query, params: Parameters) -> bytes:
    text = query_text(connection, query, params)
    if not is_plain_query(text):
        raise ConfigError(
            "The statement is not a query that COPY accepts.",
            remedy="Unload a SELECT, VALUES, TABLE or WITH that changes no data.",
        )
    return text


def _unload_parts(
    connections: Connections,
    query: Query,
    params: Parameters,
    files: list[Any],
    by: str,
    format: Format,
    manner: _Manner,
) -> int:
    with ExitStack() as lent:
        first = lent.enter_context(connections())
        _begin_repeatable(first)
        text = _plain(first, query, params)
        found = [column.name for column in describe(first, text)].count(by)
        if found != 1:
            raise ColumnMismatchError(
                f"The result has {found or 'no'} columns named {by!r}.",
                remedy="Set by= to the name of one of the query's columns.",
            )
        held, snapshot = [first], _export_snapshot(first)
        while len(held) < len(files):
            other = lent.enter_context(connections())
            _begin_repeatable(other)
            other.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
            held.append(other)

        def write(number: int) -> int:
            part = _part(held[number], text, by, number, len(files))
            return _written(held[number], part, files[number], format, manner)

        with ThreadPoolExecutor(len(files), thread_name_prefix="lakebase-unload") as workers:
            writing = [workers.submit(in_this_context(write), number) for number in range(len(files))]
            try:
                return sum(done.result() for done in as_completed(writing))
            except BaseException:
                _end(writing, held)
                raise


def _export_snapshot(connection: psycopg.Connection[Any]) -> str:
    """Name of the transaction's snapshot, which others can use while it lasts."""
    with plain_cursor(connection) as cursor:
        row = cursor.execute("SELECT pg_catalog.pg_export_snapshot()").fetchone()
    assert row is not None
    return str(row[0])


def _end(writing: Iterable[Future[int]], connections: Sequence[psycopg.Connection[Any]]) -> None:
    """Cancel what the others are still reading until they notice; one may be just about to start."""
    pending = set(writing)
    while pending:
        for connection in connections:
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=_CANCEL_TIMEOUT)
        pending = wait(pending, timeout=_CANCEL_TIMEOUT).not_done


def _begin_repeatable(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def _part(connection: psycopg.Connection[Any], text: bytes, by: str, number: int, count: int) -> bytes:
    """The rows of a query that go to one of several files: each row to exactly one."""
    # A hash of the column's text, which every type has. It may be negative, and is NULL for NULL.
    condition = sql.SQL("coalesce(abs(pg_catalog.hashtextextended(q.{}::text, 0) % {}), 0) = {}").format(
        sql.Identifier(by), sql.Literal(count), sql.Literal(number)
    )
    return b"SELECT * FROM (%s\n) AS q WHERE %s" % (bare(text), condition.as_bytes(connection))


def _read(
    connection: psycopg.Connection[Any], text: bytes, batch_rows: int, manner: _Manner
) -> AbstractContextManager[pa.RecordBatchReader]:
    # The parts of one result have the same types, whatever values each of them holds.
    return read_batches(
        connection,
        text,
        batch_rows=batch_rows,
        numeric=manner.numeric,
        same_types_always=manner.is_part,
        for_file=True,
    )


def _parquet(connection: psycopg.Connection[Any], text: bytes, file: Any, manner: _Manner) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    limit = manner.batch_rows or _ROW_GROUP
    rows = held = 0
    group: list[pa.RecordBatch] = []

    def write() -> None:
        nonlocal held
        writer.write_table(pa.Table.from_batches(group))
        group.clear()
        held = 0
        # Otherwise the allocator would keep the encoders' memory, and more with each row group.
        pa.default_memory_pool().release_unused()

    with _read(connection, text, min(limit, BATCH_ROWS), manner) as batches:
        require_distinct(batches.schema.names, "Parquet")
        with parquet.ParquetWriter(file, batches.schema, dictionary_pagesize_limit=_DICTIONARY) as writer:
            for batch in batches:
                rows += batch.num_rows
                if held + batch.num_rows > limit:
                    write()
                group.append(batch)
                held += batch.num_rows
                del batch
            if group:
                write()
    return rows


def _arrow(connection: psycopg.Connection[Any], text: bytes, file: Any, manner: _Manner) -> int:
    import pyarrow as pa

    rows = 0
    with (
        _read(connection, text, manner.batch_rows or BATCH_ROWS, manner) as batches,
        pa.ipc.new_file(file, batches.schema) as writer,
    ):
        for batch in batches:
            rows += batch.num_rows
            writer.write_batch(batch)
    return rows


def _csv(connection: psycopg.Connection[Any], text: bytes, file: Any, manner: _Manner) -> int:
    # As the server writes it: an empty field is NULL, and an empty text in quotes.
    statement = b"COPY (%s\n) TO STDOUT (FORMAT csv, HEADER true, ENCODING 'UTF8')" % bare(text)
    rows = -1  # the header comes as a message too
    with copy_out(connection, statement) as copy:
        for data, sizes in copy.batches(manner.batch_rows or BATCH_ROWS):
            file.write(data)
            rows += len(sizes)
    return rows


def _jsonl(connection: psycopg.Connection[Any], text: bytes, file: Any, manner: _Manner) -> int:
    return write_json_lines(connection, text, file, manner.batch_rows or BATCH_ROWS)


_WRITERS: dict[Format, Callable[[psycopg.Connection[Any], bytes, Any, _Manner], int]] = {
    "parquet": _parquet,
    "arrow": _arrow,
    "csv": _csv,
    "jsonl": _jsonl,
}
