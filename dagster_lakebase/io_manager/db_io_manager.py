"""Dagster's DbIOManager on Lakebase."""

from __future__ import annotations

import importlib
import types
import typing
from contextlib import suppress
from typing import Any

import dagster as dg
from dagster._core.definitions.metadata.metadata_set import TableMetadataSet
from dagster._core.errors import DagsterInvalidMetadata
from dagster._core.storage.db_io_manager import DbIOManager, DbTypeHandler, TableSlice

from dagster_lakebase.io_manager.db_client import LakebaseDbClient
from dagster_lakebase.io_manager.type_handlers import LakebaseTypeHandler, type_handlers
from dagster_lakebase.io_manager.write_options import LOAD_TYPES, column_names
from dagster_lakebase.resource.failures import failing_fast
from dagster_lakebase.tables.assets import name_in, require_database, table_of
from dagster_lakebase.tables.owners import TableOwners
from lakebase_provider.core.bulk.load.plan import LOAD_OPTIONS
from lakebase_provider.core.errors.remedy import without_options

_INPUT = "Annotate the input with one of these, or set default_load_type."
_OUTPUT = (
    "Return one of these. An asset that stores nothing is annotated with '-> None' or returns a "
    "MaterializeResult."
)


class LakebaseDbIOManager(DbIOManager):
    """Dagster's DbIOManager, with streams, exact partitions and catalog metadata.

    Args:
        db_client: The database.
        database: Its name, to show.
        schema: Schema of assets whose metadata names none.
        default_load_type: What inputs without a type annotation are loaded as, by name.
    """

    def __init__(
        self,
        db_client: LakebaseDbClient,
        *,
        database: str,
        schema: str | None,
        default_load_type: str | None,
    ) -> None:
        super().__init__(
            type_handlers=[],
            db_client=db_client,
            database=database,
            schema=schema,
            io_manager_name="LakebaseIOManager",
        )
        self._client = db_client
        self._load_type_name = default_load_type
        self._tables = TableOwners(schema)

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Replace, append or merge the output, in one transaction."""
        with failing_fast():
            self._store(context, obj)

    def _store(self, context: dg.OutputContext, obj: object) -> None:
        if obj is None:
            raise dg.DagsterInvariantViolationError(
                "The output is None. An asset or op that stores nothing is annotated with '-> None'; one "
                "that has no rows this time returns an empty frame."
            )
        handler = self._handler(type(obj), _OUTPUT)
        # Before anything is sent: the metadata may be wrong.
        self._client.options(context)
        table_slice = self._get_table_slice(context, context)
        point = self._client.restore_point_metadata(context)
        with without_options(*LOAD_OPTIONS), self._client.connect(context, table_slice) as connection:
            metadata = handler.handle_output(context, table_slice, obj, connection)
        # Reported only once it is true: after the commit.
        context.add_output_metadata({**(metadata or {}), **self._client.branch_metadata(), **point})
        # The author may have named the table in the asset's own metadata.
        with suppress(DagsterInvalidMetadata):
            context.add_output_metadata(
                dict(TableMetadataSet(table_name=self._client.get_table_name(table_slice)))
            )

    def load_input(self, context: dg.InputContext) -> object:
        """The table, or the input's partitions of it, as the input's annotated type.

        An input that may be None is None if the table does not exist yet.
        """
        with failing_fast():
            return self._load(context)

    def _load(self, context: dg.InputContext) -> object:
        annotated, optional = _without_none(context.dagster_type.typing_type)
        handler = self._handler(self._default_type() if annotated is Any else annotated, _INPUT)
        assert context.upstream_output is not None
        table_slice = self._get_table_slice(context, context.upstream_output)
        if optional:
            with self._client.connect(context, table_slice) as connection:
                if not self._client.has_table(connection, table_slice):
                    return None
        opened = self._client.connect(context, table_slice)
        if isinstance(handler, LakebaseTypeHandler) and handler.form == "batches":
            return handler.read_lazily(context, table_slice, opened)
        with without_options(*LOAD_OPTIONS), opened as connection:
            return handler.load_input(context, table_slice, connection)

    def _get_table_slice(
        self, context: dg.OutputContext | dg.InputContext, output_context: dg.OutputContext
    ) -> TableSlice:
        # Without partitions: Dagster's slice holds one range per dimension, so the client asks the context
        # instead.
        metadata = output_context.definition_metadata or {}
        if context.has_asset_key:
            key = context.asset_key
            self._tables.require_one_owner(context)
        else:
            named = name_in(metadata, "table", f"output {output_context.name!r}")
            key = dg.AssetKey([named or output_context.name])
        table = table_of(key, metadata, schema=self._schema)
        require_database(key, metadata, self._database)
        columns = (context.definition_metadata or {}).get("columns")
        return TableSlice(
            table=table.name,
            schema=table.schema,
            database=self._database,
            columns=column_names("columns", columns) if columns else None,
        )

    def _handler(self, kind: Any, remedy: str) -> DbTypeHandler[Any]:
        # Anew each time: the code of assets may import libraries too.
        self._handlers_by_type = {
            supported: handler
            for handler in type_handlers(self._client)
            for supported in handler.supported_types
        }
        # Iterator[pyarrow.RecordBatch] is not a class, but Iterator is.
        kind = typing.get_origin(kind) or kind
        self._require_supported(kind, remedy)
        return self._resolve_handler(kind)

    def _default_type(self) -> Any:
        if self._load_type_name is None:
            return Any
        module, name = LOAD_TYPES[self._load_type_name]
        return getattr(importlib.import_module(module), name)

    def _require_supported(self, kind: Any, remedy: str) -> None:
        if isinstance(kind, type) and issubclass(kind, tuple(self._handlers_by_type)):
            return
        found = getattr(kind, "__qualname__", None) or str(kind)
        raise dg.DagsterInvariantViolationError(
            f"LakebaseIOManager does not store or load {found}, only pandas and Polars data frames, Arrow "
            f"tables, record batches, readers of them, and iterators of record batches. {remedy}"
        )


def _without_none(annotated: Any) -> tuple[Any, bool]:
    """The type in an annotation such as ``DataFrame | None``, and whether None is allowed."""
    if typing.get_origin(annotated) not in (typing.Union, types.UnionType):
        return annotated, False
    some = [one for one in typing.get_args(annotated) if one is not type(None)]
    return (some[0] if len(some) == 1 else annotated), len(some) < len(typing.get_args(annotated))
