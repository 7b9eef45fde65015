"""Synced tables as tasks: synced, declared, waited for, and told to assets."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.providers.openlineage.extractors.base import DefaultExtractor
from airflow.sdk import Asset

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.workspace.objects.sync.synced_table import SyncedTable
from lakebase_provider.hooks._sync import last_sync_of, sync_of
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.links import LakebasePipelineLink
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.sync import LakebaseSyncedTableOperator, LakebaseSyncOperator
from lakebase_provider.sensors.sync import LakebaseInDeltaSensor, LakebaseSyncedTableSensor
from lakebase_provider.triggers.sync import LakebaseSyncEventTrigger
from tests.airflow.conftest import connection_fields, define
from tests.airflow.test_branch_operators import Pushed, cause_of, deferred_by, is_sent, ran
from tests.airflow.test_triggers import event_of, sent
from tests.core.workspace.lakehouse import Shop, shop
from tests.eventually import eventually

TABLES = "/api/2.0/postgres/synced_tables"


@pytest.fixture
def client(lake: LocalLakebase) -> LakebaseClient:
    return LakebaseHook().client


@pytest.fixture
def trips(lake: LocalLakebase) -> Shop:
    return shop(lake)


def declared(trips: Shop, policy: str = "TRIGGERED", **arguments: Any) -> LakebaseSyncedTableOperator:
    options: Any = trips.declared(policy)
    del options["postgres_database"]
    given = {"task_id": "declare", "action": "ensure", "table": trips.name, "options": options, **arguments}
    return LakebaseSyncedTableOperator(**given)


def sync(trips: Shop, **arguments: Any) -> LakebaseSyncOperator:
    return LakebaseSyncOperator(**{"task_id": "sync", "table": trips.name, **arguments})


def test_a_table_is_made_and_synced(lake: LocalLakebase, client: LakebaseClient, trips: Shop) -> None:
    made = ran(declared(trips))
    assert (made["name"], made["version"]) == (trips.name, 0)
    assert trips.rows() == [(1, "a"), (2, "b")]
    assert ran(declared(trips)) == made
    version = trips.write({"id": [3], "name": ["c"]})
    operator = sync(trips, version=str(version), source=trips.source)
    done = ran(operator)
    assert (done["version"], done["adopted"], len(trips.rows())) == (1, False, 3)
    assert done["sync_end_time"] > made["sync_end_time"]
    link = LakebasePipelineLink().get_link(operator, ti_key=None)
    assert link.endswith(f"/#joblist/pipelines/{done['pipeline_id']}/updates/{done['update_id']}")

    lineage = DefaultExtractor(operator).extract()
    assert lineage is not None
    host = str(client.config.workspace_host).rpartition("/")[2]
    assert [(one.namespace, one.name) for one in lineage.inputs] == [(f"databricks://{host}", trips.source)]
    target = client.target()
    name = trips.name.replace("main", "databricks_postgres")
    assert [(one.namespace, one.name) for one in lineage.outputs] == [
        (f"postgres://{target.host}:{target.port}", name)
    ]
    # A sync that has nothing to do.
    again = ran(sync(trips, full_refresh=False))
    assert (again["version"], again["sync_end_time"]) == (1, done["sync_end_time"])
    gone = ran(LakebaseSyncedTableOperator(task_id="delete", action="delete", table=trips.name))
    assert gone == {"name": trips.name, "state": None}
    assert ran(LakebaseSyncedTableOperator(task_id="delete", action="delete", table=trips.name)) == gone
    assert LakebaseHook().get_first(f"SELECT to_regclass('pub.{trips.name.split('.')[2]}')") == (None,)


async def test_the_triggerer_waits(lake: LocalLakebase, client: LakebaseClient, trips: Shop) -> None:
    lake.admin.set(pipeline_seconds=60)
    making = await asyncio.to_thread(deferred_by, declared(trips, deferrable=True))
    waiting = asyncio.create_task(event_of(making.trigger))
    await asyncio.to_thread(lake.admin.advance, 120)
    made = declared(trips).execute_complete({}, await waiting)
    assert made["version"] == 0

    trips.write({"id": [3], "name": ["c"]})
    first = await asyncio.to_thread(deferred_by, sync(trips, deferrable=True))
    # A worker that was killed has told nobody: its successor adopts the update, and so does a triggerer's.
    retried = await asyncio.to_thread(deferred_by, sync(trips, version=1, deferrable=True))
    assert retried.trigger.update == {**first.trigger.update, "adopted": True}
    waiting = asyncio.create_task(event_of(retried.trigger))
    await asyncio.to_thread(lake.admin.advance, 120)
    done = sync(trips).execute_complete({}, await waiting)
    assert (done["version"], done["adopted"]) == (1, True)
    assert done["update_id"] == first.trigger.update["update_id"]
    assert (await event_of(first.trigger))["sync"] == {**done, "adopted": False}
    lake.admin.set(pipeline_seconds=0)


async def test_what_fails_fails_at_once_with_its_text(
    lake: LocalLakebase, client: LakebaseClient, trips: Shop
) -> None:
    made = await asyncio.to_thread(ran, declared(trips))
    page = f"/pipelines/{made['pipeline_id']}/updates/"
    lake.admin.operation_fault("pipeline_update", message="no compute")
    here = sync(trips)
    assert "no compute" in str(await asyncio.to_thread(cause_of, here))
    lake.admin.operation_fault("pipeline_update", message="no compute")
    deferred = await asyncio.to_thread(deferred_by, sync(trips, deferrable=True))
    event, resumed = await event_of(deferred.trigger), sync(trips)
    with pytest.raises(AirflowFailException, match="no compute"):
        resumed.execute_complete({}, event)
    for operator in (here, resumed):
        assert page in LakebasePipelineLink().get_link(operator, ti_key=None)
    sensor = LakebaseSyncedTableSensor(task_id="wait", table=trips.name, version=7)
    assert "no compute" in str(await asyncio.to_thread(cause_of, sensor))
    none = sync(trips, table="main.pub.none")
    assert "not found" in str(await asyncio.to_thread(cause_of, none))


def test_it_is_made_as_declared(client: LakebaseClient, trips: Shop) -> None:
    view = f"public.v_{trips.name.split('.')[2]}"
    given: dict[str, Any] = {"action": "reconcile", "view": view}
    assert ran(declared(trips, **given))["action"] == "created"
    assert ran(declared(trips, **given))["action"] == "unchanged"
    done = ran(declared(trips, "SNAPSHOT", **given, drop_orphans=True))
    assert (done["action"], done["changed"], done["name"]) == (
        "replaced",
        ["scheduling_policy"],
        f"{trips.name}_b",
    )
    assert (done["former"], done["lost_grants"]) == (None, [])
    LakebaseHook().run(f"DROP VIEW {view}")
    ran(LakebaseSyncedTableOperator(task_id="delete", action="delete", table=trips.name))
    assert client.workspace.synced_tables.find(f"{trips.name}_b") is None


async def test_a_sensor_waits_for_a_version(lake: LocalLakebase, client: LakebaseClient, trips: Shop) -> None:
    made = await asyncio.to_thread(ran, declared(trips))
    now = LakebaseSyncedTableSensor(task_id="now", table=trips.name, since=made["sync_start_time"])
    assert (await asyncio.to_thread(ran, now))["version"] == 0
    operator = LakebaseSyncedTableSensor(
        task_id="later", table=trips.name, version="1", poke_interval=0.1, deferrable=True
    )
    deferred = await asyncio.to_thread(deferred_by, operator)
    waiting = asyncio.create_task(event_of(deferred.trigger))
    trips.write({"id": [3], "name": ["c"]})
    await asyncio.to_thread(client.workspace.synced_tables.refresh, trips.name)
    assert operator.execute_complete({}, await waiting)["version"] == 1


async def test_what_is_committed_is_waited_for_in_delta(lake: LocalLakebase, client: LakebaseClient) -> None:
    lake.admin.set(cdf_seconds=3600)
    hook = LakebaseHook()
    hook.run(
        [
            "CREATE SCHEMA mirrored",
            "CREATE TABLE mirrored.orders (id int PRIMARY KEY)",
            "ALTER TABLE mirrored.orders REPLICA IDENTITY FULL",
            "INSERT INTO mirrored.orders VALUES (1)",
        ]
    )
    given = {"catalog": "main", "schema": "mirrored", "postgres_schema": "mirrored"}
    await asyncio.to_thread(client.workspace.cdf_configs.create, "mirrored", **given)
    await asyncio.to_thread(eventually, lambda: streams(client))
    hook.run("INSERT INTO mirrored.orders VALUES (2)")
    (lsn,) = hook.get_first("SELECT pg_current_wal_lsn()::text")
    operator = LakebaseInDeltaSensor(
        task_id="mirror", lsn=lsn, cdf_config="mirrored", tables=["orders"], poke_interval=0.1
    )
    waiting = asyncio.create_task(asyncio.to_thread(ran, operator))
    await asyncio.to_thread(lake.admin.advance, 3600)
    [found] = await waiting
    assert (found["uc_table"], found["state"]) == ("main.mirrored.lb_orders_history", "STREAMING")
    hook.run("INSERT INTO mirrored.orders VALUES (3)")
    (lsn,) = hook.get_first("SELECT pg_current_wal_lsn()::text")
    later = LakebaseInDeltaSensor(
        task_id="later", lsn=lsn, cdf_config="mirrored", poke_interval=0.1, deferrable=True
    )
    trigger = (await asyncio.to_thread(deferred_by, later)).trigger
    await asyncio.to_thread(lake.admin.advance, 3600)
    [found] = later.execute_complete({}, await event_of(trigger))
    assert found["postgres_table"] == "orders"
    await asyncio.to_thread(client.workspace.cdf_configs.delete, "mirrored", force=True)
    hook.run("DROP SCHEMA mirrored CASCADE")


def streams(client: LakebaseClient) -> bool:
    return [one.state for one in client.workspace.cdf_configs.statuses("mirrored")] == ["STREAMING"]


def test_the_right_to_manage_may_be_anothers(
    lake: LocalLakebase, trips: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another database is its own affair.
    define(monkeypatch, "manager", **connection_fields(lake, schema="other"))
    assert ran(declared(trips, manage_conn_id="manager"))["version"] == 0
    assert ran(sync(trips, manage_conn_id="manager"))["version"] == 0


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"table": "trips"}, "table is 'trips'"),
        ({"table": "main.pub.trips", "version": -1}, "version is -1"),
        ({"table": "main.pub.trips", "version": "head"}, "version is 'head'"),
        ({"table": "main.pub.trips", "timeout": 0}, "timeout is 0"),
    ],
)
def test_what_is_wrong_is_said_when_the_dag_is_parsed(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        LakebaseSyncOperator(task_id="t", **given)


def test_an_argument_has_a_meaning_for_its_action() -> None:
    given: dict[str, Any] = {"task_id": "t", "table": "main.pub.trips"}
    with pytest.raises(ConfigError, match="'options' are needed for 'ensure'"):
        LakebaseSyncedTableOperator(action="ensure", **given)
    with pytest.raises(ConfigError, match="'options' have no meaning for 'delete'"):
        LakebaseSyncedTableOperator(action="delete", options={"source_table": "a.b.c"}, **given)
    with pytest.raises(ConfigError, match="'view' has no meaning for 'delete'"):
        LakebaseSyncedTableOperator(action="delete", view="v", **given)
    with pytest.raises(ConfigError, match="'drop_table' has no meaning for 'ensure'"):
        LakebaseSyncedTableOperator(
            action="ensure", options={"source_table": "a.b.c"}, drop_table=False, **given
        )
    with pytest.raises(ConfigError, match="not said what of main"):
        LakebaseSyncedTableSensor(**given)
    with pytest.raises(ConfigError, match="since is 'yesterday'"):
        LakebaseSyncedTableSensor(since="yesterday", **given)


def test_a_version_that_became_nothing_is_not_all_versions(client: LakebaseClient, trips: Shop) -> None:
    ran(declared(trips))
    operator = sync(trips, version="{{ ti.values['version'] }}")
    ti = Pushed()
    ti.values["version"] = None
    with pytest.raises(AirflowFailException, match="version is 'None'"):
        ran(operator, ti)


# What an asset is told by a triggerer that has no state of it; test_sync_kills.py has one with it.


async def next_version(events: Any) -> Any:
    return (await asyncio.wait_for(anext(events), timeout=30)).payload["version"]


async def test_an_asset_is_told_of_each_sync_once(
    lake: LocalLakebase, client: LakebaseClient, trips: Shop
) -> None:
    tables = client.workspace.synced_tables
    trigger = sent(LakebaseSyncEventTrigger(table=trips.name, poke_interval=0.05))
    events = trigger.run()
    first = asyncio.create_task(next_version(events))
    await looked(lake, trips)
    # Also the first one of a table that was not there.
    await asyncio.to_thread(ran, declared(trips))
    assert await first == 0
    second = asyncio.create_task(next_version(events))
    await asyncio.to_thread(tables.refresh, trips.name, full_refresh=True)
    trips.write({"id": [3], "name": ["c"]})
    # What cannot be seen is looked for again.
    lake.admin.fault("GET", f"{TABLES}/*", status=403, message="no", error_code="NO")
    await looked(lake, trips)
    lake.admin.clear_faults()
    await asyncio.to_thread(tables.refresh, trips.name)
    assert await second == 1
    await events.aclose()

    # One that begins anew tells nothing of what was there.
    again = sent(trigger)
    again.asset_state_store = two_assets()
    events = again.run()
    third = asyncio.create_task(next_version(events))
    await looked(lake, trips)
    trips.write({"id": [4], "name": ["d"]})
    await asyncio.to_thread(tables.refresh, trips.name)
    assert await third == 2
    await events.aclose()


def test_a_sync_that_runs_is_not_told_of() -> None:
    name, began = "synced_tables/a.b.c", datetime(2027, 1, 31, tzinfo=timezone.utc)
    table = SyncedTable(name=name, synced_version=5, processed_version=6, sync_start_time=began)
    assert (table.sync_key, last_sync_of(table)["version"], sync_of(table)["version"]) == ("5", 5, 6)
    # Where no version is told, and while all is copied anew.
    table = SyncedTable(name=name, sync_start_time=began)
    assert (table.sync_key, last_sync_of(table)["version"]) == (began.isoformat(), None)
    assert SyncedTable(name=name, processed_version=6).sync_key is None


async def looked(lake: LocalLakebase, trips: Shop) -> None:
    """Wait until the trigger has looked at the table."""
    lake.admin.reset_counters()
    await asyncio.to_thread(eventually, lambda: is_sent(lake, "GET", f"{TABLES}/{trips.name}"))


def two_assets() -> Any:
    """The states of assets with equal triggers, which Airflow does not tell apart; None before 3.3."""
    try:
        from airflow.sdk.execution_time.context import AssetStateStoreAccessors
    except ImportError:
        return None
    return AssetStateStoreAccessors(inlets=[Asset("first"), Asset("second")])
