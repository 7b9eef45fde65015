"""Which asset a table belongs to: no two assets of a code location may share one."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, count
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from dagster_lakebase.resource.resource import LakebaseResource
from dagster_lakebase.tables.assets import TABLE_NAME, table_of
from lakebase_provider.core.config.addresses import ADDRESS
from lakebase_provider.core.database.facts import TableRef
from lakebase_provider.core.errors import ConfigError

#: The settings that tell a database from another.
_PLACE = (*ADDRESS, "instance", "host", "port", "database", "workspace_host", "profile")
#: Of a branch deployment's resource: they say which branch.
_DEPLOYMENT = ("deployment", "prefix")
#: A schema that only a run knows, by a name that Postgres does not allow.
_UNKNOWN = "\0"


class StoresTables:
    """An I/O manager that stores assets as tables, with fields `schema` and `lakebase`."""


@dataclass(frozen=True)
class _Place:
    """Where an I/O manager stores its assets."""

    database: Hashable
    schema: str | None


_Owners = dict[tuple[Hashable, TableRef], set[dg.AssetKey]]


def validate_table_owners(defs: dg.Definitions) -> dg.Definitions:
    """Refuse definitions in which two assets would share a table of a :class:`LakebaseIOManager`.

    Dagster shows an I/O manager no assets when definitions are loaded, so show this function all those of a
    code location. What only a run knows, such as a schema from an environment variable, is looked at when the
    run stores or loads an asset.

    Args:
        defs: The definitions, with the resources that they are bound to. They are resolved, as when Dagster
            loads them, which does not do so again.

    Returns:
        The same definitions.

    Raises:
        DagsterInvalidDefinitionError: Two assets share a table, which is named, and a free one. Or as Dagster
            says when it resolves definitions, such as of a resource that is missing.

    Example:
        .. code-block:: python

            defs = validate_table_owners(
                dg.Definitions(
                    assets=[orders],
                    resources={"io_manager": LakebaseIOManager(lakebase=LakebaseResource())},
                )
            )
    """
    repository = defs.get_repository_def()
    require_owners(repository.asset_graph.assets_defs, repository.get_top_level_resources())
    return defs


def require_owners(
    assets: Iterable[dg.AssetsDefinition], resources: Mapping[str, dg.ResourceDefinition]
) -> None:
    """Refuse assets of which two share a table, as far as their definitions say.

    Args:
        assets: The assets.
        resources: What the assets are bound to that bring no resource of that key themselves.

    Raises:
        DagsterInvalidDefinitionError: Two share one.
    """
    place_of = cache(_place)
    owners = _owners(assets, lambda one, key: place_of({**resources, **one.resource_defs}.get(key)))
    for (database, table), keys in sorted(owners.items(), key=lambda item: str(item[0][1])):
        if len(keys) > 1:
            raise _shared(owners, database, table, max(keys))


class TableOwners:
    """The tables of the assets of a code location, as a run of it knows them.

    The first output to store or input to load comes with all assets of the code location, whichever of them
    the run materializes. This finds what :func:`validate_table_owners` could not know, or was not asked.

    Args:
        schema: The I/O manager's schema.
    """

    def __init__(self, schema: str | None) -> None:
        self._schema = schema
        self._graph: AssetGraph | None = None
        self._owners: _Owners = {}

    def require_one_owner(self, context: dg.OutputContext | dg.InputContext) -> None:
        """Refuse an asset whose table also holds another asset.

        Raises:
            DagsterInvalidDefinitionError: There is one.
        """
        graph = _graph_of(context)
        if graph is None or not graph.has(context.asset_key):
            return
        manager = _manager_of(graph.get(context.asset_key).assets_def, context.asset_key)
        if manager is None:
            return
        if graph is not self._graph:
            resources = context.step_context.job_def.resource_defs
            self._graph, self._owners = graph, self._owners_in(graph, resources, manager)
        for (database, table), keys in self._owners.items():
            if context.asset_key in keys and len(keys) > 1:
                raise _shared(self._owners, database, table, context.asset_key)

    def _owners_in(
        self, graph: AssetGraph, resources: Mapping[str, dg.ResourceDefinition], manager: str
    ) -> _Owners:
        own = resources.get(manager)

        @cache
        def place_of(definition: dg.ResourceDefinition | None) -> _Place | None:
            place = _place(definition, of_run=True)
            if definition is None or definition is not own:
                return place
            # The run's configuration may have changed the schema.
            return replace(place or _Place(id(own), None), schema=self._schema)

        # A run may have been given other resources than the definitions have.
        return _owners(
            graph.assets_defs, lambda one, key: place_of({**one.resource_defs, **resources}.get(key))
        )


def _owners(
    assets: Iterable[dg.AssetsDefinition], place_of: Callable[[dg.AssetsDefinition, str], _Place | None]
) -> _Owners:
    owners: _Owners = {}
    for one in assets:
        for key in one.keys:
            manager = _manager_of(one, key)
            place = None if manager is None else place_of(one, manager)
            if place is None:
                continue
            # A malformed name is that asset's own error.
            with suppress(dg.DagsterInvalidDefinitionError):
                table = table_of(key, one.metadata_by_key[key], schema=place.schema)
                if table.schema != _UNKNOWN:
                    owners.setdefault((place.database, table), set()).add(key)
    return owners


def _shared(
    owners: _Owners, database: Hashable, table: TableRef, key: dg.AssetKey
) -> dg.DagsterInvalidDefinitionError:
    named = ", ".join(one.to_user_string() for one in sorted(owners[database, table]))
    # A table that no asset is stored in, by a name that reminds of the asset.
    names = chain(
        ("_".join(key.path), "_".join((*key.path, "table"))),
        map("_".join((*key.path, "{}")).format, count(2)),
    )
    tables = (TableRef(table.schema, name) for name in names)
    other = next(one for one in tables if (database, one) not in owners)
    return dg.DagsterInvalidDefinitionError(
        f"Assets {named} would share table {table}: each would replace the other's rows. Give "
        f'each its own table in its metadata, such as {{"{TABLE_NAME}": '
        f'"{other}"}}; an asset that stores nothing is '
        "annotated with '-> None'."
    )


def _manager_of(assets: dg.AssetsDefinition, key: dg.AssetKey) -> str | None:
    """The key of the I/O manager that stores the asset; None if none does."""
    if not assets.is_materializable:
        return None
    output = assets.node_def.output_def_named(assets.get_output_name_for_asset_key(key))
    return None if output.dagster_type.is_nothing else assets.get_io_manager_key_for_asset_key(key)


def _place(definition: dg.ResourceDefinition | None, *, of_run: bool = False) -> _Place | None:
    """Where an I/O manager stores its assets; None if it stores none as tables."""
    if not issubclass(getattr(definition, "configurable_resource_cls", object), StoresTables):
        return None
    assert definition is not None
    config: Any = definition.config_schema.default_value if definition.config_schema.default_provided else {}
    schema = config.get("schema")
    if isinstance(schema, Mapping):
        schema = os.environ.get(schema["env"]) if of_run else _UNKNOWN
    nested: Mapping[str, Any] = getattr(definition, "nested_resources", {})
    return _Place(_database(nested.get("lakebase"), of_run=of_run), schema)


def _database(lakebase: object, *, of_run: bool) -> Hashable:
    """What tells a connection's database from others; equal only for what is the same database."""
    if not isinstance(lakebase, LakebaseResource):
        # Left out, or configured at launch.
        return id(lakebase)
    if of_run:
        # The definitions of another asset's I/O manager may lack what only its own runs have.
        with suppress(ConfigError):
            config = lakebase.lakebase_config
            return tuple(getattr(config, name) for name in _PLACE)
    values = [getattr(lakebase, name, None) for name in (*_PLACE, *_DEPLOYMENT)]
    # The variables' names: where definitions are loaded, they may have other values or none.
    return type(lakebase), *((type(one), getattr(one, "env_var_name", one)) for one in values)


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
