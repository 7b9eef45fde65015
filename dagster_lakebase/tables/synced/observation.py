"""Synced tables that something else fills, as observable assets."""

# No "from __future__ import annotations": Dagster reads the annotation of `context` as an object.

import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import dagster as dg

from dagster_lakebase.resource.failures import failing_fast
from dagster_lakebase.tables.asset_keys import Asset
from dagster_lakebase.tables.data_version import last_version
from dagster_lakebase.tables.synced.state import SyncState, synced_name, synced_specs
from lakebase_provider.core.errors import NotFoundError

if TYPE_CHECKING:
    from dagster_lakebase.resource.resource import LakebaseResource


def build_lakebase_synced_table_observation(
    assets: Iterable[Asset],
    *,
    resource_key: str = "lakebase",
    name: str = "lakebase_synced_tables",
) -> dg.AssetsDefinition:
    """Observable assets for synced tables that Databricks or somebody else syncs.

    The data version is the version of the Delta table whose rows are in Postgres, so that dependents can be
    materialized exactly when a sync has brought something. While the workspace tells none, as during a full
    refresh, the last one stays. An observation asks the workspace alone: it wakes no compute.

    The metadata have the version (``lakebase/source_version``), the last sync, the pipeline's last update
    with its state, and as ``dagster/last_updated_timestamp``, by which freshness is judged, when the newest
    sync began that ended well, even with nothing to do.

    Args:
        assets: Specifications of the assets, or their keys. The metadata ``lakebase/synced_table`` name an
            asset's synced table; otherwise a key of three parts does.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound.
        name: The name of the op that observes.

    Returns:
        A definition to pass on as ``Definitions(assets=[…])``; a schedule or an automation condition
        observes it.

    Raises:
        DagsterInvalidDefinitionError: There are no assets, or one is no synced table.

    Example:
        .. code-block:: python

            trips = dg.AssetSpec(["main", "pub", "trips"], deps=["raw_trips"])
            observed = build_lakebase_synced_table_observation([trips])
    """
    function = "build_lakebase_synced_table_observation"
    specs = synced_specs(assets, function)

    def lakebase_synced_tables(context: dg.AssetExecutionContext) -> Iterator[dg.ObserveResult]:
        lakebase: LakebaseResource = getattr(context.resources, resource_key)
        missing: NotFoundError | None = None
        for key in context.selected_asset_keys:
            with failing_fast():
                try:
                    workspace = lakebase.client_for_branches.workspace
                    state = SyncState.read(workspace, synced_name(key, specs[key].metadata))
                except NotFoundError as error:
                    missing = error
                    continue
            version = state.data_version or last_version(context.instance, key)
            known = None if version is None else dg.DataVersion(version)
            yield dg.ObserveResult(key, metadata=state.metadata(), data_version=known)
        if missing is not None:
            with failing_fast():
                raise missing

    with warnings.catch_warnings():
        # We keep track of Dagster's beta status; our users could do nothing about the warning.
        warnings.simplefilter("ignore", dg.BetaWarning)
        observable = dg.multi_observable_source_asset(
            specs=list(specs.values()), name=name, can_subset=True, required_resource_keys={resource_key}
        )
    definition: dg.AssetsDefinition = observable(lakebase_synced_tables)
    return definition
