"""The older and the newer API of synced tables where the core does not go: what the real SDK is told."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from databricks.sdk.errors import DatabricksError
from databricks.sdk.service import postgres as api

from tests.core.workspace.lakehouse import shop
from tests.local.workspace.conftest import PRODUCTION, Plane

POLICY = api.SyncedTableSyncedTableSpecSyncedTableSchedulingPolicy


def table(source: str, **more: Any) -> api.SyncedTable:
    fields: dict[str, Any] = {
        "branch": PRODUCTION,
        "postgres_database": "databricks_postgres",
        "source_table_full_name": source,
        "primary_key_columns": ["id"],
        "scheduling_policy": POLICY.SNAPSHOT,
    }
    return api.SyncedTable(spec=api.SyncedTableSyncedTableSpec(**{**fields, **more}))


def test_in_a_registered_catalog_the_database_is_known(plane: Plane) -> None:
    trips = shop(plane.server)
    spec = api.CatalogCatalogSpec(branch=PRODUCTION, postgres_database="databricks_postgres")
    plane.api.create_catalog(api.Catalog(spec=spec), "shop").wait()
    name = trips.name.replace("main", "shop")
    with pytest.raises(DatabricksError, match="must be the catalog's"):
        plane.api.create_synced_table(table(trips.source, postgres_database="other"), name)
    made = plane.api.create_synced_table(
        table(trips.source, branch=None, postgres_database=None), name
    ).wait()
    assert made.status is not None
    assert made.status.project == "projects/local"
    # Pipelines keep files, which a catalog of Lakebase cannot hold.
    other = shop(plane.server)
    storage = api.NewPipelineSpec(storage_catalog="shop", storage_schema="pipelines")
    made = plane.api.create_synced_table(table(other.source, new_pipeline_spec=storage), other.name).wait()
    plane.admin.advance(0)
    found = plane.api.get_synced_table(str(made.name)).status
    assert found is not None
    assert found.detailed_state is api.SyncedTableState.SYNCED_TABLE_OFFLINE_FAILED
    assert "Metastore storage root URL does not exist" in str(found.message)


def test_an_operation_that_fails_leaves_nothing(plane: Plane) -> None:
    trips = shop(plane.server)
    plane.admin.operation_fault("synced_table", message="no luck")
    with pytest.raises(Exception, match="no luck"):
        plane.api.create_synced_table(table(trips.source), trips.name).wait()
    with pytest.raises(DatabricksError, match="synced table id not found"):
        plane.api.get_synced_table(f"synced_tables/{trips.name}")
    missing = table(trips.source, create_database_objects_if_missing=False, postgres_database="none")
    with pytest.raises(Exception, match="does not exist"):
        plane.api.create_synced_table(missing, trips.name).wait()


def test_an_update_always_ends(plane: Plane) -> None:
    with pytest.raises(ValueError, match="pipeline_seconds"):
        plane.admin.operation_fault("pipeline_update", never_ends=True)


def test_settings_tell_what_is_unknown(plane: Plane) -> None:
    trips = shop(plane.server)
    plane.admin.set(processed_version_is_told=True, commit_time_is_told=True)
    made = plane.api.create_synced_table(table(trips.source), trips.name).wait()
    plane.admin.advance(0)
    found = plane.api.get_synced_table(str(made.name)).status
    assert found is not None
    assert found.last_sync is not None
    assert found.last_processed_commit_version == 0
    assert found.last_sync.delta_table_sync_info is not None
    assert found.last_sync.delta_table_sync_info.delta_commit_time.seconds > 1_700_000_000  # type: ignore[union-attr]


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from lakebase_provider.local.workspace.settings import ApiError, Errors
    from lakebase_provider.local.workspace.sync.delta import require_deltalake

    require_deltalake(Errors())
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(ApiError, match=r"lakebase-provider\[delta\]") as caught:
        require_deltalake(Errors())
    assert caught.value.status == 501
