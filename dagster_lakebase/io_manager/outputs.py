"""What an asset may return, as a source of rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from typing import Any

from lakebase_provider.core.bulk.sources.open import open_source
from lakebase_provider.core.bulk.sources.seen import Reading, read_once
from lakebase_provider.core.bulk.sources.source import Source
from lakebase_provider.core.database.catalog import require_width
from lakebase_provider.core.errors import ColumnMismatchError, LoadError


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
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        _require_plain_names(value)
    elif isinstance(value, Iterator) and not hasattr(value, "read_next_batch"):
        value = _batches(value)
    return open_source(value)


def _require_plain_names(frame: Any) -> None:
    require_width(len(frame.columns), "The data frame")
    if bad := [name for name in frame.columns if not isinstance(name, str)]:
        raise ColumnMismatchError(
            f"A column of the data frame has a name of type {type(bad[0]).__name__}, not text.",
            remedy="Rename it, for example with frame.columns = frame.columns.map(str).",
        )
    # Numbers without a name are the places of rows, also of those that a filter has left.
    is_place = frame.index.nlevels == 1 and frame.index.dtype.kind in "iu"
    if any(name is not None for name in frame.index.names) or (len(frame) and not is_place):
        raise ColumnMismatchError(
            f"The data frame's index {list(frame.index.names)} would not be stored.",
            remedy="Make it a column with reset_index(), or drop it with reset_index(drop=True).",
        )
    if repeated := sorted(set(frame.columns[frame.columns.duplicated()])):
        raise ColumnMismatchError(
            f"The data frame has several columns named {', '.join(map(repr, repeated))}.",
            remedy="Rename them.",
        )


def _batches(batches: Iterator[Any]) -> Iterator[Any]:
    import pyarrow as pa

    items, reading = read_once(batches)
    first = next(items, None)
    if first is None:
        return iter(())
    if not isinstance(first, pa.RecordBatch):
        raise LoadError(
            f"The iterator yields {type(first).__name__}, not record batches.",
            remedy="Return a frame, an Arrow table, a reader or an iterator of pyarrow.RecordBatch.",
        )
    return _closing(chain([first], items), reading)


def _closing(batches: Iterator[Any], reading: Reading) -> Iterator[Any]:
    with closing(reading):
        yield from batches
