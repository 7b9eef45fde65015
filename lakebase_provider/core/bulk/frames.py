"""Between Arrow and the frames that users hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakebase_provider.core.errors import ConfigError

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


def frame_of(table: pa.Table, form: str) -> Any:
    """The table as a pandas data frame, a Polars data or lazy frame, or as it is."""
    if form == "pandas":
        return to_pandas(table)
    if form in ("polars", "lazy"):
        frame = to_polars(table)
        return frame.lazy() if form == "lazy" else frame
    return table


def to_polars(table: pa.Table) -> pl.DataFrame:
    """A Polars data frame."""
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # a table becomes no series
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
