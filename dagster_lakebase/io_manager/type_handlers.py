"""Converts between tables and the inputs and outputs of assets: pandas, Polars, Arrow."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.db_io_manager import DbTypeHandler, TableSlice

from dagster_lakebase.io_manager.db_client import LakebaseDbClient, is_partitioned, table_name
from dagster_lakebase.io_manager.store import store
from dagster_lakebase.tables.assets import column_schema
from lakebase_provider.core.base.plain_text import code_block
from lakebase_provider.core.bulk.read.batches import read_batches, read_whole
from lakebase_provider.core.bulk.read.to_frames import frame_of
from lakebase_provider.core.database.catalog import find_table
from lakebase_provider.core.database.facts import TableRef, count_rows, fetch_table_facts
from lakebase_provider.core.errors import ColumnMismatchError, LoadError, TableNotFoundError

if TYPE_CHECKING:
    import pyarrow as pa

    from lakebase_provider.core.connect.connection import LakebaseConnection


class LakebaseTypeHandler(DbTypeHandler[Any]):
    """Stores all kinds of frames, and loads them in one form.

    Args:
        client: Knows how to write the output, and which rows belong to its partitions.
        form: ``"pandas"``, ``"polars"``, ``"lazy"``, ``"arrow"`` or ``"batches"``.
        types: The types that it stores and loads.
    """

    def __init__(self, client: LakebaseDbClient, form: str, types: Sequence[type]) -> None:
        self._client = client
        self._types = types
        self.form = form

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The types that it stores and loads."""
        return self._types

    def handle_output(
        self, context: dg.OutputContext, table_slice: TableSlice, obj: Any, connection: LakebaseConnection
    ) -> Mapping[str, Any]:
        """Load the output into its table, replacing the rows that it should.

        Returns:
            Metadata: the columns, the number of rows, and how many were inserted, updated and so on.

        Raises:
            LoadError: The output does not fit the table, or has rows outside its partitions.
        """
        options = self._client.options(context)
        replaced, partitioned = options.mode == "replace", is_partitioned(context)
        stored, partition = store(
            connection,
            table_name(table_slice),
            obj,
            options,
            partial(self._client.condition, context, connection) if partitioned else None,
        )
        if stored.outside:
            raise LoadError(
                f"{stored.outside} of {stored.rows} rows do not belong to this run's partitions: the run of "
                "their own partition would write them again.",
                remedy="Filter the output by the partition, or correct partition_expr.",
            )
        if not stored.rows and hasattr(obj, "read_next_batch"):
            context.log.warning(
                "Table %s: the reader gave no rows; %d were removed. A reader whose rows other code has read "
                "gives none either, without a sign of it.",
                stored.table,
                stored.deleted,
            )
        for change in stored.changes:
            context.log.info("Table %s: %s", stored.table, change)
        name = TableRef(table_slice.schema, table_slice.table)
        facts = fetch_table_facts(connection, [name])[name]
        query = self._client.select(table_slice, partition).as_string(connection)
        metadata: dict[str, Any] = {
            "dagster/column_schema": column_schema(facts),
            "Query": dg.MetadataValue.md(code_block("sql", query)),
            "lakebase/rows_written": stored.rows,
            "lakebase/inserted": stored.inserted,
            "lakebase/updated": stored.updated,
            "lakebase/unchanged": stored.unchanged,
            "lakebase/deleted": stored.deleted,
        }
        if partitioned and replaced:
            metadata["dagster/partition_row_count"] = stored.rows
        elif partitioned:
            metadata["dagster/partition_row_count"] = count_rows(connection, [name], partition)[name]
        elif replaced:
            metadata["dagster/row_count"] = stored.rows
        elif facts.is_soon_counted():
            metadata["dagster/row_count"] = count_rows(connection, [name])[name]
        return metadata

    def load_input(
        self, context: dg.InputContext, table_slice: TableSlice, connection: LakebaseConnection
    ) -> Any:
        """The table's rows of the input's partitions, all of them in memory.

        Raises:
            TableNotFoundError: The table does not exist, but should.
        """
        query = self.query(context, table_slice, connection)
        if query is None:
            return frame_of(_nothing().to_reader(), self.form)
        with read_whole(connection, query) as batches:
            return frame_of(batches, self.form)

    def query(self, context: dg.InputContext, table_slice: TableSlice, connection: LakebaseConnection) -> Any:
        """The query for the input's rows; None if no table has been written yet.

        Raises:
            TableNotFoundError: The table does not exist, but should.
            ColumnMismatchError: The table lacks a column that the input names.
        """
        table = find_table(connection, table_name(table_slice))
        if table is None:
            if is_partitioned(context) and (not context.asset_partition_keys or _is_self_dependency(context)):
                return None
            raise TableNotFoundError(
                f"Table {TableRef(table_slice.schema, table_slice.table)} does not exist.",
                remedy="Materialize the upstream asset first.",
            )
        if unknown := [name for name in table_slice.columns or () if table.column(name) is None]:
            raise ColumnMismatchError(
                f"Table {table.name} has no column {', '.join(map(repr, unknown))}, which the metadata "
                f"'columns' of input {context.name!r} names.",
                remedy=f"It has: {', '.join(column.name for column in table.columns)}.",
            )
        return self._client.select(table_slice, self._client.condition(context, connection, table))

    def read_lazily(
        self, context: dg.InputContext, table_slice: TableSlice, opened: Any
    ) -> pa.RecordBatchReader:
        """A reader that holds a connection until it is exhausted or discarded.

        Args:
            context: The input.
            table_slice: Its table.
            opened: Context manager of a connection.
        """
        import pyarrow as pa

        stream = self._stream(context, table_slice, opened)
        schema = next(stream)
        return pa.RecordBatchReader.from_batches(schema, stream)

    def _stream(self, context: dg.InputContext, table_slice: TableSlice, opened: Any) -> Iterator[Any]:
        with opened as connection:
            query = self.query(context, table_slice, connection)
            if query is None:
                yield _nothing().schema
                return
            with read_batches(connection, query) as batches:
                yield batches.schema
                yield from batches


def type_handlers(client: LakebaseDbClient) -> list[LakebaseTypeHandler]:
    """A handler for each kind of frame whose library this process has imported.

    An object from a library that is not imported cannot occur, and importing it would cost each step seconds.
    """
    handlers = []
    if pyarrow := sys.modules.get("pyarrow"):
        handlers.append(LakebaseTypeHandler(client, "arrow", [pyarrow.Table, pyarrow.RecordBatch]))
        handlers.append(LakebaseTypeHandler(client, "batches", [pyarrow.RecordBatchReader]))
    if pandas := sys.modules.get("pandas"):
        handlers.append(LakebaseTypeHandler(client, "pandas", [pandas.DataFrame]))
    if polars := sys.modules.get("polars"):
        handlers.append(LakebaseTypeHandler(client, "polars", [polars.DataFrame]))
        handlers.append(LakebaseTypeHandler(client, "lazy", [polars.LazyFrame]))
    # Last, for readers are iterators too.
    handlers.append(LakebaseTypeHandler(client, "batches", [Iterator]))
    return handlers


def _nothing() -> pa.Table:
    import pyarrow as pa

    return pa.table({})


def _is_self_dependency(context: dg.InputContext) -> bool:
    try:
        outputs = context.step_context.step.step_outputs
    except dg.DagsterInvariantViolationError:
        return False
    return context.asset_key in {output.properties.asset_key for output in outputs}
