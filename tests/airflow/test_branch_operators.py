"""Branches and migrations as tasks: what they make, what they leave, and what a kill leaves of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred
from airflow.sdk import TaskGroup

from lakebase_provider.core import LakebaseClient, branch_id_for
from lakebase_provider.core.errors import (
    AlreadyExistsError,
    ConfigError,
    LakebaseError,
    LeaseLostError,
    RehearsalError,
)
from lakebase_provider.core.upkeep.branches.branch_upkeep import BranchUpkeep
from lakebase_provider.decorators.branches import lakebase_branch
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.branches import (
    LakebaseCreateBranchOperator,
    LakebaseDeleteBranchOperator,
    LakebaseResetBranchOperator,
    LakebaseSweepBranchesOperator,
)
from lakebase_provider.operators.migrate import LakebaseMigrateOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.sensors.branches import LakebaseBranchSensor
from tests.airflow.conftest import DagLoader, connection_fields, define
from tests.airflow.test_arguments import a_dag
from tests.airflow.test_dags import pulled
from tests.airflow.test_triggers import event_of, sent
from tests.core.upkeep.leases import BRANCHES, left
from tests.eventually import eventually

# dag.test() runs Airflow's own API server in this process, by starlette's test client.
WITH_RUN = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")
MAIN = threading.main_thread().ident or 0


@pytest.fixture
def client(lake: LocalLakebase) -> Iterator[LakebaseClient]:
    """The client of the connection; no test leaves a branch."""
    client = LakebaseHook().client
    yield client
    assert left(client) == []


class Pushed:
    """A task instance as far as these operators know one."""

    dag_id, task_id, run_id, map_index = "sales", "create", "manual__2027-01-31", -1

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.values[key] = value


def ran(operator: Any, ti: Any = None) -> Any:
    context: Any = {"ti": ti or Pushed()}
    operator.render_template_fields(context)
    found = operator.execute(context)
    # As XCom stores it.
    assert json.loads(json.dumps(found)) == found
    return found


def deferred_by(operator: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        ran(operator)
    return caught.value


def ran_in_triggerer(operator: Any, ti: Any = None) -> Any:
    operator.deferrable = True
    event = asyncio.run(event_of(deferred_by(operator).trigger))
    return operator.execute_complete({"ti": ti or Pushed()}, event)


#: By the worker, and by the triggerer.
ANYWHERE = pytest.mark.parametrize("run", [ran, ran_in_triggerer])


def cause_of(operator: Any) -> BaseException | None:
    """The cause of the failure that Airflow does not retry."""
    with pytest.raises(AirflowFailException) as caught:
        ran(operator)
    return caught.value.__cause__


def create(**arguments: Any) -> LakebaseCreateBranchOperator:
    return LakebaseCreateBranchOperator(**{"task_id": "create", "ttl": 3600, **arguments})


def delete(made: dict[str, Any], **arguments: Any) -> LakebaseDeleteBranchOperator:
    given = {"task_id": "delete", "branch": made["name"], "uid": made["uid"], **arguments}
    return LakebaseDeleteBranchOperator(**given)


def test_a_branch_is_made_waited_for_and_deleted(
    lake: LocalLakebase, client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, "other_manager", **connection_fields(lake))
    by = {"manage_conn_id": "other_manager"}
    made = ran(create(**by))
    assert made["id"] == branch_id_for("sales/manual__2027-01-31/create")
    assert (made["project"], made["endpoint"]) == ("projects/local", f"{made['name']}/endpoints/primary")
    assert made["source_branch"] == "projects/local/branches/production"
    assert client.workspace.endpoints.get(made["endpoint"]).max_cu == 0.5
    [(own, expires)] = [
        (one.uid, one.expire_time) for one in client.workspace.branches.list() if one.name == made["name"]
    ]
    assert (own, expires and expires.isoformat()) == (made["uid"], made["expire_time"])

    sensor = LakebaseBranchSensor(task_id="ready", branch=made["id"], **by)
    assert ran(sensor) == made
    assert isinstance(cause_of(create(if_exists="fail", **by)), AlreadyExistsError)
    assert ran(create(if_exists="reuse", **by))["uid"] == made["uid"]
    assert isinstance(cause_of(delete(made, uid="br-of-another")), LeaseLostError)
    assert ran(delete(made, **by)) == {"name": made["name"], "deleted": True}
    assert ran(delete(made, **by)) == {"name": made["name"], "deleted": False}


def test_what_serves_no_run_is_not_deleted(client: LakebaseClient) -> None:
    for operator in (
        LakebaseDeleteBranchOperator(task_id="t", branch="production"),
        LakebaseCreateBranchOperator(task_id="t", branch_id="production"),
        LakebaseResetBranchOperator(task_id="t", branch="production"),
    ):
        assert isinstance(cause_of(operator), LakebaseError)
    unknown = LakebaseDeleteBranchOperator(task_id="t", branch="production", uid="{{ nothing }}")
    assert "The uid is empty" in str(cause_of(unknown))
    assert client.workspace.branches.get("production").is_default


def test_the_right_to_manage_may_be_anothers(
    lake: LocalLakebase, client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = lake.admin.add_principal(create_role=False)
    # It may not log in, and says itself another project.
    fields = connection_fields(
        lake,
        login=manager.client_id,
        password=manager.client_secret,
        extra={"endpoint": "projects/other/branches/b/endpoints/primary"},
    )
    define(monkeypatch, "manager", **fields)
    lake.admin.set(managers=[manager.client_id])
    assert cause_of(create()) is not None
    made = ran(create(manage_conn_id="manager"))
    assert made["project"] == "projects/local"
    assert LakebaseSqlOperator(task_id="t", sql="SELECT 1", branch=made["name"]).execute({}) == [(1,)]
    assert cause_of(delete(made)) is not None
    assert ran(delete(made, manage_conn_id="manager"))["deleted"] is True
    lake.admin.set(managers=None)


async def test_the_triggerer_makes_and_deletes_it(lake: LocalLakebase, client: LakebaseClient) -> None:
    operator = create(deferrable=True, if_exists="reuse", limits={"unarchived": 10}, wait_for_budget=5)
    deferred = await asyncio.to_thread(deferred_by, operator)
    event = await event_of(deferred.trigger)
    made = operator.execute_complete({}, event)
    # Its successor finds what one that died has made.
    assert (await event_of(deferred.trigger))["branch"]["uid"] == made["uid"]

    lake.admin.set(operation_seconds=0.2)
    deferred = await asyncio.to_thread(deferred_by, delete(made, deferrable=True))
    name = deferred.trigger.operation
    assert "/operations/" in name
    for _ in range(2):
        # Also when the operation went with its branch.
        event = await event_of(deferred.trigger)
        done = delete(made).execute_complete({}, event)
        assert done == {"name": made["name"], "deleted": True}
    lake.admin.set(operation_seconds=0)


async def test_a_sensor_waits_in_the_triggerer(lake: LocalLakebase, client: LakebaseClient) -> None:
    operator = LakebaseBranchSensor(task_id="t", branch="later", poke_interval=0.1, deferrable=True)
    deferred = await asyncio.to_thread(deferred_by, operator)
    waiting = asyncio.create_task(event_of(deferred.trigger))
    await asyncio.to_thread(client.workspace.branches.create, "later", ttl=3600)
    names = operator.execute_complete({}, await waiting)
    assert names["id"] == "later"
    await asyncio.to_thread(client.workspace.branches.delete, "later", purge=True)


async def test_a_creation_that_is_cancelled_in_the_triggerer_leaves_nothing(
    lake: LocalLakebase, client: LakebaseClient
) -> None:
    trigger = sent((await asyncio.to_thread(deferred_by, create(deferrable=True))).trigger)
    lake.admin.set(operation_seconds=0.5)
    lake.admin.reset_counters()

    async def first_event() -> None:
        async for _ in trigger.run():
            return

    making = asyncio.create_task(first_event())
    await asyncio.to_thread(eventually, lambda: is_sent(lake, "POST", BRANCHES))
    making.cancel()
    with suppress(asyncio.CancelledError):
        await making
    lake.admin.set(operation_seconds=0)


def is_sent(lake: LocalLakebase, method: str, path: str) -> bool:
    return any(one.method == method and one.path.startswith(path) for one in lake.admin.requests())


def killed_while(lake: LocalLakebase, operator: Any, method: str, path: str) -> None:
    """Kill an operator as Airflow's worker does, which calls on_kill, once a request is sent."""
    lake.admin.reset_counters()
    former = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())

    def kill() -> None:
        eventually(lambda: is_sent(lake, method, path))
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        # What a signal interrupts may leave a socket to the collector, as a process that ends may.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            with pytest.raises(SystemExit):
                ran(operator)
    finally:
        killer.join()
        signal.signal(signal.SIGTERM, former)


def test_a_creation_that_is_killed_leaves_nothing(lake: LocalLakebase, client: LakebaseClient) -> None:
    operator = create()
    lake.admin.set(operation_seconds=0.5)
    try:
        killed_while(lake, operator, "POST", BRANCHES)
    finally:
        lake.admin.set(operation_seconds=0)
    # Whose work has ended is not ended again, as after a timeout.
    operator.on_kill()


@ANYWHERE
def test_a_branch_is_reset_and_swept(
    run: Callable[..., Any],
    lake: LocalLakebase,
    client: LakebaseClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BranchUpkeep, "plans_folder", tmp_path)
    made = client.workspace.branches.create("run-left", ttl=3600)
    LakebaseHook(branch="run-left").run("CREATE TABLE dirty (n int)")
    done = run(LakebaseResetBranchOperator(task_id="reset", branch="run-left"))
    assert (done["name"], done["former_uid"]) == (made.name, made.uid)
    assert done["uid"] != made.uid
    assert LakebaseHook(branch="run-left").get_first("SELECT to_regclass('dirty')") == (None,)

    old: dict[str, Any] = {"task_id": "sweep", "older_than": 0.001, "held": 0.001}
    told = run(LakebaseSweepBranchesOperator(**old, dry_run=True))
    assert [(one["name"], one["deleted"]) for one in told["branches"]] == [(made.name, True)]
    lake.admin.fault("DELETE", f"{BRANCHES}/*", status=403, message="no", error_code="NO")
    ti = Pushed()
    with pytest.raises(AirflowException, match="could not be deleted: projects/local/branches/run-left"):
        run(LakebaseSweepBranchesOperator(**old), ti)
    assert ti.values["return_value"]["branches"][0]["failed"] is True
    lake.admin.clear_faults()
    assert run(LakebaseSweepBranchesOperator(**old))["branches"][0]["deleted"] is True


# Migrations.


def test_migrations_run_once_and_edited_ones_are_refused(
    lake: LocalLakebase, client: LakebaseClient, tmp_path: Path
) -> None:
    first = tmp_path / "0001_of_a_task.sql"
    first.write_text("CREATE TABLE of_a_task (n int);")
    given: dict[str, Any] = {"task_id": "migrate", "folder": str(tmp_path), "ledger": "public.of_a_task_done"}
    LakebaseHook().run("DROP TABLE IF EXISTS of_a_task, of_a_task_done")
    assert [file["state"] for file in ran(LakebaseMigrateOperator(**given))["files"]] == ["applied"]
    assert [file["state"] for file in ran(LakebaseMigrateOperator(**given))["files"]] == ["done"]
    first.write_text("CREATE TABLE of_a_task (n bigint);")
    assert "edited" in str(cause_of(LakebaseMigrateOperator(**given)))
    LakebaseHook().run("DROP TABLE of_a_task, of_a_task_done")


def test_migrations_that_fail_on_a_branch_do_not_run(
    lake: LocalLakebase, client: LakebaseClient, tmp_path: Path
) -> None:
    first, second = tmp_path / "0001_of_a_task.sql", tmp_path / "0002_index.sql"
    first.write_text("CREATE TABLE of_a_task (n int);")
    second.write_text("CREATE INDEX CONCURRENTLY of_n ON of_a_task (absent);")
    given: dict[str, Any] = {"task_id": "migrate", "folder": str(tmp_path), "ledger": "public.of_a_task_done"}
    LakebaseHook().run("DROP TABLE IF EXISTS of_a_task, of_a_task_done")
    failure = cause_of(LakebaseMigrateOperator(**given, rehearse=True))
    assert isinstance(failure, RehearsalError)
    assert LakebaseHook().get_first("SELECT to_regclass('of_a_task')") == (None,)
    second.write_text("CREATE INDEX CONCURRENTLY of_n ON of_a_task (n);")
    told = ran(LakebaseMigrateOperator(**given, rehearse=True))
    assert [(file["state"], file["outside"]) for file in told["files"]] == [
        ("applied", []),
        ("applied", ["line 1 CREATE INDEX CONCURRENTLY"]),
    ]
    assert [one["outside"] for one in told["rehearsal"]["statements"]] == [False, True]
    LakebaseHook().run("DROP TABLE of_a_task, of_a_task_done")
    with pytest.raises(ConfigError, match="'rehearse' concerns files of SQL"):
        LakebaseMigrateOperator(task_id="t", command=["alembic"], rehearse=True)


def test_another_tool_migrates(lake: LocalLakebase) -> None:
    words = [sys.executable, "-c", "import psycopg; print(psycopg.connect('').info.dbname)"]
    found = ran(LakebaseMigrateOperator(task_id="tool", command=words))
    assert (found["program"], found["output"]) == (sys.executable, ["databricks_postgres"])


def test_a_tool_ends_with_its_task(lake: LocalLakebase, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    words = ["sh", "-c", f"echo $$ > {begun}.part; mv {begun}.part {begun}; exec sleep 600"]
    operator = LakebaseMigrateOperator(task_id="tool", command=words)
    former = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())

    def kill() -> None:
        eventually(begun.exists)
        signal.pthread_kill(MAIN, signal.SIGTERM)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(SystemExit):
            ran(operator)
    finally:
        killer.join()
        signal.signal(signal.SIGTERM, former)
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)


# What is wrong in a DAG file.


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (LakebaseCreateBranchOperator, {"ttl": -1}, "ttl is -1"),
        (LakebaseCreateBranchOperator, {"branch_id": "a b"}, "branch is 'a b'"),
        (LakebaseCreateBranchOperator, {"if_exists": "adopt"}, "if_exists is 'adopt'"),
        (LakebaseCreateBranchOperator, {"prefix": "Run"}, "'prefix' is 'Run'"),
        (LakebaseCreateBranchOperator, {"at_time": "yesterday"}, "at_time is 'yesterday'"),
        (LakebaseCreateBranchOperator, {"limits": {"open": 5}}, "limits are ['open']"),
        (LakebaseDeleteBranchOperator, {"branch": "x", "timeout": 0}, "timeout is 0"),
        (LakebaseSweepBranchesOperator, {"older_than": "1d"}, "older_than is '1d'"),
        (LakebaseBranchSensor, {"branch": "a/b"}, "branch is 'a/b'"),
        (LakebaseMigrateOperator, {"folder": "m", "lock_timeout": 0}, "lock_timeout is 0"),
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


def test_a_migration_is_of_files_or_of_a_tool() -> None:
    with pytest.raises(ConfigError, match="neither a folder nor a command"):
        LakebaseMigrateOperator(task_id="t")
    with pytest.raises(ConfigError, match="'target' concerns files of SQL"):
        LakebaseMigrateOperator(task_id="t", command=["alembic"], target=3)


# The group.


def test_the_group_works_between_set_up_and_teardown() -> None:
    with a_dag(conn_id="of_the_dag") as dag:

        @lakebase_branch(ttl=3600, conn_id="sales", retries=3)
        def work(branch: str) -> None:
            first = LakebaseSqlOperator(task_id="first", sql="SELECT 1")
            with TaskGroup("inner"):
                LakebaseSqlOperator(task_id="second", sql="SELECT 1")
            # Airflow's own context of a teardown leaves these out.
            LakebaseSqlOperator.partial(task_id="mapped").expand(sql=["SELECT 1"])
            assert str(branch) == str(first.branch)

        outside = LakebaseSqlOperator(task_id="outside", sql="SELECT 1")
        work() >> outside
    made, deleted = dag.get_task("work.create_branch"), dag.get_task("work.delete_branch")
    assert (made.is_setup, deleted.is_teardown, made.retries, made.conn_id) == (True, True, 3, "sales")
    for name in ("work.first", "work.inner.second"):
        found = dag.get_task(name)
        assert (found.conn_id, found.branch.operator) == ("sales", made)
    for name in ("work.first", "work.inner.second", "work.mapped"):
        assert "work.create_branch" in dag.get_task(name).upstream_task_ids
        assert dag.get_task(name).downstream_task_ids == {"work.delete_branch", "outside"}
    # Its own connection is where it was, and it does not wait for the teardown.
    assert (outside.branch, outside.conn_id) == (None, "of_the_dag")
    assert "work.delete_branch" not in outside.upstream_task_ids


@WITH_RUN
@pytest.mark.parametrize("fan", [3, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_many_mapped_tasks_work_on_the_one_branch_of_their_run(
    lake: LocalLakebase,
    client: LakebaseClient,
    dag_of: DagLoader,
    monkeypatch: pytest.MonkeyPatch,
    fan: int,
) -> None:
    monkeypatch.setenv("FAN", str(fan))
    lake.admin.reset_counters()
    run = dag_of("fan_out").test()
    states = [str(ti.state) for ti in run.get_task_instances()]
    assert states == ["success"] * (fan + 4)
    assert pulled(run, "work.count") == [(fan,)]
    assert len([one for one in lake.admin.requests() if (one.method, one.path) == ("POST", BRANCHES)]) == 1
    assert LakebaseHook().get_first("SELECT to_regclass('fanned')") == (None,)


@WITH_RUN
def test_groups_run_on_their_branches_which_go_in_every_outcome(
    lake: LocalLakebase, client: LakebaseClient, dag_of: DagLoader
) -> None:
    run = dag_of("branches").test()
    found = {(ti.task_id, ti.map_index): str(ti.state) for ti in run.get_task_instances()}
    assert [found.pop(("work.count", number)) for number in range(2)] == ["success", "failed"]
    assert set(found.values()) == {"success"}
    assert {("work.delete_branch", 0), ("work.delete_branch", 1), ("wide.delete_branch", -1)} <= found.keys()
    assert {("wide.rows", 0), ("wide.rows", 1), ("wide.look", 0)} <= found.keys()
    assert LakebaseHook().get_first("SELECT to_regclass('of_a_branch')") == (None,)
