"""Opens anything that yields rows as a source: finds its kind, and reads Python rows."""

from __future__ import annotations

import importlib.util
import itertools
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.files.csv_format import PLAIN_CSV, CsvFormat
from lakebase_provider.core.bulk.sources.delta.opened import is_delta, open_delta
from lakebase_provider.core.bulk.sources.seen import Reading, read_once
from lakebase_provider.core.bulk.sources.source import (
    ROWS,
    Batch,
    Source,
    arrow_source,
    one_column,
    open_stream,
)
from lakebase_provider.core.bulk.types.cursor_values import with_texts
from lakebase_provider.core.bulk.types.target_columns import BadValueError
from lakebase_provider.core.database.catalog import require_width
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

_NOTHING: Any = object()


def open_source(
    source: Any, columns: Sequence[str] | None = None, csv: CsvFormat = PLAIN_CSV, *, whole: bool = False
) -> Source:
    """Open a source of rows.

    Args:
        source: Rows (tuples, lists or dicts) in any iterable; a pandas DataFrame (its index is left out; NaN
            and NaT are NULL, as pandas means them); a Polars DataFrame or LazyFrame; a pyarrow Table,
            RecordBatch, RecordBatchReader or iterable of batches; anything with ``__arrow_c_stream__``; the
            path or URI of a CSV, JSON lines, Parquet or Arrow file (str, ``os.PathLike``,
            ``ObjectStoragePath``, ``UPath``), of a folder of such files, or a pattern of their names; a Delta
            table (``"delta:"`` and its path, a :class:`.Delta`, or a ``deltalake.DeltaTable``); a DB-API
            cursor that has run its query, which gives Arrow data if it has ``fetchmany_arrow``, as that of
            ``databricks.sql``; or what this function gave.
        columns: Columns to take, by name; for rows without names, the names that they get. None for all.
        csv: The format of CSV files.
        whole: Whether what can be read only once must have rows, and all of them.

    Raises:
        ConfigError: It is none of these, or can be read only once and an earlier attempt consumed it, or it
            has no rows and some are needed; or `csv` is given for something else.
        ColumnMismatchError: It lacks one of `columns`, or two of its columns share a name; or there are more
            columns than a table can have.
    """
    if columns is not None:
        require_width(len(columns), "columns=")
    found = _open(source, columns, csv, whole)
    try:
        return _chosen(found, columns)
    except BaseException:
        found.close()
        raise


def _chosen(found: Source, columns: Sequence[str] | None) -> Source:
    if columns is None:
        require_width(found.width or 0, f"The source ({found.description})")
        return found
    if found.column_names is not None:
        return found.select(columns)
    if found.width is not None and found.width != len(columns):
        raise ColumnMismatchError(
            f"The first row has {found.width} values for the {len(columns)} columns "
            f"{', '.join(map(repr, columns))}."
        )
    return found


def _open(source: Any, columns: Sequence[str] | None, csv: CsvFormat, whole: bool) -> Source:
    if isinstance(source, Source):
        return source
    # Library types are recognised by their modules' names, so that no library is imported for it.
    module = type(source).__module__.partition(".")[0]
    kind = type(source).__name__
    if isinstance(source, (bytes, bytearray, Mapping, set, frozenset)):
        raise _unknown(source)
    if is_delta(source):
        from lakebase_provider.core.bulk.sources.delta.snapshot_rows import open_snapshot

        csv.require_unused("Delta table")
        return open_snapshot(open_delta(source), columns)
    if isinstance(source, (str, os.PathLike)) or (hasattr(source, "open") and hasattr(source, "suffix")):
        from lakebase_provider.core.bulk.sources.from_files import open_file

        return open_file(source, columns, csv)
    csv.require_unused(f"{module} {kind}")
    if kind in ("Series", "Index") and hasattr(source, "to_frame"):
        raise ConfigError(
            f"A {module} {kind} is one column, not rows of a table.",
            remedy="Give a data frame: source.to_frame('the column's name').",
        )
    if module == "pandas" and kind == "DataFrame":
        from lakebase_provider.core.bulk.sources.from_frames import open_pandas

        return open_pandas(source, columns)
    if module == "polars" and kind == "DataFrame":
        from lakebase_provider.core.bulk.sources.from_frames import open_polars

        return open_polars(source)
    if module == "polars" and kind == "LazyFrame":
        from lakebase_provider.core.bulk.sources.from_frames import open_lazy

        return open_lazy(source, columns)
    if hasattr(source, "__arrow_c_stream__"):
        return open_stream(source, f"{module} {kind}", whole=whole)
    if hasattr(source, "__arrow_c_array__"):
        return open_stream(_table_of(source, f"{module} {kind}"), f"{module} {kind}")
    if hasattr(source, "fetchmany_arrow") and importlib.util.find_spec("pyarrow") is not None:
        return _open_arrow_cursor(source, whole)
    if hasattr(source, "fetchmany") and hasattr(source, "description"):
        return _open_cursor(source, whole)
    if isinstance(source, Iterable):
        return _open_rows(source, whole)
    raise _unknown(source)


def _table_of(source: Any, description: str) -> pa.Table:
    import pyarrow as pa

    try:
        return pa.Table.from_batches([pa.record_batch(source)])
    except (pa.ArrowInvalid, TypeError, ValueError):
        raise one_column(description) from None


def _unknown(source: Any) -> ConfigError:
    return ConfigError(
        f"A {type(source).__name__} is not a source of rows.",
        remedy="Give rows (tuples or dicts), a data frame, Arrow data, the path of a file, "
        "or a DB-API cursor.",
    )


def _open_arrow_cursor(cursor: Any, whole: bool) -> Source:
    reading = _reading_of(cursor, whole)
    try:
        first = cursor.fetchmany_arrow(ROWS)
        reading.began(empty=first.num_rows == 0)
    except BaseException:
        reading.close()
        raise
    description = f"cursor of {type(cursor).__module__}"
    if not first.num_rows:
        # Where there is no row, the connector of Databricks does not always give the result's types.
        names = tuple(column[0] for column in cursor.description)
        return Source(description, lambda: iter(()), column_names=names, close=reading.close)

    def batches() -> Iterator[pa.RecordBatch]:
        found = first
        while found.num_rows:
            # What one file of a result holds may be nullable where another's is not.
            same = found if found.schema.equals(first.schema) else found.cast(first.schema)
            yield from same.to_batches()
            found = cursor.fetchmany_arrow(ROWS)
        reading.ended()

    return arrow_source(first.schema, batches(), description, reading.close)


def _reading_of(cursor: Any, whole: bool) -> Reading:
    """The attempt to read a cursor's result."""
    if cursor.description is None:
        raise ConfigError("The cursor has no result.", remedy="Execute a query with it first.")
    # If the cursor does not count its rows, another statement shows in a different description.
    number = getattr(cursor, "rownumber", None)
    counts = isinstance(number, int)
    return Reading(
        cursor,
        None if counts else cursor.description,
        anew=counts and number == 0,
        whole=whole,
        moved=isinstance(number, int) and number > 0,
    )


def _open_cursor(cursor: Any, whole: bool) -> Source:
    reading = _reading_of(cursor, whole)
    names = tuple(column[0] for column in cursor.description)
    restore = with_texts(cursor)

    def chunks() -> Iterator[Sequence[Any]]:
        while rows := cursor.fetchmany(ROWS):
            yield rows

    def batches() -> Iterator[Batch]:
        found = chunks()
        first = next(found, None)
        reading.began(empty=first is None)
        if first is None:
            return
        named = isinstance(first[0], Mapping)
        yield from _transposed(itertools.chain([first], found), names, named=named)
        reading.ended()

    def close() -> None:
        reading.close()
        restore()

    description = f"cursor of {type(cursor).__module__}"
    return Source(description, batches, column_names=names, close=close, python=True)


def _open_rows(rows: Iterable[Any], whole: bool) -> Source:
    items, reading = read_once(rows, whole=whole)
    try:
        return _rows_source(items, reading.close)
    except BaseException:
        reading.close()
        raise


def _rows_source(items: Iterator[Any], close: Callable[[], None]) -> Source:
    first = next(items, _NOTHING)
    if first is _NOTHING:
        return Source("no rows", lambda: iter(()), python=True)
    everything = itertools.chain([first], items)
    if hasattr(first, "__arrow_c_array__") and hasattr(first, "schema"):
        return arrow_source(first.schema, everything, "Arrow record batches", close)
    if isinstance(first, Mapping):
        names: tuple[str, ...] | None = tuple(first)
    elif isinstance(first, Sequence) and not isinstance(first, (str, bytes, bytearray)):
        names = None
    else:
        raise ConfigError(
            f"The first row is of type {type(first).__name__}.", remedy="Give rows as tuples, lists or dicts."
        )

    def chunks() -> Iterator[Sequence[Any]]:
        # Small at first: whoever reads ahead sees soon when they come slowly.
        size, given = 1, 0
        while chunk := list(itertools.islice(everything, size)):
            yield chunk
            given += len(chunk)
            size = ROWS if given >= ROWS else min(given, ROWS - given)

    return Source(
        "Python rows",
        lambda: _transposed(chunks(), names or tuple(map(str, range(len(first)))), named=names is not None),
        column_names=names,
        width=len(first),
        close=close,
        python=True,
    )


def _transposed(chunks: Iterable[Sequence[Any]], names: tuple[str, ...], *, named: bool) -> Iterator[Batch]:
    keys: Sequence[Any] = names if named else range(len(names))
    getters = [operator.itemgetter(key) for key in keys]
    begun = 0
    for chunk in chunks:
        try:
            # By sets, at C speed: all rows have one length, and none is a text, whose items are characters.
            fits = set(map(len, chunk)) == {len(names)} and not {str, bytes} & set(map(type, chunk))
            columns = tuple([*map(get, chunk)] for get in getters) if fits else None
        except (KeyError, IndexError, TypeError):
            columns = None
        if columns is None:
            raise _bad_row(chunk, begun, names, named=named)
        yield Batch(columns, len(chunk))
        begun += len(chunk)


def _bad_row(chunk: Sequence[Any], begun: int, names: tuple[str, ...], *, named: bool) -> BadValueError:
    shape = Mapping if named else Sequence
    for index, row in enumerate(chunk, begun):
        kind = type(row).__name__
        if not isinstance(row, shape) or isinstance(row, (str, bytes)):
            return BadValueError("not a row like the first one", kind=kind, index=index)
        if named:
            missing = [name for name in names if name not in row]
            if missing:
                return BadValueError(
                    f"no value for {missing[0]!r}, which the first row has", kind=kind, index=index
                )
        if len(row) != len(names):
            reason = f"{len(row)} values, where the first row has {len(names)}"
            return BadValueError(reason, kind=kind, index=index)
    return BadValueError("not a row like the first one", kind="row", index=begun)
