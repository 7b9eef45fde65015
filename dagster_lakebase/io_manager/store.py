"""One output into one table, step by step, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from dagster_lakebase.io_manager.outputs import Source, source_of
from dagster_lakebase.io_manager.write_options import WriteOptions
from lakebase_provider.core.base.sql.names import identifier
from lakebase_provider.core.bulk.load.copy_in import copy_in
from lakebase_provider.core.bulk.tables.create import column_type
from lakebase_provider.core.bulk.tables.evolve import canonical_type, evolve
from lakebase_provider.core.bulk.tables.merge import Counts, Merge
from lakebase_provider.core.database.catalog import Table, TableName, find_table, lock, read_table
from lakebase_provider.core.database.facts import TableRef, count_rows
from lakebase_provider.core.database.refusals import typed_errors
from lakebase_provider.core.errors import ColumnMismatchError, LoadError

_STAGE = TableName("lakebase_stage", "pg_temp")


@dataclass(frozen=True)
class Stored:
    """What was written.

    Attributes:
        table: The table, as it is now.
        rows: Rows of the output.
        changes: What was changed about the table, one line each.
        counts: What became of the table's rows, without those deleted before.
        partition: The condition for the rows of the run's partitions; None where there are none.
        outside: Rows of the output that belong to other partitions.
    """

    table: Table
    rows: int
    changes: list[str]
    counts: Counts
    partition: sql.Composable | None
    outside: int

    @property
    def unchanged(self) -> int:
        """Rows of the output that the table had already, or that a later row of the same key replaced."""
        return self.rows - self.counts.inserted - self.counts.updated


def lock_rows(connection: psycopg.Connection[Any], table: Table, condition: sql.Composable | None) -> None:
    """Wait until nobody else replaces the rows for which the condition holds, or all."""
    shown = "" if condition is None else condition.as_string(connection)
    lock(connection, f"rows {table.name} {shown}")


def delete_rows(connection: psycopg.Connection[Any], table: Table, condition: sql.Composable | None) -> int:
    """Delete the rows for which the condition holds, or all, once nobody else replaces the same ones.

    Without the lock, two runs that replace the same partition would each delete what was there before, and
    both leave their rows.

    Returns:
        How many they were.
    """
    lock_rows(connection, table, condition)
    # Not TRUNCATE, which would make readers wait, and would let a snapshot taken before see no rows.
    statement = sql.SQL("DELETE FROM {}").format(table.name.sql())
    if condition is not None:
        statement = sql.SQL("{} WHERE {}").format(statement, condition)
    return connection.execute(statement).rowcount


def store(
    connection: psycopg.Connection[Any],
    name: TableName,
    value: Any,
    options: WriteOptions,
    *,
    emptied: bool,
    partition_of: Callable[[Table], sql.Composable | None],
) -> Stored:
    """Create or evolve the table as the output needs it, and load the output.

    Args:
        connection: The connection whose transaction it becomes part of.
        name: The table.
        value: A frame, an Arrow table, or a stream of record batches.
        options: How.
        emptied: Whether the transaction has deleted all rows of the table, if there is one.
        partition_of: The condition for the rows of the run's partitions in the table.

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
    partition = partition_of(table)
    # The server's own words would quote the value of a row that it refuses.
    with typed_errors(f"Write to {name}"):
        if source.schema is None:
            deleted = delete_rows(connection, table, partition) if options.delete == "missing" else 0
            return Stored(table, 0, changes, Counts(deleted=deleted), partition, 0)
        rows, counts, outside = _load(connection, table, source, options, partition)
    return Stored(table, rows, changes, counts, partition, outside)


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


def _load(
    connection: psycopg.Connection[Any],
    table: Table,
    source: Source,
    options: WriteOptions,
    partition: sql.Composable | None,
) -> tuple[int, Counts, int]:
    """Load the rows: how many they are, what became of them, and how many belong to other partitions."""
    assert source.schema is not None
    names = source.schema.names
    if options.mode == "upsert":
        return _merge(connection, table, source, options, partition)
    if options.mode == "append" and partition is not None:
        return _append(connection, table, source, partition)
    rows = copy_in(connection, source.rows, table, columns=names).rows
    outside = 0
    if partition is not None:
        # What was there is deleted, so that what is there now is of this run.
        where = TableRef(table.name.schema or "public", table.name.table)
        outside = rows - count_rows(connection, [where], partition)[where]
    return rows, Counts(inserted=rows), outside


def _append(
    connection: psycopg.Connection[Any], table: Table, source: Source, partition: sql.Composable
) -> tuple[int, Counts, int]:
    """Add the rows by way of a temporary table: after a COPY nothing tells them from those beside them."""
    rows, names = _staged(connection, table, source)
    # RETURNING sees what the server computes, too, which may tell the partition.
    statement = sql.SQL(
        "WITH written AS (INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE"
        " SELECT {columns} FROM {stage}"
        " RETURNING ({partition}) IS TRUE AS inside) SELECT count(*) FILTER (WHERE NOT inside) FROM written"
    ).format(table=table.name.sql(), columns=_columns(names), stage=_STAGE.sql(), partition=partition)
    row = connection.execute(statement).fetchone()
    _drop_stage(connection)
    assert row is not None
    return rows, Counts(inserted=rows), int(row[0])


def _merge(
    connection: psycopg.Connection[Any],
    table: Table,
    source: Source,
    options: WriteOptions,
    partition: sql.Composable | None,
) -> tuple[int, Counts, int]:
    missing = options.delete == "missing"
    if missing:
        lock_rows(connection, table, partition)
    rows, names = _staged(connection, table, source)
    merge = Merge(
        table=table,
        stage=_STAGE,
        columns=names,
        keys=options.keys,
        delete_missing=missing,
        slice=partition if missing else None,
    )
    counts = merge.run(connection, rows)
    outside = 0
    if partition is not None:
        # Of the table and not of the stage: the server may compute what tells the partition.
        query = sql.SQL(
            "SELECT count(*) FROM {table} WHERE ({keys}) IN (SELECT {keys} FROM {stage})"
            " AND ({partition}) IS NOT TRUE"
        ).format(table=table.name.sql(), keys=_columns(options.keys), stage=_STAGE.sql(), partition=partition)
        row = connection.execute(query).fetchone()
        assert row is not None
        outside = int(row[0])
    _drop_stage(connection)
    return rows, counts, outside


def _staged(connection: psycopg.Connection[Any], table: Table, source: Source) -> tuple[int, Sequence[str]]:
    """Copy the rows into a temporary table: how many they are, and their columns."""
    assert source.schema is not None
    names = source.schema.names
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            sql.Identifier(_STAGE.table), _columns(names), table.name.sql()
        )
    )
    return copy_in(connection, source.rows, table, into=_STAGE, columns=names).rows, names


def _drop_stage(connection: psycopg.Connection[Any]) -> None:
    connection.execute(sql.SQL("DROP TABLE {}").format(_STAGE.sql()))


def _columns(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)
