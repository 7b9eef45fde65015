"""Between Arrow and the frames that users hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.bulk.read.memory import as_views, packed
from lakebase_provider.core.bulk.types.decimals import REMEDY, of_38_digits, of_one_schema
from lakebase_provider.core.errors import LoadError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from lakebase_provider.core.bulk.read.batches import Batches

#: The forms in which a result can be had, rows apart.
FORMS = ("pandas", "polars", "arrow")


def require_form(form: str) -> None:
    """Refuse an unknown form before anything is read.

    Raises:
        ConfigError: It is none of :data:`FORMS`.
    """
    if form not in FORMS:
        require_choice("as_", form, ("rows", *FORMS))


def require_distinct_names(names: Iterable[str]) -> None:
    """Refuse a result that no Polars frame can hold.

    Raises:
        LoadError: Two columns have one name.
    """
    for name, times in Counter(names).items():
        if times > 1:
            raise LoadError(
                f"{times} columns of the result are named {name!r}, and a Polars frame has one of a name.",
                remedy="Name them apart in the query: SELECT … AS ….",
            )


def frame_of(batches: Batches, form: str) -> Any:
    """All batches as a pandas data frame, a Polars data or lazy frame, or an Arrow table."""
    if form == "pandas":
        return to_pandas(to_arrow(batches))
    if form in ("polars", "lazy"):
        frame = to_polars(batches)
        return frame.lazy() if form == "lazy" else frame
    return to_arrow(batches)


def to_arrow(batches: Batches) -> pa.Table:
    """A table of all batches."""
    import pyarrow as pa

    found = of_one_schema([packed(batch) for batch in batches], batches.schema)
    return pa.Table.from_batches(found, found[0].schema if found else batches.schema)


def to_polars(batches: Batches) -> pl.DataFrame:
    """A Polars data frame of all batches, which are not held beside it.

    Raises:
        LoadError: Two columns have one name, or are wider than Polars' types.
    """
    import pyarrow as pa

    require_distinct_names(batches.schema.names)

    def part(batch: pa.RecordBatch) -> pl.DataFrame:
        return _polars(packed(as_views(of_38_digits(batch))))

    frame = None
    for found in map(part, batches):
        if frame is None:
            frame = found
        elif frame.schema == found.schema:
            frame.vstack(found, in_place=True)
        else:
            frame = _of_one_schema(frame, found)
    if frame is None:
        return part(pa.RecordBatch.from_pylist([], batches.schema))
    return frame


def _polars(batch: pa.RecordBatch) -> pl.DataFrame:
    import polars as pl

    try:
        found = pl.from_arrow(batch, rechunk=False)
    # A panic is no Exception. The texts of both may show values.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        for name in batch.schema.names if batch.num_columns > 1 else ():
            _polars(batch.select([name]))
        raise LoadError(
            f'Column "{batch.schema.names[0]}" holds what Polars cannot.',
            remedy="Cast the column in the query, or fetch an Arrow table.",
        ) from None
    assert isinstance(found, pl.DataFrame)  # a batch becomes no series
    return found


def _of_one_schema(frame: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """Both frames, one below the other, with decimals of the larger scale where theirs differ."""
    import polars as pl

    def scale(kind: Any) -> int:
        decimal = kind.inner if isinstance(kind, pl.List) else kind
        assert isinstance(decimal, pl.Decimal)  # nothing else differs from batch to batch
        return decimal.scale

    kinds = {
        name: max(mine, frame.schema[name], key=scale)
        for name, mine in found.schema.items()
        if mine != frame.schema[name]
    }
    for name, kind in kinds.items():
        try:
            frame, found = frame.cast({name: kind}), found.cast({name: kind})
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            raise LoadError(
                f'Column "{name}" holds numbers of which Polars\' decimals do not hold all digits.',
                remedy=REMEDY,
            ) from None
    return frame.vstack(found)


def _with_none(items: list[float | None] | None) -> Any:
    """A list as pyarrow gives pandas those of integers with NULLs."""
    import numpy as np

    return None if items is None else np.array(items, dtype=object)


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """A data frame in which integers stay integers: with NULLs they are of pandas' nullable types.

    pyarrow by itself makes floats of them, which hold no integer above 2**53 exactly; and NaN of a NULL among
    the floats of a list.

    Raises:
        LoadError: A column, which it names, holds what Python cannot represent, such as a year before 1.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        frame: pd.DataFrame = table.to_pandas(integer_object_nulls=True)
    except (pa.ArrowException, ValueError, OverflowError):  # whose texts show values
        for place in range(table.num_columns) if table.num_columns > 1 else ():
            to_pandas(table.select([place]))
        raise LoadError(
            f'Column "{table.column_names[0]}" holds a value that Python cannot represent, such as a year '
            "outside 1 to 9999.",
            remedy="Cast the column to text in the query, or fetch an Arrow table.",
        ) from None
    nullable = {
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
    }
    for position, column in enumerate(table.columns):
        if column.null_count and column.type in nullable:
            frame.isetitem(position, column.to_pandas(types_mapper=nullable.get))
        floats = pa.types.is_list(column.type) and pa.types.is_floating(column.type.value_type)
        if floats and any(part.flatten().null_count for part in column.chunks):
            frame.isetitem(position, pd.Series(map(_with_none, column.to_pylist()), dtype=object))
    return frame
