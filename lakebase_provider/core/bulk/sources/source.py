"""A source of rows as batches of columns: its name, and how it is read in constant memory."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Clock
from lakebase_provider.core.bulk.sources.seen import Reading
from lakebase_provider.core.bulk.types.arrow import require_known
from lakebase_provider.core.bulk.types.target_columns import BadValueError
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows of one batch of Python rows: enough to make a batch's fixed costs vanish, few enough to stay in the
#: processor's cache.
ROWS = 10_000
#: Bytes of Arrow data in one batch, small enough for the processor's cache too, and the bound of its rows.
_BATCH_BYTES = 1 << 20
_BATCH_ROWS = 65_536
#: Seconds in which a source is read ahead.
_PATIENCE = 10.0
#: Names of columns that an error lists.
_LISTED = 50


@dataclass(frozen=True)
class Batch:
    """Some rows, column by column.

    Attributes:
        columns: For each column an Arrow array or a sequence of Python values.
        rows: How many rows.
    """

    columns: tuple[Any, ...]
    rows: int

    def slice(self, start: int, stop: int) -> Batch:
        """The rows from `start` up to `stop`."""
        return Batch(tuple(column[start:stop] for column in self.columns), stop - start)

    def row(self, index: int) -> tuple[Any, ...]:
        """One row as Python values; bytes in a text that are no UTF-8 are written as ``\\x80``."""
        values = (column[index] for column in self.columns)
        return tuple(_of_arrow(value) if hasattr(value, "as_py") else value for value in values)


def _of_arrow(value: Any) -> Any:
    try:
        return value.as_py()
    except OverflowError:  # a duration beyond Python's
        return f"{value.value} {value.type}"
    except UnicodeDecodeError:
        if hasattr(value, "as_buffer"):
            return value.as_buffer().to_pybytes().decode(errors="backslashreplace")
        return [_of_arrow(item) for item in value.values]


class Source:
    """A source of rows, opened.

    Attributes:
        description: What it is, for logs, such as ``"Polars LazyFrame"``.
        column_names: Names of its columns; None for rows that only have positions.
        schema: Arrow schema; None for Python rows, whose types show only as they arrive.
        describe: Returns the schema that a table for the named columns needs, found in their values; None if
            `schema` has it, or if nothing shows it before the rows arrive.
        void: Names of columns that hold only NULL and fit a column of any type.
        width: How many columns, where known before the first batch.
        json: Whether text for array columns may be JSON.
        row_name: Returns a row's name for errors from its index, such as ``"row 3 of 'orders.csv'"``; for -1,
            the name of what is being read. None if a row's number is enough.
        marked: If the rows are changes, returns for the names of the keys the source that has behind their
            columns the marks that a merge of changes needs. Either of the two can be read.
        python: Whether the batches hold Python values, as a program has them, and nothing else.
        spared: Changes that were read and left out, since the next one tells what is true of their key.
    """

    def __init__(
        self,
        description: str,
        batches: Callable[[], Iterator[Batch]],
        *,
        column_names: tuple[str, ...] | None = None,
        schema: pa.Schema | None = None,
        width: int | None = None,
        close: Callable[[], None] | None = None,
        void: frozenset[str] = frozenset(),
        json: bool = False,
        row_name: Callable[[int], str] | None = None,
        describe: Callable[[Sequence[str]], pa.Schema] | None = None,
        marked: Callable[[Sequence[str]], Source] | None = None,
        python: bool = False,
    ) -> None:
        self.python = python
        self.describe = describe
        self.marked = marked
        self.spared = 0
        self.void = void
        self.json = json
        self.row_name = row_name
        self.description = description
        self.column_names = column_names
        self.schema = schema
        self.width = len(column_names) if column_names is not None else width
        self._batches = batches
        self._close = close
        if column_names is not None:
            _unique(column_names)

    def batches(self) -> Iterator[Batch]:
        """The rows; can be asked for once.

        Raises:
            BadValueError: A row does not fit this source; its index is the one in the source.
        """
        return _whole(self._batches()) if self.python else self._batches()

    def count(self, limit: int, clock: Clock = SYSTEM_CLOCK) -> int:
        """How many rows it has, or a number above the limit where it has more, or gives them slowly.

        It is read so far, and so can be asked once, before :meth:`batches`.
        """
        ahead = _Ahead(self._batches())
        self._batches = lambda: ahead
        return ahead.count(limit, clock)

    def select(self, names: Sequence[str]) -> Source:
        """The same source with some of its columns, in that order.

        Raises:
            ColumnMismatchError: It has no such column.
        """
        assert self.column_names is not None
        if tuple(names) == self.column_names:
            return self
        known = {name: place for place, name in enumerate(self.column_names)}
        missing = [name for name in names if name not in known]
        if missing:
            raise no_such_column(self.description, missing[0], self.column_names)
        places = [known[name] for name in names]
        batches = self._batches
        return Source(
            self.description,
            lambda: (Batch(tuple(b.columns[place] for place in places), b.rows) for b in batches()),
            column_names=tuple(names),
            schema=None if self.schema is None else _picked(self.schema, places),
            close=self._close,
            void=self.void,
            json=self.json,
            row_name=self.row_name,
            describe=self.describe,
            python=self.python,
        )

    @property
    def batch_schema(self) -> pa.Schema | None:
        """The schema that the batches have, in which a column that holds nothing but NULL has no type."""
        if self.schema is None or not self.void:
            return self.schema
        import pyarrow as pa

        return pa.schema([pa.field(f.name, pa.null()) if f.name in self.void else f for f in self.schema])

    def close(self) -> None:
        """Close what opening it opened, if it is open; a cursor or file of the caller's own stays open."""
        close, self._close = self._close, None
        if close is not None:
            close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _whole(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The rows of batches that may be small, in batches of the usual size."""
    held: list[Batch] = []
    for batch in batches:
        held.append(batch)
        if sum(one.rows for one in held) >= ROWS:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(batches: Sequence[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    columns = zip(*(batch.columns for batch in batches), strict=True)
    rows = sum(batch.rows for batch in batches)
    return Batch(tuple(list(chain.from_iterable(parts)) for parts in columns), rows)


class _Ahead(Iterator[Batch]):
    """Batches of which some are read before they are asked for; an error comes in its place among them."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self._held: deque[Batch] = deque()
        self._error: Exception | None = None

    def count(self, limit: int, clock: Clock) -> int:
        found, end = 0, clock.elapsed() + _PATIENCE
        try:
            while found <= limit and (batch := next(self._batches, None)) is not None:
                self._held.append(batch)
                # The server waits meanwhile, and may end a transaction that is idle for long.
                found += batch.rows if clock.elapsed() < end else limit + 1
        except Exception as error:  # whatever the caller's rows raise
            self._error = error
        return found

    def __next__(self) -> Batch:
        if self._held:
            return self._held.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return next(self._batches)


def one_column(description: str) -> ConfigError:
    """The error of Arrow data that is no table."""
    return ConfigError(
        f"{description} holds one column, not rows of a table.",
        remedy="Give a table: pyarrow.table({'name of the column': source}).",
    )


def open_stream(
    source: Any, description: str, close: Callable[[], None] | None = None, *, whole: bool = False
) -> Source:
    """A source of Arrow data, read batch by batch.

    Args:
        source: Anything with ``__arrow_c_stream__``.
        description: What it is.
        close: Closes what it reads from.
        whole: Whether a reader, which can be read only once, must have rows.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise ConfigError(
            f"Loading {description} needs pyarrow.", remedy="Install lakebase-provider[arrow]."
        ) from None
    if isinstance(known := getattr(source, "schema", None), pa.Schema):
        require_known(known)  # below a dictionary or runs, the stream tells no extension type
    try:
        reader = pa.RecordBatchReader.from_stream(source)
    except pa.ArrowInvalid:  # its schema is not that of rows
        raise one_column(description) from None
    if not hasattr(source, "read_next_batch"):
        return arrow_source(reader.schema, reader, description, close)
    reading = Reading(source, whole=whole)

    def batches() -> Iterator[pa.RecordBatch]:
        first = next(reader, None)
        reading.began(empty=first is None)
        if first is not None:
            yield first
            yield from reader
            reading.ended()

    def close_both() -> None:
        reading.close()
        if close is not None:
            close()

    return arrow_source(reader.schema, batches(), description, close_both)


def arrow_source(
    schema: pa.Schema,
    found: Iterable[pa.RecordBatch],
    description: str,
    close: Callable[[], None] | None = None,
    *,
    small: bool = False,
    json: bool = False,
) -> Source:
    """A source of record batches of one schema; big ones are cut to what is encoded at once.

    Args:
        schema: The schema.
        found: The batches.
        description: What it is.
        close: Closes what it reads from.
        small: Whether they have the right size already.
        json: Whether their texts are from JSON.

    Raises:
        ColumnMismatchError: A column is of an extension type that is not known.
    """
    require_known(schema)

    def batches() -> Iterator[Batch]:
        number = 0
        for batch in found:
            if not batch.schema.equals(schema):
                raise BadValueError("a batch with a different schema", kind="record batch", index=number)
            number += batch.num_rows
            for piece in (batch,) if small else _pieces(batch):
                yield Batch(tuple(piece.columns), piece.num_rows)

    names = tuple(schema.names)
    return Source(description, batches, column_names=names, schema=schema, close=close, json=json)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    size = batch.nbytes
    # Two halves cost more than they save. And what views show lies in what several batches share, of which
    # each is said to have all of it.
    if size < 2 * _BATCH_BYTES and batch.num_rows <= _BATCH_ROWS:
        yield batch
        return
    rows = rows_at_once(size, batch.num_rows)
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def rows_at_once(size: int, rows: int) -> int:
    """How many rows to encode at once, of data of so many bytes and rows."""
    return max(min(_BATCH_BYTES * rows // max(size, 1), _BATCH_ROWS), 1)


def _unique(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise ColumnMismatchError(
            f"Two columns of the source are named {twice!r}.", remedy="Rename one of them."
        )


def no_columns() -> ColumnMismatchError:
    """The error of rows without values."""
    return ColumnMismatchError("The source has no columns.", remedy="Give rows that have some.")


def no_such_column(description: str, name: str, names: Sequence[str]) -> ColumnMismatchError:
    """The error of a source that lacks a column.

    Args:
        description: What the source is.
        name: The column.
        names: The columns that it has.
    """
    return ColumnMismatchError(
        f"The source ({description}) has no column {name!r}; it has {_listed(names)}.",
        remedy=delimiter_remedy(description, names),
    )


def delimiter_remedy(description: str, names: Sequence[str]) -> str | None:
    """The remedy if a CSV file's whole header seems to have been read as one name; None otherwise.

    Args:
        description: What the source is.
        names: The columns that it has.
    """
    mark = next((mark for mark in ";\t|" if len(names) == 1 and mark in names[0]), None)
    if mark is None or not description.startswith("CSV"):
        return None
    return (
        f"If {mark!r} separates the file's fields, set delimiter={mark!r}; else give the column the table's "
        "name."
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(map(repr, names[:_LISTED])) + (f" and {more:,} more" if more > 0 else "")


def _picked(schema: pa.Schema, places: Sequence[int]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([schema.field(place) for place in places])
