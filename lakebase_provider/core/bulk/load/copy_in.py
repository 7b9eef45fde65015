"""Rows from any source into a table with one COPY, inside the caller's transaction."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.bulk.encode.encoder import BadColumnError, BatchEncoder, Method, choose_method
from lakebase_provider.core.bulk.files.csv_format import PLAIN_CSV, CsvFormat
from lakebase_provider.core.bulk.sources.open import open_source
from lakebase_provider.core.bulk.sources.source import Batch, Source, delimiter_remedy, no_columns
from lakebase_provider.core.bulk.types.target_columns import OTHER, BadValueError, Target, target_of
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.connect.session import UTF8, settings
from lakebase_provider.core.database.catalog import Column, Table, TableName
from lakebase_provider.core.database.refusals import load_error
from lakebase_provider.core.database.row_remedies import value_remedy
from lakebase_provider.core.errors import BadRowError, ColumnMismatchError
from lakebase_provider.core.errors.remedy import Remedy, without_options

logger = logging.getLogger(__name__)

#: Bytes passed to libpq at once.
_WRITE = 1 << 20
#: Seconds for the server to accept a request to cancel.
_CANCEL_TIMEOUT = 3.0


@dataclass(frozen=True)
class CopyResult:
    """What a COPY did.

    Attributes:
        rows: Rows that were written.
        bytes: Bytes of COPY data that were sent.
        format: ``"binary"`` or ``"text"``.
        encoder: What encoded them: ``"pgpq"``, ``"pyarrow"`` or ``"psycopg"``.
        reason: Why that format and encoder.
        columns: The table's columns that got values, in COPY's order.
        rejected: Rows that were passed to `reject` instead of being written.
    """

    rows: int
    bytes: int
    format: str
    encoder: str
    reason: str
    columns: tuple[str, ...]
    rejected: int = 0


@dataclass(frozen=True)
class RejectedRow:
    """A row that was not written.

    Attributes:
        number: Its number in the source, from 1.
        column: Name of the column with the bad value.
        reason: What is wrong, without the value.
        row: Its values, in the order of the columns.
    """

    number: int
    column: str
    reason: str
    row: tuple[Any, ...]


def copy_in(
    connection: psycopg.Connection[Any],
    source: Any,
    table: Table,
    *,
    into: TableName | None = None,
    columns: Sequence[str] | None = None,
    csv: CsvFormat = PLAIN_CSV,
    whole: bool = False,
    progress: Callable[[int, int], None] | None = None,
    reject: Callable[[RejectedRow], None] | None = None,
) -> CopyResult:
    """Copy all rows of a source into a table, in constant memory.

    No value is changed to make it fit: a number is not rounded, a text not cut, a time zone not dropped; a
    value that a column cannot hold unchanged raises, and nothing is written. Two rules are fixed: a time
    without a zone is UTC if the column has one, and text for json and jsonb is JSON. A float4 gets the
    nearest value.

    Args:
        connection: The connection whose transaction it becomes part of.
        source: Rows that :func:`.open_source` accepts.
        table: The table as the catalog describes it.
        into: Another relation with the same columns, such as a temporary table.
        columns: The columns to fill; by name if the source's columns have names, otherwise by position. None
            for all of the source's, or all that the table accepts.
        csv: The format of CSV files, if the source is not opened yet.
        whole: Whether a source that can be read only once must have rows, and all of them.
        progress: Called with the rows and bytes sent so far, after each batch.
        reject: Called with each row whose values are found to be bad, which is then left out. What only the
            server detects (a violated constraint) still raises.

    Raises:
        BadRowError: A row has a value that its column cannot hold; the error names row and column.
        ColumnMismatchError: The source's columns do not match the table's, or have types that cannot be
            converted.
        ConfigError: It is not a source.
        psycopg.Error: The server refused the rows.
    """
    with open_source(source, columns, csv, whole=whole) as opened:
        chosen = target_columns(opened, table, columns)
        targets = [target_of(column) for column in chosen]
        method = choose_method(opened, targets, table.text_only)
        logger.info("COPY into %s: %s by %s: %s", table.name, method.format, method.encoder, method.reason)
        encoder = BatchEncoder(method, targets, opened.batch_schema, strict=reject is not None)
        run = _Run(targets, encoder, progress, reject, opened.row_name)
        statement = copy_from(into or table.name, chosen, method.format)
        with settings(connection, _wanted_settings(method, targets)), plain_cursor(connection) as cursor:
            try:
                with cursor.copy(statement) as copy, cancelled_when_interrupted(connection):
                    run.write(opened, copy)
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                raise run.renumbered(error, f"Load into {table.name}") from None  # its text quotes values
    names = tuple(column.name for column in chosen)
    return CopyResult(
        run.rows, run.bytes, method.format, method.encoder, method.reason, names, len(run.rejected)
    )


class _Run:
    """The rows of one COPY under way."""

    def __init__(
        self,
        targets: Sequence[Target],
        encoder: BatchEncoder,
        progress: Callable[[int, int], None] | None,
        reject: Callable[[RejectedRow], None] | None,
        row_name: Callable[[int], str] | None,
    ) -> None:
        self._row_name = row_name
        self._targets = targets
        self._encoder = encoder
        self._progress = progress
        self._reject = reject
        self.rows = 0
        self.bytes = 0
        #: Numbers of the rejected rows, ascending.
        self.rejected: list[int] = []

    def write(self, source: Source, copy: psycopg.Copy) -> None:
        """Send all batches."""
        self._send(copy, memoryview(self._encoder.header))
        try:
            for batch in self._batches(source):
                begun = self.rows + len(self.rejected)
                for data, rows in self._encoded(batch, begun):
                    self._send(copy, data)
                    self.rows += rows
                if self._progress is not None:
                    self._progress(self.rows, self.bytes)
        except BadValueError as error:
            # Raised by the source itself: a row with a different shape, which cannot be set aside.
            with without_options("on_error"):
                raise self._bad_row(error, error.index, None) from None
        self._send(copy, self._encoder.finish())

    def _batches(self, source: Source) -> Iterator[Batch]:
        if not source.json:
            yield from source.batches()
            return
        from lakebase_provider.core.bulk.sources.json_lines import with_array_literals

        begun = 0
        for batch in source.batches():
            try:
                found = with_array_literals(batch, self._targets)
            except BadValueError as error:
                error.index += begun
                raise
            yield found
            begun += batch.rows

    def _encoded(self, batch: Batch, begun: int) -> Iterator[tuple[memoryview, int]]:
        """A batch's data; if bad rows may be left out, the data before, between and after them."""
        while batch.rows:
            try:
                yield self._encoder.encode(batch), batch.rows
            except BadColumnError as error:
                name = self._targets[error.column].name
                number = begun + error.index + 1
                if self._reject is None:
                    raise self._bad_row(error.cause, number - 1, name) from None
                if error.index:
                    # Another column may have a bad value in an earlier row.
                    yield from self._encoded(batch.slice(0, error.index), begun)
                self.rejected.append(number)
                self._reject(RejectedRow(number, name, error.cause.reason, batch.row(error.index)))
                batch, begun = batch.slice(error.index + 1, batch.rows), number
            else:
                return

    def _send(self, copy: psycopg.Copy, data: memoryview) -> None:
        for start in range(0, len(data), _WRITE):
            copy.write(data[start : start + _WRITE])
        self.bytes += len(data)

    def _bad_row(self, error: BadValueError, index: int, column: str | None) -> BadRowError:
        where = None if self._row_name is None else self._row_name(index)
        return bad_row(error, index + 1 if index >= 0 else None, column, where)

    def renumbered(self, error: psycopg.Error, what: str) -> Exception:
        """The error with the row's number in the source and its file.

        The server counts without the rejected rows.
        """
        found = load_error(error, what)
        if not isinstance(found, BadRowError) or found.row is None:
            return error
        number = found.row
        while (shifted := found.row + bisect_right(self.rejected, number)) != number:
            number = shifted
        if number == found.row and self._row_name is None:
            return error
        place = f"row {number}" if self._row_name is None else self._row_name(number - 1)
        message = found.message.replace(f"row {found.row}", place, 1)
        renumbered = BadRowError(message, row=number, column=found.column, remedy=found.remedy)
        renumbered.sqlstate = found.sqlstate
        return renumbered


def bad_row(
    error: BadValueError, number: int | None, column: str | None, row: str | None = None
) -> BadRowError:
    """The error of a bad row: its number, its column, the kind of the value, never the value.

    Args:
        error: What is wrong.
        number: The row's number in the source.
        column: The column's name.
        row: What the row is called, if its number alone is ambiguous.
    """
    place = [row or (f"row {number:,}" if number else ""), f"column {column!r}" if column else ""]
    where = ", ".join(part for part in place if part) or "the source"
    what = error.reason if error.reason.startswith(error.kind) else f"{error.kind}, {error.reason}"
    message = f"Bad value in {where}: {what}."
    remedy = error.remedy or value_remedy(error.kind, error.reason)
    return BadRowError(message, row=number, column=column, kind=error.kind, remedy=remedy)


def target_columns(source: Source, table: Table, columns: Sequence[str] | None) -> list[Column]:
    """The table's columns that take a source's columns, in the source's order.

    Args:
        source: The source, of the chosen columns.
        table: The table.
        columns: The columns' names; None for those of the source.

    Raises:
        ColumnMismatchError: The table has no such column, or computes it itself.
    """
    if columns is not None:
        names = tuple(columns)
    elif source.column_names is not None:
        names = source.column_names
    else:
        names = tuple(column.name for column in table.writable)
    if source.width is not None and source.width != len(names):
        raise ColumnMismatchError(
            f"The rows have {source.width} values for {len(names)} columns of {table.name}.",
            remedy=Remedy(
                "Name the columns for the values: columns=(...).",
                options=("columns",),
                otherwise="Give each row as many values as the table has columns.",
            ),
        )
    found = []
    for name in names:
        column = table.column(name)
        if column is None:
            known = ", ".join(repr(column.name) for column in table.writable)
            raise ColumnMismatchError(
                f"Table {table.name} has no column {name!r}; it has {known}.",
                remedy=delimiter_remedy(source.description, source.column_names or ()),
            )
        if column.generated:
            raise ColumnMismatchError(
                f"Column {name!r} of {table.name} is computed by the server.", remedy="Leave it out."
            )
        found.append(column)
    if not names:
        raise no_columns()
    if len(set(names)) < len(names):
        raise ColumnMismatchError("A column is named twice.", remedy="Name each column once.")
    return found


@contextmanager
def cancelled_when_interrupted(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """End the COPY on the server when a signal handler raises, such as for a task's timeout.

    psycopg only tells the server that no more data follows, and waits until the server has read that: a
    server that waits for a lock reads nothing.
    """
    try:
        yield
    except Exception:
        # An error of a row or of the connection: psycopg tells the server why the COPY ends.
        raise
    except BaseException:
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=_CANCEL_TIMEOUT)
        raise


def copy_from(name: TableName, columns: Sequence[Column], form: str) -> sql.Composed:
    """The COPY that fills columns of a table from a stream in one of COPY's formats."""
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT {}{})").format(
        name.sql(),
        sql.SQL(", ").join(column.sql() for column in columns),
        sql.SQL(form),
        sql.SQL("" if form == "binary" else ", ENCODING 'UTF8'"),
    )


def _wanted_settings(method: Method, targets: Sequence[Target]) -> dict[str, str]:
    """The settings with which the server reads the data correctly."""
    wanted = {**UTF8, "standard_conforming_strings": "on"}  # the latter changes how psycopg reads bytes
    kinds = {(target.element or target).kind for target in targets}
    if method.format == "text" and not kinds.isdisjoint(("timestamptz", OTHER)):
        # Texts of times without a zone are in UTC, and each part of an interval has its own sign.
        wanted |= {"TimeZone": "UTC", "IntervalStyle": "postgres"}
    return wanted
