"""pandas and Polars frames as sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lakebase_provider.core.bulk.source import (
    Batch,
    Source,
    arrow_source,
    no_such_column,
    open_stream,
    rows_at_once,
)
from lakebase_provider.core.bulk.table import MAX_COLUMNS, require_width
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError

#: Rows of a pandas frame that are turned into Arrow at once.
_PANDAS_ROWS = 32_768
#: Rows of a Polars frame that are turned into Arrow at once.
_POLARS_ROWS = 65_536


def open_pandas(frame: Any, columns: Sequence[str] | None = None) -> Source:
    """A pandas DataFrame without its index; columns of Python objects are taken value by value.

    Args:
        frame: The frame.
        columns: Names of those that will be asked for; None for all.

    Raises:
        ConfigError: Its columns have several levels.
        ColumnMismatchError: It lacks one that is asked for; or all are, and there are more than a table can
            have.
    """
    import pyarrow as pa

    if frame.columns.nlevels > 1:
        raise ConfigError("The DataFrame's columns have several levels.", remedy="Give each column one name.")
    names = tuple(map(str, frame.columns))
    if columns is None:
        require_width(len(names), "The source (pandas DataFrame)")
    elif len(names) > MAX_COLUMNS and len(set(names)) == len(names):
        # pandas takes its time over each column; of what is not wider, a part would be a copy in vain.
        wanted = set(columns)
        if missing := wanted - set(names):
            raise no_such_column("pandas DataFrame", min(missing), names)
        frame = frame.iloc[:, [place for place, name in enumerate(names) if name in wanted]]
        names = tuple(map(str, frame.columns))
    objects = [str(dtype) == "object" for dtype in frame.dtypes]

    def values_of(part: Any) -> Iterator[Any]:
        for place, is_object in enumerate(objects):
            series = part.iloc[:, place]
            if is_object:
                # Not every column of objects holds texts, so its values are looked at one by one.
                missing, values = series.isna().to_numpy(), series.tolist()
                if missing.any():
                    values = [None if m else v for m, v in zip(missing.tolist(), values, strict=True)]
                yield values
            else:
                array = pa.array(series, from_pandas=True)
                yield array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array

    def batches() -> Iterator[Batch]:
        for start in range(0, len(frame), _PANDAS_ROWS):
            part = frame.iloc[start : start + _PANDAS_ROWS]
            yield Batch(tuple(values_of(part)), len(part))

    sample = [pa.null() if is_object else None for is_object in objects]
    fields = [
        pa.field(name, kind if kind is not None else pa.array(frame.iloc[:0, place], from_pandas=True).type)
        for place, (name, kind) in enumerate(zip(names, sample, strict=True))
    ]
    source = Source("pandas DataFrame", batches, column_names=names, width=len(names))
    # Types of object columns show only as they come.
    source.schema = None if any(objects) else pa.schema(fields)
    return source


def open_polars(frame: Any) -> Source:
    """A Polars DataFrame, slice by slice: as a whole it would be copied to have each column in one piece."""
    import pyarrow as pa

    refuse_objects(frame.schema)
    schema = pa.RecordBatchReader.from_stream(frame.clear()).schema
    return arrow_source(schema, _polars_batches(frame), "Polars DataFrame", small=True)


def refuse_objects(schema: Any) -> None:
    """Refuse a Polars schema with columns of Python objects, of which Arrow would get the addresses.

    Raises:
        ColumnMismatchError: It has one.
    """
    for name, kind in schema.items():
        if kind.is_object():
            raise ColumnMismatchError(
                f"Column {name!r} of the data frame holds Python objects, which have no columnar form.",
                remedy="Cast it to a type of Polars, such as by map_elements with return_dtype.",
            )


def _polars_batches(frame: Any) -> Iterator[Any]:
    import pyarrow as pa

    begin = 0
    # A slice across the border of two chunks would be copied.
    for length in frame[:, 0].chunk_lengths() if frame.width else ():
        for start in range(begin, begin + length, _POLARS_ROWS):
            part = frame.slice(start, min(_POLARS_ROWS, begin + length - start))
            # Arrow would count the texts of the whole frame.
            for piece in part.iter_slices(rows_at_once(part.estimated_size(), part.height)):
                yield from pa.RecordBatchReader.from_stream(piece)
        begin += length


def open_lazy(frame: Any, columns: Sequence[str] | None) -> Source:
    """A Polars LazyFrame, run by the streaming engine batch by batch where the version of Polars can."""
    import pyarrow as pa

    refuse_objects(frame.collect_schema())
    names = frame.collect_schema().names()
    if columns is not None and set(columns) <= set(names):
        frame = frame.select(list(columns))  # what is not asked for is not read
    if not hasattr(frame, "collect_batches"):
        return open_stream(frame.collect(engine="streaming"), "Polars LazyFrame")
    schema = pa.RecordBatchReader.from_stream(frame.clear().collect()).schema

    def found() -> Iterator[pa.RecordBatch]:
        for part in frame.collect_batches(chunk_size=_POLARS_ROWS, maintain_order=True):
            yield from _polars_batches(part)

    return arrow_source(schema, found(), "Polars LazyFrame", small=True)
