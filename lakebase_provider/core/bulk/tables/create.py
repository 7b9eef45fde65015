"""A table for what is to be loaded: a source's columns as Postgres columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, time
from itertools import chain
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from lakebase_provider.core.base.sql.names import identifier
from lakebase_provider.core.bulk.sources.source import Source, no_columns
from lakebase_provider.core.bulk.types.arrow import ANY_PRECISION, KNOWN_EXTENSIONS, inferred_type, is_list
from lakebase_provider.core.bulk.types.postgres_types import BY_NAME, BY_VALUES, KINDS, Kind
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import Table, TableName, read_table
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError
from lakebase_provider.core.errors.remedy import Remedy

if TYPE_CHECKING:
    import pyarrow as pa


#: Below it are the integers that eight bytes hold.
_LIMIT = 1 << 63


def columns_for(source: Source, columns: Sequence[str] | None = None) -> tuple[dict[str, str], Source]:
    """The columns that hold a source's rows, by name with their types as Postgres writes them.

    Args:
        source: The source; of one whose types show only as rows come, the first batch is read.
        columns: The names of the columns that rows without names have.

    Returns:
        The columns, and the same source with all its rows.

    Raises:
        ConfigError: The source does not tell its columns, a name is none, or a type has no counterpart.
        ColumnMismatchError: It has no columns, or its values do not show a column's type.
    """
    described, source = _described(source, columns)
    if not described:
        raise no_columns()
    return {identifier(name): type_name for name, type_name in described}, source


def create_table(
    connection: psycopg.Connection[Any], name: TableName, columns: Mapping[str, str], keys: Sequence[str]
) -> Table:
    """Create a table.

    Args:
        connection: The connection whose transaction it becomes part of.
        name: The table's name.
        columns: By name of each column, its type as SQL writes it.
        keys: Names of the primary key's columns; no primary key if empty.

    Raises:
        ColumnMismatchError: A key is not among the columns.
    """
    if missing := [key for key in keys if key not in columns]:
        raise ColumnMismatchError(f"The source has no column {', '.join(map(repr, missing))}.")
    parts: list[sql.Composable] = [
        # A type is one of the house's own words, or as the server has quoted it.
        sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(type_name))
        for column, type_name in columns.items()
    ]
    if keys:
        parts.append(sql.SQL("PRIMARY KEY ({})").format(sql.SQL(", ").join(map(sql.Identifier, keys))))
    plain_cursor(connection).execute(
        sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(name.sql(), sql.SQL(", ").join(parts))
    )
    return read_table(connection, name)


def column_type(kind: pa.DataType, column: str = "") -> str:
    """The type that holds every value of an Arrow type, as Postgres writes it.

    Args:
        kind: The Arrow type.
        column: The column's name, for the error.

    Raises:
        ConfigError: There is none.
    """
    import pyarrow as pa

    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        found = KNOWN_EXTENSIONS.get(kind.extension_name)
        if found is None:
            raise ConfigError(
                f"Column {column!r} is of the unknown extension type {kind.extension_name!r}.",
                remedy="Cast it in the source to a standard type, such as text.",
            )
        return found
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return column_type(kind.value_type, column)
    if types.is_decimal(kind):
        if kind.precision == ANY_PRECISION:
            return "numeric"
        # A negative scale counts zeros before the point.
        return f"numeric({kind.precision + max(-kind.scale, 0)},{max(kind.scale, 0)})"
    if types.is_timestamp(kind):
        return BY_NAME["timestamp" if kind.tz is None else "timestamptz"].sql
    if types.is_uint64(kind):
        return "numeric(20,0)"
    if is_list(kind):
        element = column_type(kind.value_type, column)
        return element if element.endswith("[]") else f"{element}[]"
    for test, name in _TYPES:
        if getattr(types, test)(kind):
            return name
    raise ConfigError(
        f"Column {column!r} is of Arrow's type {kind}, which has no Postgres equivalent.",
        remedy=Remedy(
            "Cast it in the source, or create the table and load without create=True.",
            options=("create",),
            otherwise="Cast it in the source, such as to text.",
        ),
    )


#: Arrow's tests of a type, and the type of Postgres that holds all its values.
_TYPES = tuple((f"is_{name}", kind.sql) for kind in KINDS for name in kind.holds)


def _described(source: Source, columns: Sequence[str] | None) -> tuple[list[tuple[str, str]], Source]:
    """The source's columns with their types, if unknown those of its first batch; and the same source."""
    if source.schema is not None and source.column_names is not None:
        return _typed(source.schema), source
    names = source.column_names
    if names is None and columns is not None:
        names = tuple(columns)
    if names is None:
        raise ConfigError(
            "The rows have no column names with which to create a table.",
            remedy=Remedy(
                "Set columns=, give the rows as dicts, or create the table first.",
                options=("columns",),
                otherwise="Give rows with a schema, such as a pyarrow.RecordBatchReader.",
            ),
        )
    if source.describe is not None:
        return _typed(source.describe(names)), source
    batches = source.batches()
    first = next(batches, None)
    values = [()] * len(names) if first is None else first.columns
    found = [(name, _type_in(name, column)) for name, column in zip(names, values, strict=True)]
    rest = batches if first is None else chain([first], batches)
    again = Source(
        source.description,
        lambda: rest,
        column_names=source.column_names,
        width=source.width,
        close=source.close,
        python=source.python,
    )
    return found, again


def _typed(schema: pa.Schema) -> list[tuple[str, str]]:
    return [(field.name, column_type(field.type, field.name)) for field in schema]


def _type_in(name: str, values: Sequence[Any]) -> str:
    """The type that shows in Python values, which is the one that Arrow infers."""
    found = _plain_type(values)
    return column_type(inferred_type(name, values, "the first rows"), name) if found is None else found


def _plain_type(values: Sequence[Any]) -> str | None:
    """The same without Arrow's import, where they are of one plain type, or lists of one; else None."""
    known = [value for value in values if value is not None]
    kinds = set(map(type, known))
    if not kinds:
        return BY_NAME["text"].sql
    if kinds == {list}:
        element = _plain_type(list(chain.from_iterable(known)))
        return element if element is None or element.endswith("[]") else f"{element}[]"
    found = BY_VALUES.get(kinds.pop())
    return None if found is None or kinds else _holding(found, known)


def _holding(kind: Kind, values: Sequence[Any]) -> str | None:
    """The type, if it holds all the values of its type of Python's; or its twin with a time zone."""
    if kind.values is int:
        return kind.sql if -_LIMIT <= min(values) <= max(values) < _LIMIT else None
    if kind.values not in (datetime, time):
        return kind.sql
    zoned = {value.tzinfo is not None for value in values}
    if zoned == {False}:
        return kind.sql
    return BY_NAME["timestamptz"].sql if kind.values is datetime and zoned == {True} else None
