"""One output as one load, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

from dagster_lakebase.io_manager.outputs import source_of
from dagster_lakebase.io_manager.write_options import WriteOptions
from lakebase_provider.core.bulk.load.load import load
from lakebase_provider.core.bulk.load.result import LoadResult
from lakebase_provider.core.database.catalog import Table, TableName


def store(
    connection: psycopg.Connection[Any],
    name: TableName,
    value: Any,
    options: WriteOptions,
    partition_of: Callable[[Table], sql.Composable | None] | None,
) -> tuple[LoadResult, sql.Composable | None]:
    """Create or evolve the table as the output needs it, and load the output.

    Args:
        connection: The connection whose transaction it becomes part of.
        name: The table.
        value: A frame, an Arrow table, or a stream of record batches.
        options: How.
        partition_of: The condition for the rows of the run's partitions in the table; None for an asset
            without partitions.

    Returns:
        What became of the rows, and that condition.

    Raises:
        LoadError: The output does not fit the table.
        ConfigError: What should name a column or a partition, or be a type, is none.
    """
    partition: sql.Composable | None = None

    def where(table: Table) -> sql.Composable:
        nonlocal partition
        # Without partitions all rows are deleted: a new table in the place of the old one would be empty to
        # a snapshot that was taken before.
        partition = None if partition_of is None else partition_of(table)
        return sql.SQL("true") if partition is None else partition

    result = load(
        connection,
        source_of(value),
        name,
        mode=options.mode,
        keys=options.keys or None,
        delete=options.delete,
        where=None if partition_of is None and options.mode != "replace" else where,
        count_outside=partition_of is not None,
        create=True,
        schema_evolution=options.schema_evolution,
    )
    return result, partition
