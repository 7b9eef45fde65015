"""A table for what is to be loaded: an Arrow schema's columns as Postgres columns."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from psycopg import sql

from lakebase_provider.core.base.sql.names import identifier
from lakebase_provider.core.bulk.files.csv_format import PLAIN_CSV, CsvFormat
from lakebase_provider.core.bulk.sources.open import open_source
from lakebase_provider.core.bulk.sources.source import Source
from lakebase_provider.core.bulk.types.arrow import KNOWN_EXTENSIONS
from lakebase_provider.core.bulk.types.postgres_types import BY_NAME, KINDS
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import Table, TableName, read_table
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError, TableNotFoundError
from lakebase_provider.core.errors.remedy import Remedy

if TYPE_CHECKING:
    import pyarrow as pa

#: Precision that means a numeric without bounds: Arrow has none, and nobody declares all its digits.
_ANY_PRECISION = 76


def create_table(
    connection: psycopg.Connection[Any],
    name: TableName,
    schema: pa.Schema,
    *,
    keys: Sequence[str] = (),
) -> Table:
    """Create a table for an Arrow schema, if none has that name.

    Args:
        connection: The connection whose transaction it becomes part of.
        name: The table's name.
        schema: Names and types of its columns.
        keys: Names of the primary key's columns; no primary key if empty.

    Returns:
        The table as the catalog describes it; it may have existed.

    Raises:
        ConfigError: A name is invalid, or a type has no counterpart.
        ColumnMismatchError: A name occurs twice, or a key is not among the columns.
    """
    names = [identifier(column) for column in schema.names]
    twice = sorted({column for column in names if names.count(column) > 1})
    if not names or twice:
        what = f"has {', '.join(map(repr, twice))} twice" if twice else "has no columns"
        raise ColumnMismatchError(f"The source {what}: cannot create table {name} for it.")
    missing = [key for key in keys if key not in names]
    if missing:
        raise ColumnMismatchError(f"The source has no column {', '.join(map(repr, missing))}.")
    parts: list[sql.Composable] = [
        sql.SQL("{} {}").format(sql.Identifier(field.name), sql.SQL(_type_of(field.type, field.name)))
        for field in schema
    ]
    if keys:
        parts.append(sql.SQL("PRIMARY KEY ({})").format(sql.SQL(", ").join(map(sql.Identifier, keys))))
    plain_cursor(connection).execute(
        sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(name.sql(), sql.SQL(", ").join(parts))
    )
    return read_table(connection, name)


def column_type(kind: pa.DataType) -> str:
    """The type that holds every value of an Arrow type, as Postgres writes it.

    Raises:
        ConfigError: There is none.
    """
    return _type_of(kind, "")


def _type_of(kind: pa.DataType, column: str) -> str:
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
        return _type_of(kind.value_type, column)
    if types.is_decimal(kind):
        if kind.precision == _ANY_PRECISION:
            return "numeric"
        # A negative scale counts zeros before the point.
        return f"numeric({kind.precision + max(-kind.scale, 0)},{max(kind.scale, 0)})"
    if types.is_timestamp(kind):
        return BY_NAME["timestamp" if kind.tz is None else "timestamptz"].sql
    if types.is_uint64(kind):
        return "numeric(20,0)"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        element = _type_of(kind.value_type, column)
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


def ensure_table(
    connection: psycopg.Connection[Any],
    name: TableName,
    source: Any,
    *,
    columns: Sequence[str] | None = None,
    keys: Sequence[str] = (),
    csv: CsvFormat = PLAIN_CSV,
) -> tuple[Table, Source]:
    """The table, created for the source if it is missing; and the source, opened.

    Args:
        connection: The connection whose transaction it becomes part of.
        name: The table's name.
        source: Rows, as :func:`~lakebase_provider.core.bulk.sources.open.open_source` takes them.
        columns: The columns to take from the source; for rows without names, their names.
        keys: Names of the primary key's columns.
        csv: The format of CSV files.

    Raises:
        ConfigError: The source's columns are unknown, or a type has no counterpart.
        ColumnMismatchError: A name occurs twice, or a key is not among the columns.
    """
    opened = open_source(source, columns, csv)
    try:
        try:
            return read_table(connection, name), opened
        except TableNotFoundError:
            schema, opened = _described(opened, columns)
            return create_table(connection, name, schema, keys=keys), opened
    except BaseException:
        opened.close()
        raise


def _described(source: Source, columns: Sequence[str] | None) -> tuple[pa.Schema, Source]:
    """The source's schema, inferred from its first batch if unknown; and the same source."""
    import pyarrow as pa

    if source.schema is not None and source.column_names is not None:
        return source.schema, source
    names = source.column_names or (None if columns is None else tuple(columns))
    if names is None:
        raise ConfigError(
            "The rows have no column names with which to create a table.",
            remedy="Set columns=, give the rows as dicts, or create the table first.",
        )
    batches = source.batches()
    first = next(batches, None)
    values = [()] * len(names) if first is None else first.columns
    schema = pa.schema([(name, _inferred(name, column)) for name, column in zip(names, values, strict=True)])
    rest = batches if first is None else chain([first], batches)
    again = Source(
        source.description,
        lambda: rest,
        column_names=source.column_names,
        width=source.width,
        close=source.close,
    )
    return schema, again


def _inferred(name: str, values: Any) -> pa.DataType:
    import pyarrow as pa

    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {UUID}:
        return pa.uuid()
    if kinds == {Decimal}:
        # The digits of the first rows are no bound.
        return pa.decimal256(_ANY_PRECISION, 0)
    try:
        return pa.array(values).type
    except (pa.ArrowException, OverflowError) as error:
        raise ConfigError(
            f"The type of column {name!r} cannot be inferred from the first rows.",
            remedy="Create the table first, or give Arrow data, whose types are known.",
        ) from error
