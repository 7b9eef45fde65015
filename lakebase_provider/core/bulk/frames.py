"""Between Arrow and the frames that users hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.packing import as_views, packed
from lakebase_provider.core.errors import ConfigError, LoadError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

#: The forms in which a result can be had, rows apart.
FORMS = ("pandas", "polars", "arrow")


def require_form(form: str) -> None:
    """Refuse an unknown form before anything is read.

    Raises:
        ConfigError: It is none of :data:`FORMS`.
    """
    if form not in FORMS:
        raise ConfigError(f"as_ is {form!r}.", remedy=f"Use one of: rows, {', '.join(FORMS)}.")


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


def frame_of(batches: pa.RecordBatchReader, form: str) -> Any:
    """All batches as a pandas data frame, a Polars data or lazy frame, or an Arrow table."""
    if form == "pandas":
        return to_pandas(to_arrow(batches))
    if form in ("polars", "lazy"):
        frame = to_polars(batches)
        return frame.lazy() if form == "lazy" else frame
    return to_arrow(batches)


def to_arrow(batches: pa.RecordBatchReader) -> pa.Table:
    """A table of all batches."""
    import pyarrow as pa

    return pa.Table.from_batches(map(packed, batches), batches.schema)


def to_polars(batches: pa.RecordBatchReader) -> pl.DataFrame:
    """A Polars data frame of all batches, which are not held beside it.

    Raises:
        LoadError: Two columns have one name, or are wider than Polars' types.
    """
    import polars as pl

    require_distinct_names(batches.schema.names)

    def part(batch: pa.RecordBatch) -> pl.DataFrame:
        found = pl.from_arrow(packed(as_views(batch)), rechunk=False)
        assert isinstance(found, pl.DataFrame)  # a batch becomes no series
        return found

    frame = None
    for found in map(part, batches):
        frame = found if frame is None else frame.vstack(found, in_place=True)
    if frame is None:
        return pl.DataFrame(batches.schema.empty_table())
    return frame


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """A data frame in which integers stay integers: with NULLs they are of pandas' nullable types.

    pyarrow by itself makes floats of them, which hold no integer above 2**53 exactly.
    """
    import pandas as pd
    import pyarrow as pa

    frame: pd.DataFrame = table.to_pandas(integer_object_nulls=True)
    nullable = {
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
    }
    for position, column in enumerate(table.columns):
        if column.null_count and column.type in nullable:
            frame.isetitem(position, column.to_pandas(types_mapper=nullable.get))
    return frame
