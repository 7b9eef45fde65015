"""pandas and Polars frames as sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.sources.source import (
    Batch,
    Source,
    arrow_source,
    no_such_column,
    rows_at_once,
)
from lakebase_provider.core.bulk.types.arrow import inferred_type, require_known
from lakebase_provider.core.database.catalog import MAX_COLUMNS, require_width
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows of a pandas frame that are turned into Arrow at once.
_PANDAS_ROWS = 32_768
#: Rows of a Polars frame that are turned into Arrow at once.
_POLARS_ROWS = 65_536
#: Digits of the greatest integer of 128 bits.
_WIDE_DIGITS = 39


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
        raise ConfigError(
            "The DataFrame's columns have several levels.", remedy="Give each column a single name."
        )
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
    types = pandas_types(frame)

    def values_of(part: Any) -> Iterator[Any]:
        for place, kind in enumerate(types):
            if places[place]:
                yield pa.nulls(len(part))
                continue
            series = _dense(part.iloc[:, place])
            if kind is None:
                yield _objects(series)
            else:
                array = pa.array(series, from_pandas=True)
                yield array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array

    def batches() -> Iterator[Batch]:
        for start in range(0, len(frame), _PANDAS_ROWS):
            part = frame.iloc[start : start + _PANDAS_ROWS]
            yield Batch(tuple(values_of(part)), len(part))

    # pandas makes floats of a column of texts of which there is none.
    places = [kind is not None and _is_void(frame.iloc[:, place]) for place, kind in enumerate(types)]
    void = frozenset(name for name, is_void in zip(names, places, strict=True) if is_void)
    source = Source("pandas DataFrame", batches, column_names=names, width=len(names), void=void)

    def describe(wanted: Sequence[str]) -> pa.Schema:
        return pa.schema([(name, type_of(names.index(name))) for name in wanted])

    def type_of(place: int) -> pa.DataType:
        kind, values = types[place], frame.iloc[:, place]
        return inferred_type(names[place], _objects(values), "its objects") if kind is None else kind

    # Types of object columns show only as they come.
    if None in types:
        source.describe = describe
    else:
        source.schema = describe(names)
    return source


def pandas_types(frame: Any) -> list[pa.DataType | None]:
    """The Arrow types of a frame's columns; None for objects, whose types show only as they come.

    Raises:
        ColumnMismatchError: A column is of a type that Postgres has not.
    """
    import pyarrow as pa

    found: list[pa.DataType | None] = []
    for place, (name, dtype) in enumerate(zip(frame.columns, frame.dtypes, strict=True)):
        empty = _dense(frame.iloc[:0, place])
        if str(empty.dtype) == "object":
            found.append(None)
            continue
        try:
            kind = pa.array(empty, from_pandas=True).type
        except pa.ArrowException:
            raise ColumnMismatchError(
                f"Column {name!r} of the data frame is of pandas' type {dtype}, which Postgres does not "
                "have.",
                remedy="Cast it to a standard type, such as str.",
            ) from None
        require_known(pa.schema([pa.field(str(name), kind)]))
        found.append(kind)
    return found


def _objects(series: Any) -> list[Any]:
    """The values of a column of objects, with None for what is missing; a Decimal's NaN is a number to it."""
    missing, values = series.isna().to_numpy(), series.tolist()
    if not missing.any():
        return values  # type: ignore[no-any-return] # of any library
    # Not every column of objects holds texts, so its values are looked at one by one.
    return [
        None if m and not isinstance(v, Decimal) else v for m, v in zip(missing.tolist(), values, strict=True)
    ]


def _dense(series: Any) -> Any:
    """The column with all its values, where pandas leaves out those that it has most often."""
    return series.sparse.to_dense() if type(series.dtype).__name__ == "SparseDtype" else series


def _is_void(series: Any) -> bool:
    return len(series) > 0 and bool(series.iloc[:1].isna().all() and series.isna().all())


def open_polars(frame: Any) -> Source:
    """A Polars DataFrame, slice by slice: as a whole it would be copied to have each column in one piece."""
    schema = polars_schema(frame.schema)
    return arrow_source(schema, _polars_batches(frame, schema), "Polars DataFrame", small=True)


def polars_schema(schema: Any) -> pa.Schema:
    """The Arrow schema of a Polars schema; integers of 128 bits, which Arrow has not, are decimals in it.

    Raises:
        ColumnMismatchError: A column holds Python objects, of which Arrow would get the addresses, or has
            such integers within a list or a struct.
    """
    import polars as pl
    import pyarrow as pa

    wide = frozenset(_wide(schema))
    fields = []
    known: dict[Any, pa.Field] = {}
    for name, kind in schema.items():
        if kind.is_object():
            raise ColumnMismatchError(
                f"Column {name!r} of the data frame holds Python objects, which have no columnar form.",
                remedy="Cast it to a Polars type, for example by map_elements with return_dtype.",
            )
        if name in wide:
            fields.append(pa.field(name, pa.decimal256(_WIDE_DIGITS, 0)))
            continue
        if kind not in known:
            try:
                found = pa.RecordBatchReader.from_stream(pl.DataFrame(schema={name: kind}))
            except pa.ArrowException:
                raise ColumnMismatchError(
                    f"Column {name!r} of the data frame is of Polars' type {kind}, which Arrow does not "
                    "have.",
                    remedy="Cast it to a standard type, such as pl.Decimal or pl.String.",
                ) from None
            known[kind] = found.schema.field(0)
        fields.append(known[kind].with_name(name))
    return pa.schema(fields)


def _wide(schema: Any) -> list[str]:
    # By name: not every version of Polars has them.
    return [name for name, kind in schema.items() if str(kind) in ("Int128", "UInt128")]


def _polars_batches(frame: Any, schema: pa.Schema) -> Iterator[Any]:
    import pyarrow as pa

    wide = _wide(frame.schema)
    begin = 0
    # A slice across the border of two chunks would be copied.
    for length in frame[:, 0].chunk_lengths() if frame.width else ():
        for start in range(begin, begin + length, _POLARS_ROWS):
            part = frame.slice(start, min(_POLARS_ROWS, begin + length - start))
            # Arrow would count the texts of the whole frame.
            for piece in part.iter_slices(rows_at_once(part.estimated_size(), part.height)):
                if wide:
                    yield from _widened(piece, schema, wide)
                else:
                    yield from pa.RecordBatchReader.from_stream(piece)
        begin += length


def _widened(piece: Any, schema: pa.Schema, wide: list[str]) -> Iterator[Any]:
    import polars as pl
    import pyarrow as pa

    # By way of text: a decimal of Polars holds fewer digits.
    texts = piece.with_columns(pl.col(wide).cast(pl.String))
    for batch in pa.RecordBatchReader.from_stream(texts):
        arrays = [
            array.cast(pa.string()).cast(field.type) if field.name in wide else array
            for array, field in zip(batch.columns, schema, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def open_lazy(frame: Any, columns: Sequence[str] | None) -> Source:
    """A Polars LazyFrame, run by the streaming engine batch by batch where the version of Polars can."""
    found = frame.collect_schema()
    schema = polars_schema(found)
    if columns is not None and set(columns) <= set(schema.names):
        frame = frame.select(list(columns))  # what is not asked for is not read
        schema = polars_schema(frame.collect_schema())
    if not hasattr(frame, "collect_batches"):
        source = open_polars(frame.collect(engine="streaming"))
        source.description = "Polars LazyFrame"
        return source

    def batches() -> Iterator[pa.RecordBatch]:
        for part in frame.collect_batches(chunk_size=_POLARS_ROWS, maintain_order=True):
            yield from _polars_batches(part, schema)

    return arrow_source(schema, batches(), "Polars LazyFrame", small=True)
