"""One output into one table, step by step, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from dagster_lakebase.sources import Source, source_of
from dagster_lakebase.write_options import WriteOptions
from lakebase_provider.core.bulk.copy_in import copy_in
from lakebase_provider.core.bulk.create import column_type
from lakebase_provider.core.bulk.evolve import canonical_type, evolve
from lakebase_provider.core.bulk.failures import typed_errors
from lakebase_provider.core.bulk.identifiers import identifier
from lakebase_provider.core.bulk.merge import Merge
from lakebase_provider.core.bulk.table import Table, TableName, read_table
from lakebase_provider.core.errors import ColumnMismatchError, LoadError, TableNotFoundError

#: The first key of the advisory locks, so that they meet only their like: "lkbs" as a number.
_LOCK_SPACE = 0x6C6B6273
_STAGE = TableName("lakebase_stage", "pg_temp")


@dataclass(frozen=True)
class Stored:
    """What was written.

    Attributes:
        table: The table, as it is now.
        rows: Rows of the output.
        changes: What was changed about the table, one line each.
    """

    table: Table
    rows: int
    changes: list[str]


def find_table(connection: psycopg.Connection[Any], name: TableName) -> Table | None:
    """The table, or None if there is none; the transaction goes on in either case."""
    try:
        return read_table(connection, name)
    except TableNotFoundError:
        return None


def ensure_schema(connection: psycopg.Connection[Any], name: str) -> None:
    """Create the schema if it is not there; a role that may not create one needs no right if it is."""
    query = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s"
    if connection.execute(query, [name]).fetchone() is None:
        lock(connection, f"schema {name}")
        identifier(name, what="schema")
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(name)))


def lock(connection: psycopg.Connection[Any], what: str) -> None:
    """Wait until no other transaction of this package does the same; the lock ends with the transaction."""
    connection.execute(
        "SELECT pg_catalog.pg_advisory_xact_lock(%s, pg_catalog.hashtext(%s))", [_LOCK_SPACE, what]
    )


def delete_rows(connection: psycopg.Connection[Any], table: Table, condition: sql.Composable | None) -> None:
    """Delete the rows for which the condition holds, or all, once nobody else replaces the same ones.

    Without the lock, two runs that replace the same partition would each delete what was there before, and
    both leave their rows.
    """
    shown = "" if condition is None else condition.as_string(connection)
    lock(connection, f"rows {table.name} {shown}")
    # Not TRUNCATE, which would make readers wait, and would let a snapshot taken before see no rows.
    statement = sql.SQL("DELETE FROM {}").format(table.name.sql())
    if condition is not None:
        statement = sql.SQL("{} WHERE {}").format(statement, condition)
    connection.execute(statement)


def count_rows(
    connection: psycopg.Connection[Any], table: Table, condition: sql.Composable | None = None
) -> int:
    """Rows for which the condition holds, or all."""
    query = sql.SQL("SELECT count(*) FROM {}").format(table.name.sql())
    if condition is not None:
        query = sql.SQL("{} WHERE {}").format(query, condition)
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def store(
    connection: psycopg.Connection[Any],
    name: TableName,
    value: Any,
    options: WriteOptions,
    *,
    emptied: bool,
) -> Stored:
    """Create or evolve the table as the output needs it, and load the output.

    Args:
        connection: The connection whose transaction it becomes part of.
        name: The table.
        value: A frame, an Arrow table, or a stream of record batches.
        options: How.
        emptied: Whether the transaction has deleted all rows of the table, if there is one.

    Raises:
        LoadError: The output does not fit the table.
        psycopg.Error: The server refuses a statement.
    """
    source = source_of(value)
    wanted = _wanted(source, options)
    table = find_table(connection, name)
    changes: list[str] = []
    if table is None:
        # Two partitions of a new asset are often written at the same time.
        lock(connection, f"table {name}")
        table = find_table(connection, name)
    if table is None:
        if source.schema is None:
            raise LoadError(
                f"Table {name} does not exist, and a stream without a single batch tells no columns.",
                remedy="Return a pyarrow.RecordBatchReader, which has a schema, or one empty batch.",
            )
        _create(connection, name, wanted, options.keys)
        changes.append("CREATE TABLE")
    elif source.schema is not None:
        changes += evolve(connection, table, wanted, options.schema_evolution, emptied=emptied)
    if changes or table is None:
        table = read_table(connection, name)
    # The server's own words would quote the value of a row that it refuses.
    with typed_errors(f"Write to {name}"):
        rows = 0 if source.schema is None else _load(connection, table, source, options)
    return Stored(table, rows, changes)


def _wanted(source: Source, options: WriteOptions) -> dict[str, str]:
    """The source's columns with their types, checked before anything is sent."""
    if source.schema is None:
        return {}
    names = source.schema.names
    if not names:
        raise ColumnMismatchError("The output has no columns.", remedy="Return a frame with columns.")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ColumnMismatchError(
            f"The output has several columns named {', '.join(map(repr, repeated))}.", remedy="Rename them."
        )
    for name in names:
        identifier(name)
    if missing := [key for key in options.keys if key not in names]:
        raise ColumnMismatchError(
            f"The output lacks {', '.join(map(repr, missing))}, by which it is to be merged.",
            remedy="Correct lakebase/keys, or add the column.",
        )
    wanted = {field.name: canonical_type(column_type(field.type)) for field in source.schema}
    for name in source.inferred:
        # Tomorrow's decimals may have more digits than today's.
        if wanted[name].startswith("numeric("):
            wanted[name] = "numeric"
    return wanted


def _create(
    connection: psycopg.Connection[Any], name: TableName, wanted: dict[str, str], keys: Sequence[str]
) -> None:
    parts: list[sql.Composable] = [
        # The name is quoted, the type is one of the house's own words.
        sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(type_name))
        for column, type_name in wanted.items()
    ]
    if keys:
        parts.append(sql.SQL("PRIMARY KEY ({})").format(_columns(keys)))
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(name.sql(), sql.SQL(", ").join(parts)))


def _load(connection: psycopg.Connection[Any], table: Table, source: Source, options: WriteOptions) -> int:
    assert source.schema is not None
    names = source.schema.names
    if options.mode != "upsert":
        return copy_in(connection, source.rows, table, columns=names).rows
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            sql.Identifier(_STAGE.table), _columns(names), table.name.sql()
        )
    )
    rows = copy_in(connection, source.rows, table, into=_STAGE, columns=names).rows
    Merge(table=table, stage=_STAGE, columns=names, keys=options.keys).run(connection, rows)
    connection.execute(sql.SQL("DROP TABLE {}").format(_STAGE.sql()))
    return rows


def _columns(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)
