"""Snapshots, earlier data and endpoints as tasks: what they make, and what a retry finds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient, branch_id_for
from lakebase_provider.core.errors import (
    AlreadyExistsError,
    ConfigError,
    ManagedByParentError,
    ObjectStateError,
    TableNotFoundError,
)
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.branches import (
    LakebaseEndpointOperator,
    LakebaseRestoreOperator,
    LakebaseSnapshotOperator,
)
from tests.airflow.conftest import connection_fields, define
from tests.airflow.test_branch_operators import cause_of, deferred_by, killed_while, ran, ran_in_triggerer
from tests.airflow.test_triggers import event_of
from tests.core.upkeep.leases import left

SNAPSHOTS = "/api/2.0/postgres/projects/local/snapshots"


@pytest.fixture
def client(lake: LocalLakebase) -> Iterator[LakebaseClient]:
    """The client of the connection; no test leaves a branch or a snapshot."""
    client = LakebaseHook().client
    yield client
    lake.admin.set(operation_seconds=0, managers=None)
    for one in client.workspace.snapshots.list():
        client.workspace.snapshots.delete(one.name)
    for name in left(client):
        client.workspace.branches.delete(name, purge=True, missing_ok=True)


def snapshot(**arguments: Any) -> LakebaseSnapshotOperator:
    return LakebaseSnapshotOperator(
        **{"task_id": "snapshot", "source": "production", "ttl": 86_400, **arguments}
    )


def restore(**arguments: Any) -> LakebaseRestoreOperator:
    return LakebaseRestoreOperator(**{"task_id": "restore", "branch_id": "before", "ttl": 3600, **arguments})


def rows(branch: str, table: str) -> Any:
    return LakebaseHook(branch=branch).get_first(f"SELECT count(*) FROM {table}")[0]


# Snapshots.


def test_a_snapshot_is_taken_once_and_restored(lake: LocalLakebase, client: LakebaseClient) -> None:
    LakebaseHook().run("CREATE TABLE of_a_snapshot AS SELECT 1 AS n")
    taken = ran(snapshot())
    LakebaseHook().run("DROP TABLE of_a_snapshot")
    assert taken["id"] == branch_id_for("sales/manual__2027-01-31/create", "snap")
    assert taken["source_branch"] == "projects/local/branches/production"
    assert taken["expire_time"]
    # A retry, or the task cleared.
    assert ran(snapshot()) == taken
    [there] = client.workspace.snapshots.list()
    assert there.name == taken["name"]

    made = ran(restore(snapshot=taken["name"]))
    assert (made["id"], made["source_snapshot"], made["source_branch"]) == ("before", taken["name"], None)
    assert rows(made["name"], "of_a_snapshot") == 1
    assert ran(restore(snapshot=taken["id"]))["uid"] == made["uid"]
    kept = ran(snapshot(snapshot_id="for-ever", ttl=None))
    assert (kept["id"], kept["expire_time"]) == ("for-ever", None)


def test_a_snapshot_of_what_has_none_is_not_retried(client: LakebaseClient) -> None:
    client.workspace.branches.create("child", ttl=3600)
    failure = cause_of(snapshot(source="child"))
    assert isinstance(failure, ObjectStateError)
    assert failure.remedy
    assert isinstance(cause_of(snapshot(source="{{ 'no such' }}")), ConfigError)


async def test_the_triggerer_waits_for_a_snapshot(lake: LocalLakebase, client: LakebaseClient) -> None:
    lake.admin.set(operation_seconds=0.2)
    deferred = await asyncio.to_thread(deferred_by, snapshot(deferrable=True))
    assert "/operations/" in deferred.trigger.operation
    for _ in range(2):
        # Its successor waits for the same operation.
        event = await event_of(deferred.trigger)
        done = snapshot().execute_complete({}, event)
        assert done["id"] == branch_id_for("sales/manual__2027-01-31/create", "snap")
    # A retry after that has nothing to wait for.
    assert await asyncio.to_thread(ran, snapshot(deferrable=True)) == done


def test_a_retry_finds_the_snapshot_whose_task_was_killed(
    lake: LocalLakebase, client: LakebaseClient
) -> None:
    lake.admin.set(operation_seconds=0.5)
    killed_while(lake, snapshot(), "POST", SNAPSHOTS)
    lake.admin.set(operation_seconds=0)
    taken = ran(snapshot())
    assert [one.name for one in client.workspace.snapshots.list()] == [taken["name"]]


# Earlier data.


def test_a_moment_and_a_position_are_restored_to_a_branch(client: LakebaseClient) -> None:
    LakebaseHook().run("CREATE TABLE of_a_moment AS SELECT 1 AS n")
    point = client.restore_point().to_dict()
    LakebaseHook().run("DROP TABLE of_a_moment")
    by_time = ran(restore(at_time=point["time"]))
    assert rows(by_time["name"], "of_a_moment") == 1
    assert by_time["source_branch"] == "projects/local/branches/production"
    assert by_time["expire_time"]
    assert ran(restore(at_time=point["time"]))["uid"] == by_time["uid"]
    # Of other data, it is not what was asked for.
    assert isinstance(cause_of(restore(at_time="2020-01-01T00:00:00Z")), AlreadyExistsError)
    by_lsn = ran(restore(branch_id="position", at_lsn=point["lsn"], ttl=None))
    assert rows(by_lsn["name"], "of_a_moment") == 1
    assert by_lsn["expire_time"] is None


async def test_the_triggerer_waits_for_what_is_restored(lake: LocalLakebase, client: LakebaseClient) -> None:
    lake.admin.set(operation_seconds=0.2)
    deferred = await asyncio.to_thread(deferred_by, restore(deferrable=True))
    assert "/operations/" in deferred.trigger.operation
    made = []
    for _ in range(2):
        event = await event_of(deferred.trigger)
        made.append(await asyncio.to_thread(restore().execute_complete, {}, event))
    assert made[0] == made[1]
    assert await asyncio.to_thread(ran, restore(deferrable=True)) == made[0]


def test_a_retry_finds_the_branch_whose_task_was_killed(lake: LocalLakebase, client: LakebaseClient) -> None:
    lake.admin.set(operation_seconds=0.5)
    killed_while(lake, restore(), "POST", "/api/2.0/postgres/projects/local/branches")
    lake.admin.set(operation_seconds=0)
    assert ran(restore())["id"] == "before"
    assert left(client) == ["before"]


def test_the_right_to_take_and_restore_may_be_anothers(
    lake: LocalLakebase, client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = lake.admin.add_principal(create_role=False)
    define(
        monkeypatch,
        "manager",
        **connection_fields(lake, login=manager.client_id, password=manager.client_secret),
    )
    lake.admin.set(managers=[manager.client_id])
    assert cause_of(snapshot()) is not None
    assert cause_of(restore()) is not None
    taken = ran(snapshot(manage_conn_id="manager"))
    assert ran(restore(snapshot=taken["name"], manage_conn_id="manager"))["source_snapshot"] == taken["name"]
    lake.admin.set(managers=None)


# Endpoints.


@pytest.fixture(params=[ran, ran_in_triggerer])
def endpoint(request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    """What the operator returns, of the worker or by the triggerer."""

    def changed(action: Any, **arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = request.param(
            LakebaseEndpointOperator(task_id="t", action=action, **arguments)
        )
        return found

    return changed


def test_an_endpoint_gets_another_size_and_is_switched_off_and_on(
    client: LakebaseClient, endpoint: Callable[..., dict[str, Any]]
) -> None:
    branch = client.workspace.branches.create("sized", ttl=3600).name
    size: Any = {"min_cu": 2, "max_cu": "{{ 4 }}", "suspend_timeout": 120}
    # Text of a template is no number.
    assert "max_cu" in str(cause_of(LakebaseEndpointOperator(task_id="t", action="resize", size=size)))
    size["max_cu"] = 4
    for _ in range(2):
        now = endpoint("resize", branch=branch, size=size)
        assert (now["min_cu"], now["max_cu"], now["suspend_timeout"]) == (2, 4, 120)
    assert now["name"] == f"{branch}/endpoints/primary"
    # The connection's own branch is another one.
    assert client.workspace.endpoints.get("primary").max_cu != 4
    for _ in range(2):
        assert endpoint("suspend", branch="sized")["disabled"] is True
    for _ in range(2):
        assert endpoint("enable", branch="sized")["disabled"] is False


def test_an_endpoint_is_woken_and_reads_tables(
    client: LakebaseClient, endpoint: Callable[..., dict[str, Any]]
) -> None:
    LakebaseHook().run("DROP TABLE IF EXISTS warmed; CREATE TABLE warmed AS SELECT 1 AS n")
    assert endpoint("warm", tables=["warmed"])["state"] == "ACTIVE"
    cold = LakebaseEndpointOperator(task_id="t", action="warm", tables=["no_such_table"])
    failure = cause_of(cold)
    assert isinstance(failure, TableNotFoundError)
    assert failure.remedy
    LakebaseHook().run("DROP TABLE warmed")


def test_a_replica_is_made_once_and_deleted(
    lake: LocalLakebase, client: LakebaseClient, endpoint: Callable[..., dict[str, Any]]
) -> None:
    branch = client.workspace.branches.create("replicated", ttl=3600).name
    by: dict[str, Any] = {"endpoint": "reader", "branch": "replicated"}
    lake.admin.set(operation_seconds=0.3)
    killed = LakebaseEndpointOperator(task_id="t", action="replica", **by)
    killed_while(lake, killed, "POST", "/api/2.0/postgres/projects/local/branches/replicated/endpoints")
    lake.admin.set(operation_seconds=0)
    made = endpoint("replica", **by, size={"min_cu": 1, "max_cu": 1})
    assert (made["name"], made["max_cu"]) == (f"{branch}/endpoints/reader", 1)
    assert client.workspace.endpoints.get(made["name"]).endpoint_type == "READ_ONLY"
    assert len(client.workspace.endpoints.list(branch)) == 2
    assert endpoint("warm", **by)["state"] == "ACTIVE"
    for _ in range(2):
        assert endpoint("delete", **by) == {"name": made["name"], "state": None}
    primary = LakebaseEndpointOperator(task_id="t", action="delete", branch="replicated")
    assert isinstance(cause_of(primary), ManagedByParentError)


# What is wrong in a DAG file.


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (LakebaseSnapshotOperator, {"source": "a b", "ttl": None}, "branch is 'a b'"),
        (LakebaseSnapshotOperator, {"source": "production", "ttl": 0}, "ttl is 0"),
        (LakebaseSnapshotOperator, {"source": "production", "ttl": 1, "prefix": "S"}, "'prefix' is 'S'"),
        (LakebaseRestoreOperator, {"branch_id": "a b", "ttl": 1}, "branch is 'a b'"),
        (LakebaseRestoreOperator, {"branch_id": "a", "ttl": "1d"}, "ttl is '1d'"),
        (LakebaseRestoreOperator, {"branch_id": "a", "ttl": 1, "at_time": "noon"}, "at_time is 'noon'"),
        (
            LakebaseRestoreOperator,
            {"branch_id": "a", "ttl": 1, "at_lsn": "0/1", "snapshot": "s"},
            "'snapshot'",
        ),
        (LakebaseEndpointOperator, {"action": "grow"}, "action is 'grow'"),
        (LakebaseEndpointOperator, {"action": "warm", "size": {"min_cu": 1}}, "'size' has no meaning"),
        (LakebaseEndpointOperator, {"action": "resize", "tables": ["t"]}, "'tables' have no meaning"),
    ],
)
def test_a_value_that_there_is_not_fails_the_dags_parsing(
    kind: type[Any], wrong: dict[str, Any], message: str
) -> None:
    for make in (kind, kind.partial):
        with pytest.raises(ConfigError) as caught:
            make(task_id="t", **wrong)
        assert message in caught.value.message
        assert caught.value.remedy
