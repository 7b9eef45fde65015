"""Which asset a table belongs to: no two assets of a code location may share one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, count

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from dagster_lakebase.tables.assets import TABLE_NAME, table_of
from lakebase_provider.core.database.facts import TableRef


class TableOwners:
    """The tables of the assets that an I/O manager stores.

    Dagster shows an I/O manager no assets when definitions are loaded. The first output to store or input to
    load comes with all assets of the code location, whichever of them the run materializes.

    Args:
        schema: The I/O manager's schema.
    """

    def __init__(self, schema: str | None) -> None:
        self._schema = schema
        self._graph: AssetGraph | None = None
        self._keys: Mapping[TableRef, Sequence[dg.AssetKey]] = {}

    def require_one_owner(self, context: dg.OutputContext | dg.InputContext) -> None:
        """Refuse an asset whose table also holds another asset.

        Raises:
            DagsterInvalidDefinitionError: There is one.
        """
        graph = _graph_of(context)
        manager = None if graph is None else _manager_of(graph, context.asset_key)
        if graph is None or manager is None:
            return
        if graph is not self._graph:
            self._graph, self._keys = graph, self._owners(graph, manager)
        for table, keys in self._keys.items():
            if context.asset_key in keys and len(keys) > 1:
                named = ", ".join(key.to_user_string() for key in sorted(keys))
                other = self._free(table.schema, context.asset_key)
                raise dg.DagsterInvalidDefinitionError(
                    f"Assets {named} would share table {table}: each would replace the other's rows. Give "
                    f'each its own table in its metadata, such as {{"{TABLE_NAME}": '
                    f'"{other}"}}; an asset that stores nothing is '
                    "annotated with '-> None'."
                )

    def _free(self, schema: str, key: dg.AssetKey) -> TableRef:
        """A table that no asset is stored in, by a name that reminds of the asset."""
        names = chain(
            ("_".join(key.path), "_".join((*key.path, "table"))),
            map("_".join((*key.path, "{}")).format, count(2)),
        )
        tables = (TableRef(schema, name) for name in names)
        return next(table for table in tables if table not in self._keys)

    def _owners(self, graph: AssetGraph, manager: str) -> dict[TableRef, list[dg.AssetKey]]:
        owners: dict[TableRef, list[dg.AssetKey]] = {}
        for assets in graph.assets_defs:
            for key in assets.keys:
                if _manager_of(graph, key) == manager:
                    # A malformed name is that asset's own error.
                    with suppress(dg.DagsterInvalidDefinitionError):
                        table = table_of(key, assets.metadata_by_key[key], schema=self._schema)
                        owners.setdefault(table, []).append(key)
        return owners


def _manager_of(graph: AssetGraph, key: dg.AssetKey) -> str | None:
    """The key of the I/O manager that stores the asset; None if none does."""
    if not graph.has(key):
        return None
    assets = graph.get(key).assets_def
    if not assets.is_materializable:
        return None
    output = assets.node_def.output_def_named(assets.get_output_name_for_asset_key(key))
    return None if output.dagster_type.is_nothing else assets.get_io_manager_key_for_asset_key(key)


def _graph_of(context: dg.OutputContext | dg.InputContext) -> AssetGraph | None:
    """All assets of the code location; None if a script loads an asset's value."""
    try:
        step = context.step_context
    except dg.DagsterInvariantViolationError:
        return None
    if isinstance(context, dg.InputContext) and _has_manager_of_its_own(context):
        # It may be stored by another I/O manager, with other tables.
        return None
    graph = step.job_def.asset_layer.asset_graph
    return getattr(graph, "source_asset_graph", graph)


def _has_manager_of_its_own(context: dg.InputContext) -> bool:
    definition = context.step_context.op_def
    return definition.has_input(context.name) and bool(
        definition.input_def_named(context.name).input_manager_key
    )
