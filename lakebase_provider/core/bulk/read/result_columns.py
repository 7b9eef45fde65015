"""What a query's columns become in Arrow, and in which form they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from lakebase_provider.core.bulk.types.decimals import Numeric, undeclared
from lakebase_provider.core.bulk.types.postgres_types import BY_NAME
from lakebase_provider.core.connect.cursor import plain_cursor

if TYPE_CHECKING:
    import pyarrow as pa

_ARRAYS = """
SELECT t.oid FROM pg_catalog.pg_type t
WHERE t.oid = ANY(%s) AND EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = t.oid)
"""


@dataclass(frozen=True)
class ResultColumn:
    """A column of a result.

    Attributes:
        name: Its name.
        kind: Name of the Postgres type that the server sends, with ``[]`` behind it for an array.
        arrow_type: What it becomes.
        cast: What the server is to send in its place, of the expression given as ``{0}``; None for itself.
        is_open: Whether it is a numeric, or an array of numerics, that declares no digits: its values may ask
            for another decimal than `arrow_type`.
    """

    name: str
    kind: str
    arrow_type: pa.DataType
    cast: str | None = None
    is_open: bool = False
    refuses_bounds: bool = False


def result_columns(
    connection: psycopg.Connection[Any],
    description: Sequence[psycopg.Column],
    numeric: Numeric = "decimal",
    *,
    for_file: bool = False,
) -> list[ResultColumn]:
    """What the columns of a result become.

    Types that Arrow has none for come as the text that Postgres writes for them, and arrays of them as lists
    of texts.

    Args:
        connection: Asked which of the types that psycopg does not know (enums, extensions' types) are arrays.
        description: The columns, as psycopg describes them.
        numeric: What numerics become.
        for_file: Whether they go to a file that is loaded again, where an interval is its text.
    """
    import pyarrow as pa

    types = connection.adapters.types
    unknown = sorted({column.type_code for column in description if types.get(column.type_code) is None})
    arrays: set[int] = set()
    if unknown:
        with plain_cursor(connection) as cursor:
            arrays = {oid for (oid,) in cursor.execute(_ARRAYS, (unknown,))}
    found = []
    for column in description:
        info = types.get(column.type_code)
        name = "" if info is None else info.name
        array = column.type_code in arrays if info is None else column.type_code == info.array_oid
        as_text = (name == "numeric" and numeric == "text") or (name == "interval" and for_file)
        element = None if as_text else _native(name, column)
        is_open = name == "numeric" and element is not None and column.precision is None
        if element is not None:
            kind, cast = name, None
        else:
            element, kind, cast = pa.string(), "text", _as_text(name, array=array)
        if array:
            found.append(ResultColumn(column.name, f"{kind}[]", pa.list_(element), cast, is_open, for_file))
        else:
            found.append(ResultColumn(column.name, kind, element, cast, is_open))
    return found


def _as_text(name: str, *, array: bool) -> str | None:
    if name == "void":  # an empty text in binary, and no cast to one
        return None
    if name != "inet":
        return "{}::text[]" if array else "{}::text"
    # The cast of an inet adds a mask that its text does not have.
    if not array:
        return "CASE WHEN {0} IS NOT NULL THEN concat({0}) END"
    # The cast keeps the dimensions of what is refused here for having several.
    return (
        "CASE WHEN array_ndims({0}) = 1 THEN ARRAY(SELECT CASE WHEN e IS NOT NULL THEN concat(e) END"
        " FROM unnest({0}) WITH ORDINALITY u (e, n) ORDER BY n) ELSE {0}::text[] END"
    )


def _native(name: str, column: psycopg.Column) -> pa.DataType | None:
    import pyarrow as pa

    if name == "numeric":
        return decimal_type(column.precision, column.scale)
    kind = BY_NAME.get(name)
    return None if kind is None or kind.arrow is None else kind.arrow(pa)


def decimal_type(precision: int | None, scale: int | None) -> pa.DataType:
    """The decimal for a numeric of that precision and scale; None if none is declared."""
    import pyarrow as pa

    if precision is None:
        return undeclared()
    scale = scale or 0
    # Postgres allows a scale beyond the precision, or below zero; Arrow's digits then have to cover it.
    precision = max(precision - min(scale, 0), scale)
    scale = max(scale, 0)
    if precision <= 38:
        return pa.decimal128(precision, scale)
    return pa.decimal256(min(precision, 76), min(scale, 76))
