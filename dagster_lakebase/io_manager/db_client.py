"""The database as Dagster's DbIOManager sees it."""

# DbClient declares these methods static. Here they need the pool, which an instance holds: a static connect
# sees only the I/O manager's configuration, and would open a connection for each output and input.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.db_io_manager import DbClient, TableSlice
from psycopg import sql

from dagster_lakebase.io_manager.partitions import rows_of_partitions
from dagster_lakebase.io_manager.write_options import WriteOptions
from dagster_lakebase.resource.step_name import name_session, step_name
from lakebase_provider.core.database.catalog import Table, TableName, find_table
from lakebase_provider.core.database.facts import TableRef

if TYPE_CHECKING:
    from dagster_lakebase.resource.resource import LakebaseResource
    from lakebase_provider.core.connect.connection import LakebaseConnection


class LakebaseDbClient(DbClient["LakebaseConnection"]):
    """Tables of one database, on the connections of one pool.

    Args:
        lakebase: Lends the connections.
        defaults: How to write outputs whose metadata does not say.
    """

    def __init__(self, lakebase: LakebaseResource, defaults: WriteOptions) -> None:
        self._lakebase = lakebase
        self._defaults = defaults

    @contextmanager
    def connect(  # type: ignore[override] # see above
        self, context: dg.OutputContext | dg.InputContext, table_slice: TableSlice
    ) -> Iterator[LakebaseConnection]:
        """A connection in one transaction, committed at the end or rolled back on an error."""
        # Asked for here: a branch deployment's branch is made at the first use.
        client = self._lakebase.client
        with client.connection() as connection:
            name_session(connection, client.config, _name(context))
            yield connection

    def restore_point_metadata(self, context: dg.OutputContext) -> dict[str, str]:
        """What an output's metadata say about the moment before it is written, if that is asked for."""
        if not self.options(context).restore_point:
            return {}
        return self._lakebase.restore_point_metadata(context.log)

    def branch_metadata(self) -> dict[str, str]:
        """What an output's metadata say about the branch, once the output is committed there."""
        return self._lakebase.branch_metadata()

    def options(self, context: dg.OutputContext) -> WriteOptions:
        """How the output is written.

        Raises:
            ConfigError: Its metadata are wrong.
        """
        return WriteOptions.of(context.definition_metadata or {}, self._defaults)

    def ensure_schema_exists(  # type: ignore[override] # see above
        self, context: dg.OutputContext, table_slice: TableSlice, connection: LakebaseConnection
    ) -> None:
        """Nothing: what writes the output creates what is missing."""

    def delete_table_slice(  # type: ignore[override] # see above
        self, context: dg.OutputContext, table_slice: TableSlice, connection: LakebaseConnection
    ) -> None:
        """Nothing: what writes the output deletes what it replaces."""

    def has_table(self, connection: LakebaseConnection, table_slice: TableSlice) -> bool:
        """Whether there is anything to load."""
        return find_table(connection, table_name(table_slice)) is not None

    def condition(
        self, context: dg.OutputContext | dg.InputContext, connection: LakebaseConnection, table: Table
    ) -> sql.Composable | None:
        """The condition for the rows of the context's partitions; None if the asset has none."""
        if not is_partitioned(context):
            return None
        output = context if isinstance(context, dg.OutputContext) else context.upstream_output
        metadata = (output.definition_metadata if output is not None else None) or {}
        expression: Any = metadata.get("partition_expr")
        return rows_of_partitions(
            connection,
            table,
            context.asset_partitions_def,
            context.asset_partition_keys,
            getattr(expression, "value", expression),
        )

    @staticmethod
    def get_table_name(table_slice: TableSlice) -> str:
        """The table as ``dagster/table_name`` shows it."""
        return str(TableRef(table_slice.schema, table_slice.table))

    def get_select_statement(self, table_slice: TableSlice) -> str:  # type: ignore[override] # see above
        """The query for all rows of the table, to show."""
        return self.select(table_slice, None).as_string(None)

    def select(self, table_slice: TableSlice, condition: sql.Composable | None) -> sql.Composed:
        """The query for the wanted columns of the rows for which the condition holds."""
        columns: sql.Composable = sql.SQL("*")
        if table_slice.columns:
            columns = sql.SQL(", ").join(map(sql.Identifier, table_slice.columns))
        query = sql.SQL("SELECT {} FROM {}").format(columns, table_name(table_slice).sql())
        return query if condition is None else sql.SQL("{} WHERE {}").format(query, condition)


def _name(context: dg.OutputContext | dg.InputContext) -> str | None:
    try:
        step = context.step_context
    except dg.DagsterInvariantViolationError:
        # A script loads an asset's value.
        return None
    return step_name(step.run_id, step.step.key)


def is_partitioned(context: dg.OutputContext | dg.InputContext) -> bool:
    """Whether the output or input belongs to partitions."""
    return context.has_asset_key and context.has_asset_partitions


def table_name(table_slice: TableSlice) -> TableName:
    """The slice's table, with its name taken literally."""
    return TableName(table_slice.table, table_slice.schema)
