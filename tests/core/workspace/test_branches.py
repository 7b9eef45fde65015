"""Branches under faults: busy projects, failed and endless operations, lost answers, limits, policies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.clock import Deadline
from lakebase_provider.core.errors import (
    AlreadyExistsError,
    ConfigError,
    ControlPlaneError,
    ControlPlaneTimeoutError,
    ControlPlaneUnavailableError,
    LakebaseError,
    LimitError,
    NotFoundError,
    ObjectStateError,
    OperationFailedError,
    OperationTimeoutError,
    ProjectBusyError,
)
from lakebase_provider.core.workspace.http_limits import Limit, within
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.core.workspace.writes import alone
from lakebase_provider.local import LocalLakebase
from tests.core.workspace.clocks import Hurried, Meanwhile
from tests.core.workspace.conftest import WAYS, client_by
from tests.eventually import eventually

BRANCHES = "/api/2.0/postgres/projects/local/branches"
BUSY = "Another operation on the project is still running"


def posted(lake: LocalLakebase) -> list[int]:
    return [one.status for one in lake.admin.requests() if one.method == "POST" and one.path == BRANCHES]


@pytest.mark.parametrize("way", WAYS)
def test_a_busy_project_is_asked_again(lake: LocalLakebase, way: str) -> None:
    lake.admin.fault("POST", BRANCHES, status=409, error_code="RESOURCE_CONFLICT", message=BUSY, times=5)
    with client_by(way, lake) as client:
        client._clock = Hurried()
        assert client.workspace.branches.create("ci-1", ttl=3600).state == "READY"
    assert posted(lake) == [409] * 5 + [200]


def test_a_project_that_stays_busy_is_an_error_within_the_budget(
    lake: LocalLakebase, workspace: WorkspaceObjects
) -> None:
    lake.admin.fault("POST", BRANCHES, status=409, error_code="RESOURCE_CONFLICT", message=BUSY)
    with pytest.raises(ProjectBusyError, match=r"tried for 2\.0 s") as caught:
        workspace.branches.create("ci-1", ttl=3600, timeout=2.0)
    assert caught.value.retryable


def test_the_writes_of_a_process_follow_each_other(lake: LocalLakebase) -> None:
    lake.admin.set(operation_seconds=0.3)
    clients = [LakebaseClient(lake.config()) for _ in range(3)]

    async def create() -> None:
        await asyncio.gather(
            *(c.workspace.branches.acreate(f"ci-{n}", ttl=3600) for n, c in enumerate(clients))
        )

    asyncio.run(create())
    # None was refused, since none was sent while another went on.
    assert posted(lake) == [200, 200, 200]


def test_an_operation_that_fails_is_an_error_with_its_name(
    lake: LocalLakebase, workspace: WorkspaceObjects
) -> None:
    lake.admin.operation_fault("branch", error_code="INTERNAL_ERROR", message="no room")
    with pytest.raises(OperationFailedError, match="INTERNAL_ERROR: no room") as caught:
        workspace.branches.create("ci-1", ttl=3600)
    assert caught.value.name.startswith("projects/local/branches/ci-1/operations/")
    assert caught.value.again().details() == caught.value.details()
    assert workspace.branches.ensure("ci-1", ttl=3600).state == "READY"


def test_an_operation_that_says_it_failed_may_have_landed(
    lake: LocalLakebase, workspace: WorkspaceObjects
) -> None:
    lake.admin.operation_fault("branch", lands=True)
    with pytest.raises(OperationFailedError):
        workspace.branches.create("ci-1", ttl=3600)
    there = workspace.branches.get("ci-1")
    assert workspace.branches.ensure("ci-1", ttl=3600).uid == there.uid


def test_an_operation_that_never_ends_is_left_in_time_and_found_by_its_name(
    lake: LocalLakebase, workspace: WorkspaceObjects
) -> None:
    lake.admin.operation_fault("branch", never_ends=True)
    with pytest.raises(OperationTimeoutError, match=r"did not end within 2\.0 s") as caught:
        workspace.branches.create("ci-1", ttl=3600, timeout=2.0)
    assert workspace.operation(caught.value.name).result() is None
    lake.admin.clear_faults()
    assert workspace.operation(caught.value.name).wait(10)["name"] == "projects/local/branches/ci-1"
    operation = workspace.branches.begin_delete("ci-1", purge=True)
    assert asyncio.run(workspace.operation(operation.name).await_(10)) == {}
    assert operation == workspace.operation(operation.name)
    assert workspace.branches.find("ci-1") is None


@pytest.mark.parametrize("way", WAYS)
def test_a_lost_answer_is_looked_up(lake: LocalLakebase, way: str) -> None:
    lake.admin.fault("POST", BRANCHES, status=503, lost=True, times=1)
    with client_by(way, lake) as client:
        made = client.workspace.branches.create("ci-1", ttl=3600)
    assert posted(lake) == [503]
    assert made.name == "projects/local/branches/ci-1"


@pytest.mark.parametrize("way", WAYS)
def test_a_request_that_was_lost_itself_is_sent_again(lake: LocalLakebase, way: str) -> None:
    lake.admin.fault("POST", BRANCHES, status=503, times=1)
    with client_by(way, lake) as client:
        client._clock = Hurried()
        client.workspace.branches.create("ci-1", ttl=3600)
    assert posted(lake) == [503, 200]


@pytest.mark.parametrize("lost", [False, True], ids=["refused", "lost"])
def test_what_is_begun_survives_a_lost_answer(
    lake: LocalLakebase, workspace: WorkspaceObjects, lost: bool
) -> None:
    lake.admin.fault("POST", "/api/2.0/postgres/*", status=503, lost=lost, times=1)
    operation = workspace.branches.begin_create("ci-1", ttl=3600)
    name = "projects/local/branches/ci-1"
    assert posted(lake) == ([503] if lost else [503, 200])
    assert (operation.name == name) is lost
    assert workspace.operation(operation.name).wait(10)["name"] == name
    lake.admin.fault("POST", "/api/2.0/postgres/*", status=503, lost=lost, times=1)
    reader = workspace.endpoints.begin_create(f"{name}/endpoints/reader")
    assert asyncio.run(reader.await_(10))["name"] == f"{name}/endpoints/reader"
    lake.admin.fault("POST", "/api/2.0/postgres/*", status=503, lost=lost, times=1)
    taken = workspace.snapshots.begin_create("month-end", source_branch="production", no_expiry=True)
    assert workspace.operation(taken.name).wait(10)["name"] == "projects/local/snapshots/month-end"


def test_what_was_there_before_is_not_taken_for_what_is_begun(
    lake: LocalLakebase, workspace: WorkspaceObjects
) -> None:
    workspace.branches.create("ci-1", ttl=3600)
    lake.admin.fault("POST", BRANCHES, status=503, times=1)
    with pytest.raises(AlreadyExistsError):
        workspace.branches.begin_create("ci-1", ttl=3600)


@pytest.mark.parametrize("lost", [False, True], ids=["refused", "lost"])
@pytest.mark.parametrize("way", WAYS)
def test_a_lost_undelete_is_repeated(lake: LocalLakebase, way: str, lost: bool) -> None:
    with client_by(way, lake) as client:
        client._clock = Hurried()
        branches, projects = client.workspace.branches, client.workspace.projects
        branches.create("ci-1", ttl=3600)
        projects.create("shop")
        branches.delete("ci-1")
        projects.delete("shop")
        for undelete in (lambda: branches.undelete("ci-1"), lambda: projects.undelete("shop")):
            lake.admin.fault("POST", "/api/2.0/postgres/*/undelete", status=503, lost=lost, times=1)
            assert undelete().name in ("projects/local/branches/ci-1", "projects/shop")
        with pytest.raises(ControlPlaneError, match="not deleted"):
            branches.undelete("ci-1")


@pytest.mark.parametrize("way", WAYS)
def test_a_deadline_of_the_caller_is_not_the_budget_of_a_connection(lake: LocalLakebase, way: str) -> None:
    lake.admin.fault("POST", BRANCHES, hang=60)
    lake.admin.fault("PATCH", "/api/*", hang=60)
    with client_by(way, lake) as client:
        branches = client.workspace.branches
        branches.get("production")
        with pytest.raises(LakebaseError) as made:
            branches.create("ci-1", ttl=3600, timeout=1.0)
        with pytest.raises(LakebaseError) as changed:
            branches.update("production", is_protected=True, timeout=1.0)
        lake.admin.fault("GET", "/api/*", hang=60)
        with pytest.raises(LakebaseError) as awaited:
            branches.wait_ready("production", timeout=1.0)
    assert "timeout" in made.value.remedy
    for caught in (made, changed, awaited):
        assert caught.value.retryable
        assert "connect_budget" not in str(caught.value)


@pytest.mark.parametrize("position", ["FFFF/0", "0/1"], ids=["ahead", "before"])
def test_a_position_outside_of_the_history_is_no_moment(
    workspace: WorkspaceObjects, on_production: LakebaseClient, position: str
) -> None:
    with pytest.raises(ControlPlaneError, match="not in the branch's history") as caught:
        workspace.branches.create("ci-1", ttl=3600, source_branch_lsn=position)
    assert "moment" not in caught.value.remedy
    assert "`lakebase restore-point`" in caught.value.remedy
    with on_production.connection() as connection:
        row = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
    assert row is not None
    assert workspace.branches.create("ci-1", ttl=3600, source_branch_lsn=row[0]).state == "READY"


def test_what_was_there_before_is_not_taken_for_what_was_lost(
    lake: LocalLakebase, workspace: WorkspaceObjects
) -> None:
    lake.admin.set_clock_skew(-600)
    workspace.branches.create("ci-1", no_expiry=True)
    lake.admin.set_clock_skew(0)
    lake.admin.fault("POST", BRANCHES, status=503, times=1)
    with pytest.raises(AlreadyExistsError):
        workspace.branches.create("ci-1", no_expiry=True)


MAKES: dict[str, Callable[[WorkspaceObjects], object]] = {
    "branches": lambda w: w.branches.create("ci-1", ttl=3600),
    "snapshots": lambda w: w.snapshots.create("s-1", source_branch="production", ttl=3600),
    "endpoints": lambda w: w.endpoints.create("reader"),
    "databases": lambda w: w.databases.create("db", postgres_database="d", role="owner"),
    "projects": lambda w: w.projects.create("shop"),
}


@pytest.mark.parametrize(
    ("kind", "status"), [*((kind, 503) for kind in MAKES), ("branches", 500), ("branches", 502)]
)
def test_what_was_made_a_moment_ago_is_not_taken_for_what_was_lost(
    lake: LocalLakebase, workspace: WorkspaceObjects, kind: str, status: int
) -> None:
    if kind == "databases":
        workspace.roles.create("owner", postgres_role="owner_of_d")
    MAKES[kind](workspace)
    lake.admin.fault("POST", "/api/2.0/postgres/*", status=status, times=1)
    with pytest.raises(AlreadyExistsError, match="was there before it was to be created"):
        MAKES[kind](workspace)


@pytest.mark.parametrize(
    ("theirs", "difference"),
    [
        ({"ttl": 3600, "source_branch": "base"}, "source_branch is 'projects/local/branches/base'"),
        ({"no_expiry": True}, "ttl is None"),
        ({"no_expiry": True, "is_protected": True}, "is_protected is True"),
    ],
)
def test_what_somebody_else_made_meanwhile_is_not_taken_for_what_was_lost(
    lake: LocalLakebase, workspace: WorkspaceObjects, theirs: dict[str, object], difference: str
) -> None:
    workspace.branches.create("base", no_expiry=True)
    lake.admin.fault("POST", BRANCHES, status=503, times=1)
    with LakebaseClient(lake.config()) as client:
        client._clock = Meanwhile(
            lambda: workspace.branches.create("ci-1", **theirs)  # type: ignore[arg-type] # options
        )
        with pytest.raises(AlreadyExistsError, match=difference):
            client.workspace.branches.create("ci-1", ttl=3600)
    if "is_protected" in theirs:
        workspace.branches.update("ci-1", is_protected=False)


@pytest.mark.parametrize("lost", [False, True], ids=["refused", "lost"])
@pytest.mark.parametrize("way", WAYS)
def test_what_can_be_done_twice_is_repeated(lake: LocalLakebase, way: str, lost: bool) -> None:
    def fault(method: str, path: str = f"{BRANCHES}*") -> None:
        lake.admin.clear_faults()
        lake.admin.fault(method, path, status=503, lost=lost, times=1)

    with client_by(way, lake) as client:
        client._clock = Hurried()
        branches, snapshots = client.workspace.branches, client.workspace.snapshots
        branches.create("ci-1", ttl=3600)
        fault("GET")
        assert branches.get("ci-1").id == "ci-1"
        fault("GET")
        assert [one.id for one in branches.list()] == ["production", "ci-1"]
        fault("PATCH")
        assert branches.update("ci-1", no_expiry=True).expire_time is None
        fault("PATCH")
        assert client.workspace.endpoints.update(f"{branches.get('ci-1').name}/endpoints/primary", max_cu=4)
        fault("PATCH")
        assert snapshots.set_schedule("production", []) == ()
        fault("DELETE")
        branches.delete("ci-1", purge=True)
        assert branches.find("ci-1") is None


def test_a_workspace_that_stays_away_is_an_error_within_the_budget(
    lake: LocalLakebase, workspace: WorkspaceObjects
) -> None:
    workspace.branches.create("ci-1", ttl=3600)
    lake.admin.fault("DELETE", f"{BRANCHES}*", status=503)
    with pytest.raises(ControlPlaneUnavailableError, match=r"tried for 1\.0 s"):
        workspace.branches.delete("ci-1", timeout=1.0)
    lake.admin.clear_faults()
    workspace.branches.delete("ci-1", purge=True)
    with pytest.raises(NotFoundError):
        workspace.branches.delete("ci-1", purge=True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stuck", ["in an answer", "in an operation"])
def test_a_cancelled_call_frees_the_project_and_ends(lake: LocalLakebase, way: str, stuck: str) -> None:
    if stuck == "in an answer":
        lake.admin.fault("POST", BRANCHES, hang=60.0, times=1)
    else:
        lake.admin.operation_fault("branch", never_ends=True)
    project = "projects/local"
    with client_by(way, lake) as client:
        # Signed in.
        client.workspace.branches.list()

        def is_free(seconds: float) -> bool:
            try:
                with alone(client.config, project, Deadline(seconds)):
                    return True
            except OperationTimeoutError:
                return False

        async def run() -> None:
            first = asyncio.create_task(client.workspace.branches.acreate("ci-1", ttl=3600))
            await asyncio.to_thread(eventually, lambda: not is_free(0.0))
            waiting = asyncio.create_task(client.workspace.branches.acreate("ci-2", ttl=3600))
            await asyncio.sleep(0)
            for task in (waiting, first):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await asyncio.to_thread(is_free, 5.0)

        began = time.monotonic()
        asyncio.run(run())
        assert time.monotonic() - began < 10


def test_limits_and_their_texts(lake: LocalLakebase, workspace: WorkspaceObjects) -> None:
    lake.admin.set(unarchived_branch_limit=1)
    with pytest.raises(LimitError, match="limit exceeded"):
        workspace.branches.create("ci-1", ttl=60)
    lake.admin.set_error("limit", status=422, error_code="BRANCHES_LIMIT_EXCEEDED")
    with pytest.raises(LimitError) as caught:
        workspace.branches.create("ci-1", ttl=60)
    assert not caught.value.retryable
    assert "purge" in caught.value.remedy


def test_a_branch_that_is_there_is_reused_recreated_or_refused(workspace: WorkspaceObjects) -> None:
    branches = workspace.branches
    first = branches.ensure("ci-1", ttl=3600)
    assert branches.ensure("ci-1", ttl=3600).uid == first.uid
    assert branches.ensure("ci-1", ttl=3600, source_branch="production").uid == first.uid
    with pytest.raises(AlreadyExistsError, match="exists"):
        branches.ensure("ci-1", ttl=3600, on_exists="fail")
    until = datetime.now(timezone.utc) + timedelta(days=2)
    changed = branches.ensure("ci-1", expire_time=until)
    assert (changed.uid, changed.expire_time) == (first.uid, until)
    assert branches.ensure("ci-1", no_expiry=True).expire_time is None
    again = branches.ensure("ci-1", ttl=3600, on_exists="recreate")
    assert again.uid != first.uid
    with pytest.raises(ConfigError, match="on_exists is 'replace'"):
        branches.ensure("ci-1", ttl=3600, on_exists="replace")  # type: ignore[arg-type] # that is the test


def test_a_branch_that_is_reused_lives_as_long_as_was_asked(workspace: WorkspaceObjects) -> None:
    branches = workspace.branches

    def left() -> float:
        found = branches.get("ci-1").expire_time
        assert found is not None
        return (found - datetime.now(timezone.utc)).total_seconds()

    branches.create("ci-1", no_expiry=True)
    assert branches.ensure("ci-1", ttl=3600).expire_time is not None
    assert 3500 < left() <= 3600
    longer = branches.ensure("ci-1", ttl=8 * 3600)
    assert 7.9 * 3600 < left() <= 8 * 3600
    # Enough is left; it is not shortened, and not changed at each use.
    assert branches.ensure("ci-1", ttl=3600) == branches.ensure("ci-1", ttl=8 * 3600) == longer
    assert branches.ensure("ci-1", ttl=timedelta(days=30)).uid == longer.uid  # type: ignore[arg-type]
    assert left() > 29.9 * 86_400


def test_a_snapshot_that_never_expires_is_not_one_with_a_ttl(workspace: WorkspaceObjects) -> None:
    workspace.snapshots.create("s-1", source_branch="production", no_expiry=True)
    with pytest.raises(AlreadyExistsError, match="ttl is None"):
        workspace.snapshots.ensure("s-1", source_branch="production", ttl=3600)


def test_a_branch_of_another_source_is_not_reused(workspace: WorkspaceObjects) -> None:
    branches = workspace.branches
    branches.create("base", no_expiry=True)
    branches.create("ci-1", ttl=3600, source_branch="base")
    with pytest.raises(AlreadyExistsError, match="source_branch is 'projects/local/branches/base', not"):
        branches.ensure("ci-1", ttl=3600)
    with pytest.raises(AlreadyExistsError, match="source_branch_lsn is"):
        branches.ensure("ci-1", ttl=3600, source_branch="base", source_branch_lsn="0/1")
    with pytest.raises(ObjectStateError, match="has children: projects/local/branches/ci-1"):
        branches.ensure("base", no_expiry=True, on_exists="recreate")
    remade = branches.ensure("ci-1", ttl=3600, on_exists="recreate")
    assert remade.source_branch == "projects/local/branches/production"


def test_a_deleted_branch_that_keeps_its_name_is_recreated_and_not_reused(
    lake: LocalLakebase, workspace: WorkspaceObjects
) -> None:
    branches = workspace.branches
    first = branches.create("ci-1", ttl=3600)
    branches.delete("ci-1")
    with pytest.raises(ObjectStateError, match="its state is DELETED"):
        branches.ensure("ci-1", ttl=3600)
    assert branches.ensure("ci-1", ttl=3600, on_exists="recreate").uid != first.uid
    branches.delete("ci-1")
    lake.admin.set(deleted_id_reserved=False)
    assert branches.ensure("ci-1", ttl=3600).state == "READY"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "The expiration of the branch is not given"),
        ({"ttl": 60, "no_expiry": True}, "Both 'ttl' and 'no_expiry'"),
        ({"no_expiry": False}, "'no_expiry' must be True, not False"),
        ({"ttl": "1h"}, "'ttl' must be a number"),
        ({"ttl": -1}, "'ttl' must be 0 or more, not -1"),
        ({"expire_time": datetime(2030, 1, 1)}, "'expire_time' must be a datetime with a time zone"),
        ({"ttl": 60, "source_branch": "../x"}, "The name of the branch is"),
        ({"ttl": 60, "source_branch_lsn": "0/1", "source_branch_time": datetime.now(timezone.utc)}, "Both"),
        ({"ttl": 60, "source_snapshot": "s", "source_branch": "b"}, "Both 'source_snapshot' and"),
        ({"ttl": 60, "owner": "me"}, "Option 'owner' of a branch cannot be given"),
    ],
)
def test_what_cannot_work_is_refused_before_any_request(
    lake: LocalLakebase, workspace: WorkspaceObjects, options: dict[str, object], problem: str
) -> None:
    lake.admin.reset_counters()
    with pytest.raises(ConfigError, match=problem):
        workspace.branches.create("ci-1", **options)  # type: ignore[arg-type] # that is the test
    assert lake.admin.requests() == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"ttl": "8h"}, "'ttl' must be a number"),
        ({"protected": True}, "Option 'protected' of a branch cannot be given"),
        ({"source_branch_time": datetime(2030, 1, 1)}, "must be a datetime with a time zone"),
        ({"source_branch_time": datetime(2020, 1, 1, tzinfo=timezone.utc)}, "s are kept"),
        ({"source_branch": "../x"}, "The name of the branch is"),
        ({"source_branch": "prodution"}, "branch id not found"),
        ({"source_branch": "ci-1"}, "The source of projects/local/branches/ci-1 is projects/local"),
        ({"source_branch": "projects/other/branches/main"}, "The source of .* is projects/other"),
        ({"source_branch": "short"}, "expires, so none can be made from it"),
        ({"source_snapshot": "absent"}, "snapshot"),
        ({"ttl": 0}, "is to expire in 0 s"),
        ({"ttl": timedelta(days=31)}, "is to expire in 2678400 s"),
        ({"ttl": None, "expire_time": datetime(2020, 1, 1, tzinfo=timezone.utc)}, "is to expire in -"),
        ({"is_protected": True}, "Both 'is_protected' and 'ttl'"),
    ],
)
def test_nothing_is_purged_for_what_could_not_be_created(
    lake: LocalLakebase, workspace: WorkspaceObjects, options: dict[str, Any], problem: str
) -> None:
    branches = workspace.branches
    made = branches.create("ci-1", ttl=3600)
    branches.create("short", ttl=3600)
    lake.admin.reset_counters()
    given = {"ttl": 3600, **options}
    with pytest.raises(LakebaseError, match=problem):
        branches.ensure("ci-1", on_exists="recreate", **given)
    with pytest.raises(LakebaseError, match=problem):
        branches.require_creatable("ci-1", **given)
    assert {one.method for one in lake.admin.requests() if "/postgres/" in one.path} <= {"GET"}
    assert branches.get("ci-1").uid == made.uid


def test_what_can_be_created_in_place_of_another(workspace: WorkspaceObjects) -> None:
    workspace.branches.create("base", no_expiry=True)
    workspace.snapshots.create("s-1", source_branch="production", no_expiry=True)
    now = datetime.now(timezone.utc)
    for given in (
        {"ttl": 30 * 86_400},
        {"expire_time": now + timedelta(days=30), "source_branch": "base"},
        {"no_expiry": True, "is_protected": True, "source_branch_time": now - timedelta(hours=1)},
        {"no_expiry": True, "source_snapshot": "s-1"},
    ):
        workspace.branches.require_creatable("ci-1", **given)  # type: ignore[arg-type] # of several types


@pytest.mark.parametrize("by_uid", [False, True])
def test_an_operation_that_goes_with_its_branch_has_ended(
    lake: LocalLakebase, workspace: WorkspaceObjects, by_uid: bool
) -> None:
    made = workspace.branches.create("ci-1", ttl=3600)
    lake.admin.set(operation_seconds=0.3)
    gone = {"status": 404, "error_code": "NOT_FOUND", "message": "operation not found"}
    lake.admin.fault("GET", f"{BRANCHES}/ci-1/operations/*", **gone)
    workspace.branches.delete("ci-1", purge=True, uid=made.uid if by_uid else None)
    # It is not taken for gone while it is still there.
    assert workspace.branches.find("ci-1") is None


def test_lists_come_in_pages(
    lake: LocalLakebase, workspace: WorkspaceObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakebase_provider.core.workspace.workspace._PAGE", 1)
    workspace.branches.create("ci-1", ttl=60)
    lake.admin.reset_counters()
    assert [one.id for one in workspace.branches.list()] == ["production", "ci-1"]
    assert len([one for one in lake.admin.requests() if one.path == BRANCHES]) == 2


async def test_the_twins_for_asyncio(lake: LocalLakebase, on_production: LakebaseClient) -> None:
    workspace = on_production.workspace
    made = await workspace.branches.acreate("ci-1", ttl=3600)
    assert await workspace.branches.await_ready("ci-1") == made == await workspace.branches.aget("ci-1")
    assert (await on_production.branches.await_ready("ci-1")).uid == made.uid
    assert (await workspace.branches.aensure("ci-1", no_expiry=True)).expire_time is None
    assert [one.id for one in await workspace.branches.alist()] == ["production", "ci-1"]
    lake.admin.operation_fault("branch", never_ends=True)
    operation = await asyncio.to_thread(workspace.branches.begin_delete, "ci-1", purge=True)
    with pytest.raises(OperationTimeoutError) as caught:
        await operation.await_(0.3)
    assert caught.value.name == operation.name
    lake.admin.clear_faults()
    assert await operation.await_(10) == {}
    with pytest.raises(NotFoundError):
        await workspace.branches.await_ready("ci-1")


@pytest.mark.parametrize("way", WAYS)
def test_no_request_begins_after_the_deadline(lake: LocalLakebase, way: str) -> None:
    with client_by(way, lake) as client:
        client.workspace.branches.get("production")
        lake.admin.reset_counters()
        with within(Limit(0.0)), pytest.raises(ControlPlaneTimeoutError):
            client.workspace.branches.get("production")
    assert lake.admin.requests() == []
