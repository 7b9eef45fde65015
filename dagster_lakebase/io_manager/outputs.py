"""What an asset may return: its columns, and its rows for COPY."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.sources.seen import Reading, read_once
from lakebase_provider.core.database.catalog import require_width
from lakebase_provider.core.errors import ColumnMismatchError, LoadError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Source:
    """Rows with their schema.

    Attributes:
        schema: Arrow schema of the rows; None for a stream without a single batch.
        rows: What ``copy_in`` takes.
        inferred: Columns whose type was guessed from the values that happen to be there.
    """

    schema: pa.Schema | None
    rows: Any
    inferred: frozenset[str] = frozenset()


def source_of(value: Any) -> Source:
    """The rows of a frame, a table or a stream of record batches.

    Args:
        value: pandas or Polars data frame, Polars lazy frame, Arrow table, record batch, reader, or an
            iterator of record batches.

    Raises:
        ColumnMismatchError: A column's name is not text, or would be lost with the index; or there are more
            columns than a table can have.
        ConfigError: An iterator has been read before.
        LoadError: An iterator yields something other than record batches.
    """
    import pyarrow as pa

    if isinstance(value, (pa.Table, pa.RecordBatch, pa.RecordBatchReader)):
        require_width(len(value.schema), "The output")
        return Source(value.schema, value)
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return _of_pandas(value)
    if polars is not None and isinstance(value, (polars.DataFrame, polars.LazyFrame)):
        return _of_polars(value)
    return _of_batches(iter(value))


def _of_pandas(frame: Any) -> Source:
    import pyarrow as pa

    require_width(len(frame.columns), "The data frame")
    if bad := [name for name in frame.columns if not isinstance(name, str)]:
        raise ColumnMismatchError(
            f"A column of the data frame has a name of type {type(bad[0]).__name__}, not text.",
            remedy="Rename it, for example with frame.columns = frame.columns.map(str).",
        )
    if any(name is not None for name in frame.index.names):
        raise ColumnMismatchError(
            f"The data frame's index {list(frame.index.names)} would not be stored.",
            remedy="Make it a column with reset_index(), or drop it with reset_index(drop=True).",
        )
    if repeated := sorted(set(frame.columns[frame.columns.duplicated()])):
        raise ColumnMismatchError(
            f"The data frame has several columns named {', '.join(map(repr, repeated))}.",
            remedy="Rename them.",
        )
    from lakebase_provider.core.bulk.sources.from_frames import pandas_types

    types = dict(zip(frame.columns, pandas_types(frame), strict=True))
    objects = [name for name, kind in types.items() if kind is None]
    try:
        inferred = pa.Schema.from_pandas(frame[objects], preserve_index=False)
    except pa.ArrowException as error:
        raise ColumnMismatchError(
            f"The types of the data frame's object columns cannot be inferred from their values: {error}.",
            remedy="Cast each of them to a specific type, such as str.",
        ) from None
    fields = [inferred.field(name) if kind is None else pa.field(name, kind) for name, kind in types.items()]
    return Source(pa.schema(fields), frame, frozenset(objects))


def _of_polars(frame: Any) -> Source:
    from lakebase_provider.core.bulk.sources.from_frames import polars_schema

    schema = frame.collect_schema()
    require_width(len(schema), "The data frame")
    return Source(polars_schema(schema), frame)


def _of_batches(batches: Iterator[Any]) -> Source:
    import pyarrow as pa

    items, reading = read_once(batches)
    first = next(items, None)
    if first is None:
        return Source(None, ())
    if not isinstance(first, pa.RecordBatch):
        raise LoadError(
            f"The iterator yields {type(first).__name__}, not record batches.",
            remedy="Return a frame, an Arrow table, a reader or an iterator of pyarrow.RecordBatch.",
        )
    require_width(len(first.schema), "The output")
    return Source(first.schema, _closing(chain([first], items), reading))


def _closing(batches: Iterator[Any], reading: Reading) -> Iterator[Any]:
    with closing(reading):
        yield from batches
