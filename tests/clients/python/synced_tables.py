"""Every method of databricks-sdk about synced tables and Lakehouse sync, and those of their pipelines.

The Delta table `main.src.trips` is there, with its change data feed and the rows 1 and 2.
"""

import inspect
import os
import re
import time

from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import AlreadyExists, DatabricksError, NotFound, NotImplemented
from databricks.sdk.service import database as old
from databricks.sdk.service import pipelines
from databricks.sdk.service import postgres as api

BRANCH = "projects/local/branches/production"
DATABASE = f"{BRANCH}/databases/databricks-postgres"
POLICY = api.SyncedTableSyncedTableSpecSyncedTableSchedulingPolicy
ENDED = {pipelines.UpdateInfoState.COMPLETED, pipelines.UpdateInfoState.FAILED}


class Recorder:
    """An API, and which of its methods were called."""

    def __init__(self, real):
        self._real = real
        self.called = set()

    def __getattr__(self, name):
        self.called.add(name)
        return getattr(self._real, name)


workspace = WorkspaceClient()
w, o, p = Recorder(workspace.postgres), Recorder(workspace.database), workspace.pipelines


def refused(kind, text, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except kind as error:
        if re.search(text, str(error)):
            return
        raise
    raise AssertionError(f"{call} was not refused")


def until(ask):
    """The first answer that is one."""
    for _ in range(300):
        found = ask()
        if found:
            return found
        # Asked again as users' scripts do: the pipeline runs in the local Lakebase, on a clock of its own.
        time.sleep(0.05)
    raise AssertionError("it does not end")


def ended(pipeline, update):
    def ask():
        found = p.get_update(pipeline, update).update
        return found if found.state in ENDED else None

    return until(ask)


def spec(source="main.src.trips", **more):
    return api.SyncedTable(
        spec=api.SyncedTableSyncedTableSpec(
            **{
                "branch": BRANCH,
                "postgres_database": "databricks_postgres",
                "source_table_full_name": source,
                "primary_key_columns": ["id"],
                "scheduling_policy": POLICY.TRIGGERED,
                "create_database_objects_if_missing": True,
                "new_pipeline_spec": api.NewPipelineSpec(storage_catalog="main", storage_schema="pipelines"),
                **more,
            }
        )
    )


def autoscaling():
    name = "synced_tables/main.pub.trips"
    made = w.create_synced_table(spec(), "main.pub.trips").wait()
    assert (made.name, made.spec, made.synced_table_id) == (name, None, "main.pub.trips")
    assert made.status.unity_catalog_provisioning_state is api.ProvisioningInfoState.ACTIVE
    online = api.SyncedTableState.SYNCED_TABLE_ONLINE_NO_PENDING_UPDATE
    until(lambda: w.get_synced_table(name).status.detailed_state is online)
    status = w.get_synced_table(name).status
    position = status.last_sync.delta_table_sync_info
    assert (position.delta_commit_version, position.delta_commit_time.ToJsonString()) == (
        0,
        "1970-01-01T00:00:00Z",
    )
    assert status.last_processed_commit_version is None
    refused(
        AlreadyExists,
        "synced table with such id already exists",
        w.create_synced_table,
        spec(),
        made.synced_table_id,
    )
    refused(NotFound, "TABLE_DOES_NOT_EXIST", w.create_synced_table, spec("main.src.none"), "main.pub.none")
    refused(DatabricksError, "synced_table_id' is required", w.create_synced_table, spec(), "")
    refused(
        DatabricksError,
        "postgres_database' is required",
        w.create_synced_table,
        spec(postgres_database=""),
        "a.b.c",
    )
    refused(NotFound, "synced table id not found", w.get_synced_table, "synced_tables/main.pub.none")

    pipeline = status.pipeline_id
    update = p.start_update(pipeline, full_refresh=False).update_id
    assert ended(pipeline, update).state is pipelines.UpdateInfoState.COMPLETED
    found = p.get(pipeline)
    assert found.state is pipelines.PipelineState.IDLE
    assert found.latest_updates[0].update_id == update
    assert p.list_updates(pipeline).updates[0].update_id == update
    assert {one.origin.update_id for one in p.list_pipeline_events(pipeline)} >= {update}
    assert not [*p.list_pipeline_events(pipeline, filter="level='ERROR'")]
    assert pipeline in [one.pipeline_id for one in p.list_pipelines()]
    p.stop(pipeline).result()
    refused(NotFound, "was not found", p.get_update, pipeline, "none")
    refused(NotFound, "was not found", p.get, "none")

    w.delete_synced_table(name).wait()
    refused(NotFound, "synced table id not found", w.delete_synced_table, name)
    refused(NotFound, "was not found", p.start_update, pipeline)
    orphan = w.create_synced_table(spec(), "main.pub.trips")
    refused(Exception, "Destination table .* already exists", orphan.wait)


def provisioned():
    name = "main.old.trips"
    body = old.SyncedDatabaseTable(
        name=name,
        database_instance_name="local",
        logical_database_name="databricks_postgres",
        spec=old.SyncedTableSpec(
            source_table_full_name="main.src.trips",
            primary_key_columns=["id"],
            scheduling_policy=old.SyncedTableSchedulingPolicy.SNAPSHOT,
            create_database_objects_if_missing=True,
        ),
    )
    assert o.create_synced_database_table(body).name == name
    online = old.SyncedTableState.SYNCED_TABLE_ONLINE_NO_PENDING_UPDATE
    until(lambda: o.get_synced_database_table(name).data_synchronization_status.detailed_state is online)
    found = o.get_synced_database_table(name)
    status = found.data_synchronization_status
    assert status.last_sync.delta_table_sync_info.delta_commit_version == 0
    assert status.triggered_update_status.last_processed_commit_version == 0
    assert isinstance(status.last_sync.sync_end_timestamp, str)
    assert found.effective_database_instance_name == "local"
    assert [one.name for one in o.list_synced_database_tables("local")] == [name]
    refused(NotImplemented, "not yet implemented", o.update_synced_database_table, name, body, "spec")
    refused(NotFound, "synced table id not found", w.get_synced_table, f"synced_tables/{name}")
    o.delete_synced_database_table(name, purge_data=True)
    refused(NotFound, "synced table id not found", o.get_synced_database_table, name)
    o.create_synced_database_table(body)
    o.delete_synced_database_table(name, purge_data=True)


def lakehouse_sync():
    body = api.CdfConfig(catalog="main", schema="mirror", postgres_schema="pub")
    made = w.create_cdf_config(DATABASE, body, cdf_config_id="mirror").wait()
    assert made.name == f"{DATABASE}/cdf-configs/mirror"
    assert w.get_cdf_config(made.name).postgres_schema == "pub"
    assert [one.name for one in w.list_cdf_configs(DATABASE)] == [made.name]
    refused(
        DatabricksError,
        "Invalid cdf_config_id 'No-1'",
        w.create_cdf_config,
        DATABASE,
        body,
        cdf_config_id="No-1",
    )
    (status,) = until(lambda: [*w.list_cdf_statuses(made.name)])
    assert (status.postgres_table, status.state) == ("trips", api.CdfState.CDF_STATE_SKIPPED)
    assert "REPLICA IDENTITY" in w.get_cdf_status(status.name).status_detail
    refused(NotFound, "cdf status id not found", w.get_cdf_status, f"{made.name}/cdf-statuses/none")
    w.delete_cdf_config(made.name, force=True).wait()
    refused(NotFound, "cdf config id not found", w.get_cdf_config, made.name)


autoscaling()
provisioned()
lakehouse_sync()
for real, recorder, words in (
    (api.PostgresAPI, w, "synced_table|cdf"),
    (old.DatabaseAPI, o, "synced"),
):
    offered = {name for name, _ in inspect.getmembers(real, inspect.isfunction) if re.search(words, name)}
    assert offered - recorder.called == set()
print(os.environ["PGUSER"])
