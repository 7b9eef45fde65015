"""Synced tables as assets: synced by runs, observed, and checked; the mirror."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from dagster_lakebase import (
    LakebaseBranchDeployment,
    LakebaseResource,
    LakebaseSyncConfig,
    build_lakebase_mirror_checks,
    build_lakebase_sync_asset,
    build_lakebase_sync_checks,
    build_lakebase_synced_table_observation,
    lakebase_sync_op,
)
from dagster_lakebase.tables.synced import sync
from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.workspace.objects.sync import synced_tables
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.local import LocalLakebase
from tests.core.workspace.lakehouse import Shop, shop
from tests.dagster.tables import metadata_of
from tests.eventually import BUSY, eventually


@pytest.fixture
def workspace(lake: LocalLakebase) -> Iterator[WorkspaceObjects]:
    with LakebaseClient(lake.config()) as client:
        yield client.workspace


@pytest.fixture
def trips(lake: LocalLakebase, workspace: WorkspaceObjects) -> Iterator[Shop]:
    """A synced table with two rows, of version 0."""
    made = shop(lake)
    made.create(workspace.synced_tables)
    workspace.synced_tables.wait(made.name, version=0)
    yield made
    workspace.synced_tables.delete(made.name, missing_ok=True)
    lake.admin.execute(f"DROP TABLE IF EXISTS pub.{plain(made)}")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def plain(trips: Shop) -> str:
    return trips.name.split(".")[2]


def spec_of(trips: Shop, **more: Any) -> dg.AssetSpec:
    return dg.AssetSpec("trips", metadata={"lakebase/synced_table": trips.name}, **more)


def run(instance: dg.DagsterInstance, *assets: Any, checks: Any = (), **more: Any) -> Any:
    defs = dg.Definitions(
        assets=assets, asset_checks=checks, resources={"lakebase": more.pop("resource", LakebaseResource())}
    )
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, raise_on_error=False, **more)


def version_of(event: Any) -> Any:
    data = event.event_specific_data
    told = getattr(data, "materialization", None) or data.asset_observation
    return (told.tags or {}).get("dagster/data_version")


def materialized(result: Any) -> Any:
    assert result.success, failure_of(result)
    (event,) = result.get_asset_materialization_events()
    return event


def failure_of(result: Any) -> str:
    return "\n".join(str(e.step_failure_data.error) for e in result.all_events if e.is_step_failure)


# Synced by a run.


def test_to_materialize_it_is_to_sync_it(trips: Shop, instance: dg.DagsterInstance) -> None:
    asset = build_lakebase_sync_asset(spec_of(trips), source=trips.path)
    version = trips.write({"id": [3], "name": ["c"]})
    result = run(instance, asset)
    assert version_of(materialized(result)) == str(version)
    assert trips.rows() == [(1, "a"), (2, "b"), (3, "c")]
    values = metadata_of(result)
    assert (values["lakebase/synced_table"], values["lakebase/source_version"]) == (trips.name, version)
    assert values["dagster/table_name"] == f"pub.{plain(trips)}"
    assert values["lakebase/update_state"] == "COMPLETED"
    assert values["lakebase/sync_ended"] >= values["lakebase/sync_started"]
    # With nothing to do, nothing has changed, and it is as fresh as the moment.
    again = run(instance, asset)
    assert version_of(materialized(again)) == str(version)
    assert metadata_of(again)["lakebase/sync_ended"] == values["lakebase/sync_ended"]
    newer = metadata_of(again)["dagster/last_updated_timestamp"]
    assert newer > values["dagster/last_updated_timestamp"]


def test_a_key_of_three_parts_is_the_name(trips: Shop, instance: dg.DagsterInstance) -> None:
    asset = build_lakebase_sync_asset(trips.name.split("."))
    assert version_of(materialized(run(instance, asset))) == "0"


def test_an_update_that_fails_fails_the_step_and_the_check(
    lake: LocalLakebase, trips: Shop, instance: dg.DagsterInstance
) -> None:
    spec = spec_of(trips)
    asset = build_lakebase_sync_asset(spec)
    checks = build_lakebase_sync_checks([spec], max_age=3600)
    trips.write({"id": [3], "name": ["c"]})
    lake.admin.operation_fault("pipeline_update", message="event_log_1 is owned by somebody else")
    result = run(instance, asset)
    assert not result.success
    assert "event_log_1 is owned by somebody else" in failure_of(result)
    # Although the table is online, and its pipeline idle.
    found = {one.check_name: one for one in run(instance, checks=checks).get_asset_check_evaluations()}
    assert {name: one.passed for name, one in found.items()} == {
        "lakebase_sync_succeeded": False,
        "lakebase_sync_fresh": True,
    }
    assert "owned by somebody else" in str(found["lakebase_sync_succeeded"].description)
    assert found["lakebase_sync_fresh"].metadata["lakebase/age_seconds"].value < 3600
    assert run(instance, asset).success
    assert all(one.passed for one in run(instance, checks=checks).get_asset_check_evaluations())
    late = build_lakebase_sync_checks([spec], max_age=0.0)
    (_, fresh) = run(instance, checks=late).get_asset_check_evaluations()
    assert (fresh.check_name, fresh.passed) == ("lakebase_sync_fresh", False)


@contextmanager
def updates_end_once_asked_for(lake: LocalLakebase) -> Iterator[None]:
    """Let the workspace's time fly as soon as somebody has asked for an update."""
    lake.admin.reset_counters()
    is_over = threading.Event()

    def asked() -> bool:
        return any(one.method == "POST" and one.path.endswith("/updates") for one in lake.admin.requests())

    def fly() -> None:
        eventually(asked)
        while not is_over.wait(0.05):
            lake.admin.advance(30)

    flying = threading.Thread(target=fly)
    flying.start()
    try:
        yield
    finally:
        is_over.set()
        flying.join()


def test_an_update_that_runs_is_adopted_if_it_brings_the_version(
    lake: LocalLakebase, trips: Shop, instance: dg.DagsterInstance, workspace: WorkspaceObjects
) -> None:
    lake.admin.set(pipeline_seconds=30.0)
    version = trips.write({"id": [3], "name": ["c"]})
    begun = workspace.synced_tables.trigger(trips.name)
    asset = build_lakebase_sync_asset(spec_of(trips), source=lambda: version)
    with updates_end_once_asked_for(lake):
        result = run(instance, asset)
    assert version_of(materialized(result)) == str(version)
    assert metadata_of(result)["lakebase/update"] == begun.name
    # Nobody knows what another one has seen: it is followed by one of the run.
    begun = workspace.synced_tables.trigger(trips.name)
    with updates_end_once_asked_for(lake):
        result = run(instance, build_lakebase_sync_asset(spec_of(trips)))
    assert materialized(result)
    assert metadata_of(result)["lakebase/update"] != begun.name
    assert len(workspace.pipelines.updates(begun.pipeline_id)) == 4


@dg.job(resource_defs={"lakebase": LakebaseResource()})
def syncing() -> None:
    lakebase_sync_op()


def sync_by_op(instance: dg.DagsterInstance, name: str, **options: Any) -> Any:
    config = LakebaseSyncConfig(synced_table=name, **options)
    return syncing.execute_in_process(
        instance=instance, run_config=dg.RunConfig(ops={"lakebase_sync_op": config}), raise_on_error=False
    )


def test_the_op(trips: Shop, instance: dg.DagsterInstance) -> None:
    version = trips.write({"id": [3], "name": ["c"]})
    assert sync_by_op(instance, trips.name, version=version).success
    assert len(trips.rows()) == 3
    assert sync_by_op(instance, trips.name, full_refresh=True).success


def test_a_run_syncs_nothing_of_another_project(
    lake: LocalLakebase, instance: dg.DagsterInstance, workspace: WorkspaceObjects
) -> None:
    number = uuid.uuid4().hex[:8]
    other, trips = workspace.projects.create(f"other-{number}"), shop(lake)
    trips.create(workspace.synced_tables, branch=f"{other.name}/branches/production")
    result = sync_by_op(instance, trips.name)
    assert "is in another project" in failure_of(result)
    workspace.synced_tables.delete(trips.name)
    workspace.projects.delete(other.name)


def test_a_continuous_one_is_synced_to_a_version(
    lake: LocalLakebase, workspace: WorkspaceObjects, instance: dg.DagsterInstance
) -> None:
    lake.admin.set(continuous_seconds=0.1)
    trips = shop(lake)
    trips.create(workspace.synced_tables, "CONTINUOUS")
    workspace.synced_tables.wait(trips.name, version=0)
    version = trips.write({"id": [3], "name": ["c"]})
    result = run(instance, build_lakebase_sync_asset(spec_of(trips), source=trips.path))
    assert version_of(materialized(result)) == str(version)
    assert "is CONTINUOUS" in failure_of(run(instance, build_lakebase_sync_asset(spec_of(trips))))
    (check,) = run(
        instance, checks=build_lakebase_sync_checks([spec_of(trips)])
    ).get_asset_check_evaluations()
    assert check.passed
    workspace.synced_tables.delete(trips.name)
    lake.admin.execute(f"DROP TABLE pub.{plain(trips)}")


def test_one_that_is_declared_is_made_so_first(
    lake: LocalLakebase, workspace: WorkspaceObjects, instance: dg.DagsterInstance
) -> None:
    trips = shop(lake)

    def asset(policy: str) -> dg.AssetsDefinition:
        declared: Any = trips.declared(policy)
        return build_lakebase_sync_asset(spec_of(trips), declared=declared, drop_orphans=True)

    assert version_of(materialized(run(instance, asset("TRIGGERED")))) == "0"
    version = trips.write({"id": [3], "name": ["c"]})
    assert version_of(materialized(run(instance, asset("TRIGGERED")))) == str(version)
    result = run(instance, asset("SNAPSHOT"))
    assert materialized(result)
    assert metadata_of(result)["lakebase/synced_table"] == f"{trips.name}_b"
    # The check is about the one in use.
    (check,) = run(
        instance, checks=build_lakebase_sync_checks([spec_of(trips)])
    ).get_asset_check_evaluations()
    assert check.passed, check.description
    assert check.metadata["lakebase/synced_table"].value == f"{trips.name}_b"
    with LakebaseClient(lake.config()) as client:
        client.synced_tables.delete(trips.name)
    lake.admin.execute("DROP TABLE lakebase_synced_table")


@pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")
def test_a_branch_deployment_syncs_nothing(trips: Shop, instance: dg.DagsterInstance) -> None:
    resource = LakebaseBranchDeployment(deployment="faster-pages")
    result = run(instance, build_lakebase_sync_asset(spec_of(trips)), resource=resource)
    assert "This is a branch deployment" in failure_of(result)


@pytest.mark.parametrize(
    ("asset", "options", "message"),
    [
        ("trips", {}, "lakebase/synced_table"),
        (["main", "pub", "tri ps"], {}, "'main.pub.tri ps'"),
        (["main", "pub", "trips"], {"view": "v"}, "no meaning without declared"),
        (["main", "pub", "trips"], {"declared": {"source": "x"}}, "unknown option 'source'"),
        (["main", "pub", "trips"], {"declared": {"source_table": "a.b.c"}}, "declared lacks primary_key"),
    ],
)
def test_what_cannot_be_synced_is_refused_when_it_is_defined(
    asset: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=message):
        build_lakebase_sync_asset(asset, **options)


def test_a_sync_may_take_as_long_as_in_the_core() -> None:
    assert sync.SYNC_TIMEOUT == synced_tables.SYNC_TIMEOUT


# A retry.


def noted(instance: dg.DagsterInstance, run_id: str) -> dict[str, str]:
    found = instance.get_run_by_id(run_id)
    assert found is not None
    return {name: value for name, value in found.tags.items() if name.startswith(sync._BEGUN)}


def run_again(instance: dg.DagsterInstance, run_id: str, asset: Any, *, resumed: bool) -> tuple[str, Any]:
    """A run's retry, which has its tags, as Dagster's daemon makes it: its id and its materialization."""
    defs = dg.Definitions(
        assets=[asset], resources={"lakebase": LakebaseResource()}, executor=dg.in_process_executor
    )
    job = defs.resolve_implicit_global_asset_job_def()
    tags = noted(instance, run_id) | ({"dagster/is_resume_retry": "true"} if resumed else {})
    made = instance.create_run_for_job(job, parent_run_id=run_id, root_run_id=run_id, tags=tags)
    result = execute_run(InMemoryJob(job), made, instance)
    assert result.success
    (event,) = [one for one in result.all_events if one.is_step_materialization]
    return made.run_id, event


def test_a_retry_goes_on_with_its_own_update_and_no_other(
    lake: LocalLakebase, trips: Shop, instance: dg.DagsterInstance, workspace: WorkspaceObjects
) -> None:
    lake.admin.set(pipeline_seconds=600.0)
    pipeline = workspace.synced_tables.get(trips.name).pipeline_id
    assert pipeline is not None
    asset = build_lakebase_sync_asset(spec_of(trips), timeout=1.0, retry_policy=dg.RetryPolicy(max_retries=2))
    trips.write({"id": [3], "name": ["c"]})
    result = run(instance, asset)
    # Each of its three tries was out of time, and no second update has begun.
    assert "within 1" in failure_of(result)
    assert len([event for event in result.all_events if event.is_step_restarted]) == 2
    assert len(workspace.pipelines.updates(pipeline)) == 2
    assert len(noted(instance, result.run_id)) == 1
    # A run that is retried from its failure goes on with it, too, and so does a retry of that run…
    lake.admin.advance(600)
    lake.admin.set(pipeline_seconds=0)
    run_id = result.run_id
    for resumed, updates in ((True, 2), (True, 2), (False, 3)):
        # …though not one that runs all anew, even with the tags of the one before.
        run_id, again = run_again(instance, run_id, asset, resumed=resumed)
        assert version_of(again) == "1"
        assert len(workspace.pipelines.updates(pipeline)) == updates


def test_a_retry_after_a_failed_update_begins_another(
    lake: LocalLakebase, trips: Shop, instance: dg.DagsterInstance, workspace: WorkspaceObjects
) -> None:
    update = workspace.synced_tables.trigger(trips.name)
    result = run(instance, build_lakebase_sync_asset(spec_of(trips)))
    lake.admin.operation_fault("pipeline_update", message="no luck")
    failed = run(instance, build_lakebase_sync_asset(spec_of(trips)))
    assert "no luck" in failure_of(failed)
    assert run_again(instance, failed.run_id, build_lakebase_sync_asset(spec_of(trips)), resumed=True)
    assert materialized(result)
    assert len(workspace.pipelines.updates(update.pipeline_id)) == 5


# Observed.


def test_an_observation_has_the_version_of_the_source(
    lake: LocalLakebase, trips: Shop, instance: dg.DagsterInstance, workspace: WorkspaceObjects
) -> None:
    observation = build_lakebase_synced_table_observation([spec_of(trips, deps=["raw"])])
    defs = dg.Definitions(
        assets=[observation],
        jobs=[dg.define_asset_job("observe", selection=[observation])],
        resources={"lakebase": LakebaseResource()},
    )

    def observe() -> Any:
        result = defs.resolve_job_def("observe").execute_in_process(instance=instance)
        (event,) = result.get_asset_observation_events()
        return event

    logins = lake.admin.counters().logins
    first = observe()
    assert version_of(first) == "0"
    values = first.asset_observation_data.asset_observation.metadata
    assert values["lakebase/state"].value == "SYNCED_TABLE_ONLINE_NO_PENDING_UPDATE"
    trips.write({"id": [3], "name": ["c"]})
    assert version_of(observe()) == "0"
    workspace.synced_tables.refresh(trips.name)
    assert version_of(observe()) == "1"
    # While all is copied anew nobody tells a version: nothing has changed yet.
    lake.admin.set(pipeline_seconds=600.0)
    workspace.synced_tables.trigger(trips.name, full_refresh=True)
    full = observe()
    assert version_of(full) == "1"
    assert "lakebase/source_version" not in full.asset_observation_data.asset_observation.metadata
    assert lake.admin.counters().logins == logins


def test_one_that_is_not_there_is_named_and_the_others_are_observed(
    trips: Shop, instance: dg.DagsterInstance
) -> None:
    observation = build_lakebase_synced_table_observation([["main", "pub", "none"], spec_of(trips)])
    result = run(instance, observation)
    assert "main.pub.none" in failure_of(result)
    (event,) = result.get_asset_observation_events()
    assert event.asset_key == dg.AssetKey("trips")
    (check,) = run(
        instance, checks=build_lakebase_sync_checks([["main", "pub", "none"]])
    ).get_asset_check_evaluations()
    assert not check.passed


# The mirror.


@pytest.fixture
def orders(lake: LocalLakebase, workspace: WorkspaceObjects) -> Iterator[str]:
    """A schema with a table that is followed, and one that is not."""
    name = f"s_{uuid.uuid4().hex[:8]}"
    lake.admin.set(cdf_seconds=0.1)
    lake.admin.execute(
        f"CREATE SCHEMA {name}; CREATE TABLE {name}.orders (id int PRIMARY KEY);"
        f"ALTER TABLE {name}.orders REPLICA IDENTITY FULL; CREATE TABLE {name}.skipped (id int);"
        f"INSERT INTO {name}.orders VALUES (1)"
    )
    workspace.cdf_configs.create(name, catalog="main", schema=name, postgres_schema=name)
    yield name
    workspace.cdf_configs.delete(name, force=True)
    lake.admin.execute(f"DROP SCHEMA {name} CASCADE")


def test_the_mirror_keeps_up(lake: LocalLakebase, orders: str, instance: dg.DagsterInstance) -> None:
    assets = [dg.AssetSpec([orders, table]) for table in ("orders", "skipped", "none")]
    checks = build_lakebase_mirror_checks(assets, config=orders, max_lag=20)

    def check() -> dict[str, Any]:
        result = run(instance, checks=checks)
        assert result.success, failure_of(result)
        return {one.asset_key.path[-1]: one for one in result.get_asset_check_evaluations()}

    lake.admin.execute(f"INSERT INTO {orders}.orders VALUES (2)")
    only = build_lakebase_mirror_checks(assets[:1], config=orders, max_lag=20)
    (found,) = run(instance, checks=only).get_asset_check_evaluations()
    assert found.passed, found.description
    values = {name: value.value for name, value in found.metadata.items()}
    assert values["lakebase/state"] == "STREAMING"
    assert values["lakebase/delta_table"] == f"main.{orders}.lb_orders_history"
    assert 0 <= values["lakebase/lag_seconds"] < 20
    checks = build_lakebase_mirror_checks(assets, config=orders, max_lag=BUSY)
    each = check()
    assert {name: one.passed for name, one in each.items()} == {
        "orders": True,
        "skipped": False,
        "none": False,
    }
    assert "REPLICA IDENTITY is not FULL" in str(each["skipped"].description)
    assert "is not followed" in str(each["none"].description)
    lake.admin.set(cdf_seconds=600.0)
    # What is under way may still be written, and the next pass is far away.
    lake.admin.execute(f"INSERT INTO {orders}.orders VALUES (3)")
    check()
    lake.admin.execute(f"INSERT INTO {orders}.orders VALUES (4)")
    assert not check()["orders"].passed
