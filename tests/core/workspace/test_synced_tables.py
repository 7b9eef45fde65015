"""Synced tables: both APIs, by plain REST and databricks-sdk; what a sync is judged by, trap by trap."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import (
    AlreadyExistsError,
    ConfigError,
    ControlPlaneError,
    NotFoundError,
    OperationFailedError,
    OperationTimeoutError,
)
from lakebase_provider.core.workspace.objects.sync.delta_version import delta_version
from lakebase_provider.core.workspace.objects.sync.goal import Goal
from lakebase_provider.core.workspace.objects.sync.pipelines import PipelineUpdate, StartedUpdate
from lakebase_provider.core.workspace.objects.sync.synced_table import SyncedTable
from lakebase_provider.core.workspace.objects.sync.synced_tables import SyncedTables
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.local import LocalLakebase
from tests.core.workspace.clocks import Meanwhile
from tests.core.workspace.conftest import WAYS, client_by
from tests.core.workspace.lakehouse import Shop, shop

APIS = ("autoscaling", "provisioned")
UPDATES = "/api/2.0/pipelines/*/updates"


def client_of(api: str, lake: LocalLakebase, way: str = "rest") -> LakebaseClient:
    if api == "autoscaling":
        return client_by(way, lake)
    environment = {name: value for name, value in lake.env().items() if "ENDPOINT" not in name}
    from lakebase_provider.core import LakebaseConfig

    client = LakebaseClient(LakebaseConfig.from_env(environment, instance="local"))
    client._needed_control_plane()._transport = WAYS[way](client.config)
    return client


@pytest.fixture(params=APIS)
def tables(request: pytest.FixtureRequest, lake: LocalLakebase) -> Iterator[SyncedTables]:
    with client_of(request.param, lake) as client:
        yield client.workspace.synced_tables


@pytest.fixture
def trips(lake: LocalLakebase) -> Shop:
    return shop(lake)


# What is created, read and deleted.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("api", APIS)
def test_it_is_created_read_and_deleted(lake: LocalLakebase, trips: Shop, api: str, way: str) -> None:
    with client_of(api, lake, way) as client:
        tables = client.workspace.synced_tables
        made = trips.create(tables)
        assert (made.name, made.id) == (f"synced_tables/{trips.name}", trips.name)
        done = tables.wait(trips.name, version=0)
        assert done.version == 0
        assert done.table.is_online
        assert done.table.commit_time is None
        assert trips.rows() == [(1, "a"), (2, "b")]
        assert tables.get(trips.name) == done.table
        with pytest.raises(AlreadyExistsError):
            trips.create(tables)
        assert tables.ensure(trips.name, **trips.declared()).uid == done.table.uid
        tables.delete(trips.name)
        assert tables.find(trips.name) is None
        with pytest.raises(NotFoundError):
            tables.delete(trips.name)
        tables.delete(trips.name, missing_ok=True)
        # The table in Postgres stays, and is in the way.
        assert len(trips.rows()) == 2
        with pytest.raises((AlreadyExistsError, OperationFailedError), match="Destination table") as caught:
            trips.create(tables)
        assert "drop" in caught.value.remedy


def test_what_one_api_has_made_the_other_does_not_see(lake: LocalLakebase, trips: Shop) -> None:
    with client_of("autoscaling", lake) as new, client_of("provisioned", lake) as old:
        trips.create(new.workspace.synced_tables)
        assert old.workspace.synced_tables.find(trips.name) is None
        assert trips.name not in [one.id for one in old.workspace.synced_tables.list()]  # type: ignore[attr-defined]
        other = shop(lake)
        other.create(old.workspace.synced_tables)
        assert [one.id for one in old.workspace.synced_tables.list()] == [other.name]  # type: ignore[attr-defined]
        assert new.workspace.synced_tables.find(other.name) is None


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"source_table": "main.src.none"}, NotFoundError, "TABLE_DOES_NOT_EXIST"),
        ({"source_table": "../../etc"}, ConfigError, "no name of a table"),
        ({"primary_key": []}, ConfigError, "primary_key"),
        ({"primary_key": "id"}, ConfigError, "primary_key"),
        ({"scheduling_policy": "SOMETIMES"}, Exception, "must be one of"),
        ({"scheduling_policy": None}, ConfigError, "scheduling_policy"),
        ({"postgres_database": None}, Exception, "is required"),
        ({"existing_pipeline_id": "p", "storage_catalog": "main"}, ConfigError, "existing_pipeline_id"),
        ({"existing_pipeline_id": "none"}, NotFoundError, "was not found"),
        ({"unknown": 1}, ConfigError, "unknown"),
    ],
)
def test_what_is_refused(
    tables: SyncedTables, trips: Shop, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        trips.create(tables, **options)
    assert tables.find(trips.name) is None


def test_the_name_of_a_deleted_one_is_waited_for(
    lake: LocalLakebase, workspace: WorkspaceObjects, trips: Shop
) -> None:
    tables = workspace.synced_tables
    lake.admin.set(synced_name_seconds=1.0)
    trips.create(tables)
    tables.wait(trips.name, version=0)
    tables.delete(trips.name)
    lake.admin.execute(f"DROP TABLE pub.{trips.name.split('.')[2]}")
    trips.create(tables)
    refused = [one.status for one in lake.admin.requests() if one.method == "POST" and "synced" in one.path]
    assert refused[0] == refused[-1] == 200
    assert 409 in refused


# What a sync brings.


def test_changes_are_applied_and_grants_and_indexes_stay(tables: SyncedTables, trips: Shop) -> None:
    trips.create(tables)
    tables.wait(trips.name, version=0)
    plain = trips.name.split(".")[2]
    trips.lake.admin.execute(f"CREATE INDEX ON pub.{plain} (name); GRANT SELECT ON pub.{plain} TO PUBLIC")
    trips.write({"id": [3], "name": ["c"]})
    trips.table.update(updates={"name": "'z'"}, predicate="id = 1")
    trips.table.delete("id = 2")
    done = tables.refresh(trips.name, version=trips.table)
    assert done.version == 3
    assert trips.rows() == [(1, "z"), (3, "c")]
    ((count,),) = trips.lake.admin.execute(
        "SELECT count(*) FROM pg_indexes WHERE tablename = %s AND indexdef LIKE %s", (plain, "%(name)")
    )
    assert count == 1
    ((acl,),) = trips.lake.admin.execute("SELECT relacl::text FROM pg_class WHERE relname = %s", (plain,))
    assert "=r/" in acl


def test_a_snapshot_and_a_full_refresh_bring_all(lake: LocalLakebase, workspace: WorkspaceObjects) -> None:
    tables, trips = workspace.synced_tables, shop(lake)
    trips.create(tables, "SNAPSHOT")
    tables.wait(trips.name, version=0)
    trips.table.delete("id = 1")
    assert tables.refresh(trips.name).version == 1
    assert trips.rows() == [(2, "b")]
    # Made anew, the source's versions begin again.
    import shutil

    shutil.rmtree(trips.path)
    trips.write({"id": [9], "name": ["i"]})
    assert tables.refresh(trips.name, version=trips.table).version == 0
    assert trips.rows() == [(9, "i")]


def test_a_continuous_one_copies_by_itself(lake: LocalLakebase, workspace: WorkspaceObjects) -> None:
    tables, trips = workspace.synced_tables, shop(lake)
    lake.admin.set(continuous_seconds=0.1)
    trips.create(tables, "CONTINUOUS")
    tables.wait(trips.name, version=0)
    version = trips.write({"id": [3], "name": ["c"]})
    done = tables.wait(trips.name, version=version)
    assert done.table.is_continuous
    assert len(trips.rows()) == 3
    version = trips.write({"id": [4], "name": ["d"]})
    assert tables.refresh(trips.name, version=version).update is not None
    assert len(trips.rows()) == 4


def test_types_keys_and_two_tables_of_one_pipeline(lake: LocalLakebase, workspace: WorkspaceObjects) -> None:
    tables, first, second = workspace.synced_tables, shop(lake), shop(lake)
    first.create(tables)
    pipeline = tables.wait(first.name, version=0).table.pipeline_id
    moment = datetime(2027, 1, 1, tzinfo=timezone.utc)
    columns = {"seen": [moment, moment + timedelta(1), moment], "tags": [["x"], None, []]}
    second.write({"id": [5, 5, None], "name": ["old", "new", "none"], **columns}, schema_mode="merge")
    second.create(tables, existing_pipeline_id=pipeline, timeseries_key="seen")
    found = tables.wait(second.name, version=1)
    assert found.table.pipeline_id == pipeline
    assert second.rows("id, name, tags") == [(1, "a", None), (2, "b", None), (5, "new", None)]
    with pytest.raises(Exception, match="scheduling_policy"):
        shop(lake).create(tables, "SNAPSHOT", existing_pipeline_id=pipeline)


# What it is judged by.


def test_the_previous_sync_is_not_this_one(lake: LocalLakebase, tables: SyncedTables, trips: Shop) -> None:
    trips.create(tables)
    tables.wait(trips.name, version=0)
    before = datetime.now(timezone.utc)
    version = trips.write({"id": [3], "name": ["c"]})
    assert tables.get(trips.name).is_online
    for goal in ({"version": version}, {"since": before}):
        with pytest.raises(OperationTimeoutError):
            tables.wait(trips.name, timeout=0.3, **goal)  # type: ignore[arg-type]
    done = tables.wait(trips.name, version=version, since=before, update=tables.trigger(trips.name))
    assert done.version == version


def test_nothing_to_do_is_done(tables: SyncedTables, trips: Shop) -> None:
    trips.create(tables)
    first = tables.wait(trips.name, version=0).table
    before = datetime.now(timezone.utc)
    tables.refresh(trips.name, version=0, timeout=30)
    assert tables.get(trips.name).sync_end_time == first.sync_end_time
    tables.wait(trips.name, since=before, timeout=30)


def test_a_head_that_moved_without_data_is_reached(tables: SyncedTables, trips: Shop) -> None:
    trips.create(tables)
    tables.wait(trips.name, version=0)
    trips.write({"id": [3], "name": ["c"]})
    tables.refresh(trips.name, version=1)
    assert trips.table.optimize.compact()["numFilesRemoved"]
    head = trips.table.version()
    assert head == 2
    assert delta_version(trips.path) == 1
    assert tables.refresh(trips.name, version=head, timeout=30).version == 1
    assert tables.wait(trips.name, version=trips.table, timeout=30).version == 1


def test_one_that_failed_says_at_once_why(
    lake: LocalLakebase, tables: SyncedTables, workspace: WorkspaceObjects, trips: Shop
) -> None:
    trips.create(tables)
    tables.wait(trips.name, version=0)
    version = trips.write({"id": [3], "name": ["c"]})
    lake.admin.operation_fault("pipeline_update", message="event_log_1 is owned by somebody else")
    update = tables.trigger(trips.name)
    with pytest.raises(OperationFailedError, match="event_log_1 is owned by somebody else") as caught:
        tables.wait(trips.name, version=version, update=update, timeout=30)
    assert caught.value.name == update.name
    assert workspace.pipelines.get(update.pipeline_id).state == "IDLE"
    found = tables.get(trips.name)
    assert (found.state, found.is_online) == ("SYNCED_TABLE_ONLINE_PIPELINE_FAILED", True)
    # Without the update, the last one is judged; what was there before is there.
    with pytest.raises(OperationFailedError, match="somebody else"):
        tables.wait(trips.name, version=version, timeout=30)
    assert tables.wait(trips.name, version=0).version == 0
    # It failed before the moment that counts.
    with pytest.raises(OperationTimeoutError):
        tables.wait(trips.name, since=datetime.now(timezone.utc), timeout=0.3)
    assert tables.refresh(trips.name, version=version).version == version


def test_duplicates_of_a_key_fail_by_themselves(tables: SyncedTables, trips: Shop) -> None:
    trips.write({"id": [1], "name": ["again"]})
    trips.create(tables)
    with pytest.raises(OperationFailedError, match="PRIMARY_KEY_CONSTRAINT_VIOLATION") as caught:
        tables.wait(trips.name, version=1, timeout=30)
    assert "time series key" in caught.value.remedy
    assert tables.get(trips.name).state == "SYNCED_TABLE_OFFLINE_FAILED"


def test_a_full_refresh_tells_no_last_sync(lake: LocalLakebase, tables: SyncedTables, trips: Shop) -> None:
    trips.create(tables)
    tables.wait(trips.name, version=0)
    lake.admin.set(pipeline_seconds=600.0)
    update = tables.trigger(trips.name, full_refresh=True)
    found = tables.get(trips.name)
    assert (found.version, found.sync_end_time, found.is_online) == (None, None, True)
    with pytest.raises(OperationTimeoutError):
        tables.wait(trips.name, version=0, timeout=0.3)
    lake.admin.advance(600)
    assert tables.wait(trips.name, version=0, update=update).version == 0


def test_an_update_that_runs_is_adopted_and_followed_by_another(
    lake: LocalLakebase, tables: SyncedTables, workspace: WorkspaceObjects, trips: Shop
) -> None:
    trips.create(tables)
    tables.wait(trips.name, version=0)
    lake.admin.set(pipeline_seconds=1.0)
    first = tables.trigger(trips.name)
    assert not first.adopted
    second = tables.trigger(trips.name)
    assert (second.update_id, second.adopted) == (first.update_id, True)
    # Without a version nobody knows whether it saw the last commit.
    done = tables.refresh(trips.name, timeout=60)
    assert done.update is not None
    assert done.update.update_id != first.update_id
    # That is said where somebody else has triggered it, and waits.
    ended = tables.wait(trips.name, update=second)
    assert ended.update == second
    again = tables.wait(trips.name, update=second, fresh=True, timeout=60).update
    assert again is not None
    assert again.update_id not in (first.update_id, done.update.update_id)
    third = tables.trigger(trips.name)
    fourth = tables.trigger(trips.name, adopt=False)
    assert (fourth.adopted, fourth.update_id == third.update_id) == (False, False)
    assert len(workspace.pipelines.updates(first.pipeline_id)) == 6


def test_an_update_that_ends_while_one_asks_for_another_is_no_refusal(
    lake: LocalLakebase, tables: SyncedTables, trips: Shop
) -> None:
    trips.create(tables)
    tables.wait(trips.name, version=0)
    lake.admin.set(pipeline_seconds=600.0)
    first = tables.trigger(trips.name)

    def ends() -> None:
        lake.admin.advance(600)
        # It ran when the next request came, and has ended when its state is asked for.
        lake.admin.fault("POST", UPDATES, status=409, error_code="RESOURCE_CONFLICT", times=1)

    with LakebaseClient(lake.config()) as client:
        client._clock = Meanwhile(ends)
        second = client.workspace.pipelines.start(first.pipeline_id, adopt=False)
        assert (second.adopted, second.update_id == first.update_id) == (False, False)
        lake.admin.advance(600)
        lake.admin.fault("POST", UPDATES, status=409, error_code="RESOURCE_CONFLICT")
        with pytest.raises(ControlPlaneError, match="RESOURCE_CONFLICT"):
            client.workspace.pipelines.start(first.pipeline_id)


def test_an_update_whose_answer_was_lost_is_found(
    lake: LocalLakebase, tables: SyncedTables, workspace: WorkspaceObjects, trips: Shop
) -> None:
    trips.create(tables)
    tables.wait(trips.name, version=0)
    lake.admin.set(pipeline_seconds=5.0)
    lake.admin.fault("POST", UPDATES, status=503, lost=True, times=1)
    update = tables.trigger(trips.name)
    assert not update.adopted
    assert workspace.pipelines.updates(update.pipeline_id)[0].update_id == update.update_id
    assert len(workspace.pipelines.updates(update.pipeline_id)) == 2


def test_states_come_in_their_order(lake: LocalLakebase, workspace: WorkspaceObjects, trips: Shop) -> None:
    lake.admin.set(pipeline_seconds=50.0)
    tables = workspace.synced_tables
    made = trips.create(tables)
    assert made.pipeline_id is not None
    states, updates = [tables.get(trips.name).state], []
    for _ in range(5):
        updates.append(workspace.pipelines.updates(made.pipeline_id)[0].state)
        lake.admin.advance(10)
        states.append(tables.get(trips.name).state)
    assert updates == ["CREATED", "WAITING_FOR_RESOURCES", "INITIALIZING", "SETTING_UP_TABLES", "RUNNING"]
    plain = [str(state).removeprefix("SYNCED_TABLE_") for state in states]
    resources = "PROVISIONING_PIPELINE_RESOURCES"
    assert plain == [*[resources] * 4, "PROVISIONING_INITIAL_SNAPSHOT", "ONLINE_NO_PENDING_UPDATE"]
    assert tables.get(trips.name).state == states[-1]


async def test_for_asyncio(lake: LocalLakebase, workspace: WorkspaceObjects, trips: Shop) -> None:
    tables = workspace.synced_tables
    await tables.acreate(trips.name, **trips.declared())  # type: ignore[arg-type]
    assert (await tables.await_(trips.name, version=0)).version == 0
    version = trips.write({"id": [3], "name": ["c"]})
    assert await tables.areached(trips.name, version=version) is None
    assert (await tables.arefresh(trips.name, version=lambda: version)).version == version
    reached = await tables.areached(trips.name, version=version)
    assert reached is not None
    assert reached.version == version
    update = await tables.atrigger(trips.name)
    assert (await tables.await_(trips.name, update=update)).update == update
    await tables.adelete(trips.name)


def test_what_is_waited_for_must_be_said(workspace: WorkspaceObjects) -> None:
    tables = workspace.synced_tables
    for goal, text in (
        ({}, "not said what"),
        ({"since": datetime(2027, 1, 1)}, "time zone"),
        ({"version": -1}, "whole number"),
        ({"version": True}, "number"),
        ({"version": 0, "timeout": 0}, "above 0"),
    ):
        with pytest.raises(ConfigError, match=text):
            tables.wait("main.pub.t", **goal)  # type: ignore[arg-type]


# The judgement alone.

EARLY = datetime(2027, 1, 1, tzinfo=timezone.utc)
LATE = EARLY + timedelta(hours=1)
ONLINE = SyncedTable(state="SYNCED_TABLE_ONLINE_NO_PENDING_UPDATE", synced_version=5, sync_start_time=EARLY)
BROKEN = SyncedTable(state="SYNCED_TABLE_ONLINE_PIPELINE_FAILED", synced_version=5)


def update(state: str | None, created: datetime = EARLY) -> PipelineUpdate:
    return PipelineUpdate(update_id="u", state=state, create_time=created)


OURS, ADOPTED = StartedUpdate("p", "u"), StartedUpdate("p", "u", adopted=True)


@pytest.mark.parametrize(
    ("goal", "table", "latest", "verdict"),
    [
        # Nothing is told yet.
        (Goal(version=5), SyncedTable(), None, "waiting"),
        (Goal(version=5), SyncedTable(), update(None), "waiting"),
        (Goal(version=5, update=OURS), SyncedTable(), update(None), "waiting"),
        (Goal(version=5, update=OURS), SyncedTable(), update("COMPLETED"), "reached"),
        # The version, by either field.
        (Goal(version=5), ONLINE, update("COMPLETED"), "reached"),
        (Goal(version=6), ONLINE, update("COMPLETED"), "waiting"),
        (Goal(version=6), SyncedTable(processed_version=6), update("RUNNING"), "reached"),
        (Goal(version=5, since=LATE), ONLINE, update("COMPLETED"), "waiting"),
        # A moment: a sync that began then, or an update that had nothing to do.
        (Goal(since=EARLY), ONLINE, update("RUNNING"), "reached"),
        (Goal(since=LATE), ONLINE, update("COMPLETED"), "waiting"),
        (Goal(since=LATE), ONLINE, update("COMPLETED", LATE), "reached"),
        (Goal(since=LATE), ONLINE, update("FAILED"), "waiting"),
        (Goal(since=LATE), ONLINE, update("FAILED", LATE), "failed"),
        # Not the table's state, which is still that of the sync before.
        (Goal(version=6, update=OURS), BROKEN, update("RUNNING"), "waiting"),
        (Goal(version=5, update=OURS), ONLINE, update("RUNNING"), "waiting"),
        (Goal(version=5, update=OURS), ONLINE, update("FAILED"), "failed"),
        (Goal(version=6), ONLINE, update("FAILED"), "failed"),
        (Goal(version=6), ONLINE, update("CANCELED"), "failed"),
        (Goal(version=5), BROKEN, update("FAILED"), "reached"),
        (Goal(version=5), SyncedTable(state="SYNCED_TABLE_OFFLINE_FAILED"), None, "failed"),
        (Goal(version=5), SyncedTable(uc_state="FAILED"), None, "failed"),
        # One that was adopted may have begun too early.
        (Goal(version=6, update=ADOPTED), ONLINE, update("COMPLETED"), "again"),
        (Goal(version=5, update=ADOPTED), ONLINE, update("COMPLETED"), "reached"),
        (Goal(update=ADOPTED), ONLINE, update("COMPLETED"), "reached"),
        (Goal(update=ADOPTED, is_fresh=True), ONLINE, update("COMPLETED"), "again"),
        # One that runs without end.
        (
            Goal(version=6, update=ADOPTED),
            SyncedTable(state="SYNCED_TABLE_ONLINE_CONTINUOUS_UPDATE", synced_version=6),
            update("RUNNING"),
            "reached",
        ),
    ],
)
def test_the_judgement(goal: Goal, table: SyncedTable, latest: PipelineUpdate | None, verdict: str) -> None:
    assert goal.judge(table, latest) == verdict


def test_a_version_is_read_from_a_history() -> None:
    class Cursor:
        description = (("version",), ("timestamp",), ("operation",))
        asked = ""

        def execute(self, statement: str) -> None:
            Cursor.asked = statement

        def fetchall(self) -> list[tuple[int, None, str]]:
            return [(9, None, "OPTIMIZE"), (8, None, "VACUUM END"), (7, None, "WRITE")]

        def close(self) -> None:
            pass

    class Connection:
        cursor = Cursor

    assert delta_version("main.src.trips", Connection()) == 7
    assert re.match(r"DESCRIBE HISTORY `main`\.`src`\.`trips` LIMIT \d+", Cursor.asked)
    with pytest.raises(ConfigError, match="form"):
        delta_version("trips; DROP TABLE x", Connection())
