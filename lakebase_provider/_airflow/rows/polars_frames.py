"""Rows as Polars frames: a column has the server's type, or a typed error names it.

Exactness: ``numeric`` arrives as ``Decimal`` of the column's precision and scale; without declared ones, of
38 digits with as many after the point as the values have. Types that Polars does not have (json, uuid, inet,
ranges, enums, …) are Postgres' text, and arrays of them lists of texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.string import TextLoader

from lakebase_provider._airflow.rows.frames import Cursor, kind_of, unreadable
from lakebase_provider._airflow.statements.loaders import replace_unreadable
from lakebase_provider.core.bulk.read.to_frames import require_distinct_names
from lakebase_provider.core.bulk.types.decimals import digits_of
from lakebase_provider.core.bulk.types.intervals import ExactIntervalLoader, has_months
from lakebase_provider.core.bulk.types.postgres_types import KINDS, TEMPORAL
from lakebase_provider.core.errors import LoadError

if TYPE_CHECKING:
    import polars

    from lakebase_provider.core.connect.connection import LakebaseConnection

#: Maximum number of digits of Polars' decimals.
_DIGITS = 38
#: Digits after the point that later chunks may have, if the first has fewer: as many as avg() and division
#: give for values between 0.0001 and 1, and more than for larger ones.
_LEAST_SCALE_OF_CHUNKS = 20
_REMEDY = "Cast the column in the query, to text or another type, or set a type in schema_overrides."


def as_polars_takes_them(connection: LakebaseConnection) -> None:
    """Make the connection return as text the types that Polars does not have.

    Args:
        connection: Borrowed only for this read.
    """
    native = {"numeric", *(kind.name for kind in KINDS if kind.polars)}
    for info in connection.adapters.types:
        if info.name not in native:
            connection.adapters.register_loader(info.oid, TextLoader)
    connection.adapters.register_loader("interval", ExactIntervalLoader)
    replace_unreadable(connection.adapters, native.intersection(TEMPORAL), _Unreadable)


class _Unreadable:
    """Stands for a value until its column is known: why the value is refused, but not the value."""

    def __init__(self, text: str) -> None:
        self.has_months = has_months(text.encode())


def to_polars(
    cursor: Cursor,
    *,
    schema_overrides: Mapping[str, Any] | None = None,
    infer_schema_length: int | None = None,
) -> polars.DataFrame:
    """The result as a frame.

    Args:
        cursor: It holds the result.
        schema_overrides: Types by column, instead of the server's.
        infer_schema_length: Accepted, as by ``polars.read_database``, but nothing is inferred.

    Raises:
        LoadError: Two columns have one name, or a value does not fit its column's Polars type.
    """
    return _Columns(cursor, schema_overrides).frame(cursor.fetchall())


def to_polars_by_chunks(
    cursor: Cursor,
    chunksize: int,
    *,
    schema_overrides: Mapping[str, Any] | None = None,
    infer_schema_length: int | None = None,
) -> Iterator[polars.DataFrame]:
    """The result as frames of at most `chunksize` rows with the same column types; at least one frame.

    The first chunk decides what the server does not declare: an array has the dimensions of its values, a
    numeric as many digits after the point as they need, and at least 20.

    Args:
        cursor: It holds the result.
        chunksize: Rows of a frame.
        schema_overrides: Types by column, instead of the server's.
        infer_schema_length: Accepted, as by ``polars.read_database``, but nothing is inferred.

    Raises:
        LoadError: Two columns have one name, or a value does not fit its column's Polars type.
    """
    columns = _Columns(cursor, schema_overrides, least_scale=_LEAST_SCALE_OF_CHUNKS)
    rows = cursor.fetchmany(chunksize)
    # The first one even without rows, as in pandas: it has the columns.
    yield columns.frame(rows)
    while rows and (rows := cursor.fetchmany(chunksize)):
        yield columns.frame(rows)


class _Columns:
    """The columns of a result and their types, completed by the first rows."""

    def __init__(self, cursor: Cursor, overrides: Mapping[str, Any] | None, least_scale: int = 0) -> None:
        self._columns = list(cursor.description or ())
        self._overrides = dict(overrides or {})
        self._least_scale = least_scale
        #: Dimensions of arrays, by position; the server does not declare them.
        self._dimensions: dict[int, int] = {}
        require_distinct_names([column.name for column in self._columns])
        import polars

        plain = {kind.name: kind.polars(polars) for kind in KINDS if kind.polars}
        self._kinds = [kind_of(column) for column in self._columns]
        #: None for a numeric whose digits depend on the values.
        self._types = [
            _declared(column) if kind == "numeric" else plain.get(kind, polars.String)
            for column, (kind, _) in zip(self._columns, self._kinds, strict=True)
        ]

    def frame(self, rows: Sequence[tuple[Any, ...]]) -> polars.DataFrame:
        import polars

        by_column: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else [()] * len(self._columns)
        return polars.DataFrame([self._series(n, list(values)) for n, values in enumerate(by_column)])

    def _series(self, n: int, values: list[Any]) -> polars.Series:
        import polars

        name, (kind, is_array) = self._columns[n].name, self._kinds[n]
        override = self._overrides.get(name)
        if kind == "numeric" and not is_array and override is not None:
            dtype = polars.DataType.from_python(override) if isinstance(override, type) else override
            if dtype.is_float() or dtype == polars.String:
                plain = float if dtype.is_float() else str
                return _made(name, [v if v is None else plain(v) for v in values], dtype)
        element = self._types[n]
        if kind in TEMPORAL:
            _require_readable(name, kind, _flat(values) if is_array else values)
        if kind == "numeric":
            numbers = list(_flat(values)) if is_array else [v for v in values if v is not None]
            element = self._types[n] = self._decimal(name, numbers, element)
        if is_array:
            lists = (value for value in values if isinstance(value, list))
            for _ in range(self._dimensions.setdefault(n, max(map(_dimensions, lists), default=1))):
                element = polars.List(element)
        series = _made(name, values, element)
        return series if override is None else _cast(series, override)

    def _decimal(self, name: str, numbers: list[Decimal], declared: Any) -> Any:
        import polars

        if not all(map(Decimal.is_finite, numbers)):
            raise LoadError(
                f"Column {name!r} holds NaN or an infinity, which Polars' decimals cannot hold.",
                remedy=f"Cast it to float8 in the query, or use schema_overrides={{{name!r}: pl.Float64}}.",
            )
        whole, scale = digits_of(numbers)
        if declared is None:
            room = _DIGITS - whole
            declared = polars.Decimal(_DIGITS, max(scale, min(self._least_scale, room)))
        if scale > declared.scale or whole > declared.precision - declared.scale:
            raise LoadError(
                f"Column {name!r} holds a numeric of {whole} digits before the point and {scale} after it, "
                f"which {declared} cannot hold.",
                remedy=f"Round it in the query, or use schema_overrides={{{name!r}: pl.String}}.",
            )
        return declared


def _require_readable(name: str, kind: str, values: Iterable[Any]) -> None:
    found = next((value for value in values if type(value) is _Unreadable), None)
    if found is None:
        return
    raise unreadable(name, kind, has_months=found.has_months)


def _made(name: str, values: list[Any], dtype: Any) -> polars.Series:
    import polars

    try:
        return polars.Series(name, values, dtype=dtype, strict=True)
    # A panic is not an Exception. The texts of both contain values.
    except (Exception, polars.exceptions.PanicException):
        raise LoadError(f"Column {name!r} holds a value that {dtype} cannot hold.", remedy=_REMEDY) from None


def _cast(series: polars.Series, dtype: Any) -> polars.Series:
    import polars

    try:
        cast: polars.Series = series.cast(dtype)
    except (Exception, polars.exceptions.PanicException):
        raise LoadError(
            f"Column {series.name!r} is {series.dtype}, and one of its values is not of type {dtype}.",
            remedy="Set another type in schema_overrides, or cast the column in the query.",
        ) from None
    return cast


def _declared(column: psycopg.Column) -> Any:
    import polars

    digits, scale = column.precision, column.scale
    if digits is None or scale is None or not 0 <= scale <= digits <= _DIGITS:
        return None
    return polars.Decimal(digits, scale)


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        elif value is not None:
            yield value


def _dimensions(value: list[Any]) -> int:
    return 1 + max((_dimensions(item) for item in value if isinstance(item, list)), default=0)
