"""Arguments that cannot be: each is an error that names it, before any request; and remedies that lead on."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy
import pytest

from lakebase_provider.core.errors import AlreadyExistsError, ConfigError, LakebaseError, NotFoundError
from lakebase_provider.core.errors.remedy import without_options
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.local import LocalLakebase

KINDS = ("projects", "branches", "endpoints", "snapshots", "roles", "databases", "catalogs")


@pytest.mark.parametrize("name", [None, 5, b"x", ["a"], ""])
@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_is_none(lake: LocalLakebase, workspace: WorkspaceObjects, kind: str, name: Any) -> None:
    lake.admin.reset_counters()
    objects = getattr(workspace, kind)
    options = {"ttl": 60} if kind == "branches" else {}
    calls = [objects.get, objects.find, objects.delete, lambda name: objects.create(name, **options)]
    calls += [
        getattr(objects, one)
        for one in ("wait_ready", "undelete", "require_disposable")
        if hasattr(objects, one)
    ]
    calls += [workspace.endpoints.locate, workspace.endpoints.suspend, workspace.operation]
    for call in calls:
        with pytest.raises(ConfigError, match=r"must be text, not|is empty") as caught:
            call(name)
        assert caught.value.remedy.startswith(("Give", "Use"))
    assert lake.admin.requests() == []


@pytest.mark.parametrize(
    "timeout", [None, "5", b"5", float("nan"), float("inf"), 0, -5, True, timedelta(seconds=5)]
)
def test_a_timeout_that_is_none(lake: LocalLakebase, workspace: WorkspaceObjects, timeout: Any) -> None:
    lake.admin.reset_counters()
    operation = workspace.operation("projects/local/branches/b/operations/o")
    for call in (
        lambda: workspace.branches.create("ci-1", ttl=60, timeout=timeout),
        lambda: workspace.branches.ensure("ci-1", ttl=60, timeout=timeout),
        lambda: workspace.branches.begin_delete("ci-1", timeout=timeout),
        lambda: workspace.branches.wait_ready("ci-1", timeout=timeout),
        lambda: workspace.projects.ensure("local", timeout=timeout),
        lambda: workspace.snapshots.set_schedule("production", [], timeout=timeout),
        lambda: operation.wait(timeout),
    ):
        with pytest.raises(ConfigError, match=r"'timeout' must be (a number|above 0), not") as caught:
            call()
        assert caught.value.remedy == "Give timeout in seconds, such as 300."
    assert lake.admin.requests() == []


@pytest.mark.parametrize(
    "ttl", [3600, 3600.0, Decimal(3600), numpy.int64(3600), numpy.float32(3600), timedelta(hours=1)]
)
def test_numbers_of_all_types(workspace: WorkspaceObjects, ttl: Any) -> None:
    made = workspace.branches.create("ci-1", ttl=ttl)
    assert made.expire_time is not None
    assert made.create_time is not None
    assert made.expire_time - made.create_time == timedelta(hours=1)


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": [60]},
        {"ttl": 10**400},
        {"ttl": Decimal("sNaN")},
        {"expire_time": datetime(2030, 1, 1)},
        {"ttl": 60, "is_protected": "no"},
        {"ttl": 60, "owner": "me"},
        {"ttl": 60, "source_branch": 5},
    ],
)
def test_ensure_refuses_them_also_of_what_exists(workspace: WorkspaceObjects, options: Any) -> None:
    workspace.branches.create("ci-1", ttl=3600)
    with pytest.raises(ConfigError, match=list(options)[-1]):
        workspace.branches.ensure("ci-1", **options)


def test_a_list_and_a_mapping(workspace: WorkspaceObjects) -> None:
    schedule: Any
    for schedule in (None, "daily", [5]):
        with pytest.raises(ConfigError, match="'schedule' must be a list of Cadence, not"):
            workspace.snapshots.set_schedule("production", schedule)
    with pytest.raises(ConfigError, match="'custom_tags' must be a list, not 5"):
        workspace.projects.update("local", custom_tags=5)  # type: ignore[typeddict-item] # that is the test
    with pytest.raises(ConfigError, match="'default_pg_settings' must be a mapping, not list"):
        workspace.projects.update("local", default_pg_settings=[])  # type: ignore[typeddict-item]


@pytest.mark.parametrize("name", ["garbage", "projects/p", "../x"])
def test_an_operation_that_is_none(workspace: WorkspaceObjects, name: str) -> None:
    with pytest.raises(ConfigError, match="The operation's name is"):
        workspace.operation(name)


def test_a_branch_by_its_name_can_be_disposed_of(workspace: WorkspaceObjects) -> None:
    with pytest.raises(LakebaseError, match="default branch"):
        workspace.branches.require_disposable("production")
    workspace.branches.create("ci-1", ttl=3600)
    workspace.branches.require_disposable("ci-1")


def test_what_is_missing_is_not_the_endpoint(workspace: WorkspaceObjects) -> None:
    for call, remedy in (
        (lambda: workspace.branches.get("absent"), "Check the branch"),
        (lambda: workspace.branches.list("absent"), "Check the project"),
        (lambda: workspace.endpoints.list("absent"), "Check the branch"),
    ):
        with pytest.raises(NotFoundError) as caught:
            call()
        assert caught.value.remedy.startswith(remedy)
        assert "endpoint" not in caught.value.remedy


def test_a_project_that_is_deleted_is_not_ensured_by_ensure(workspace: WorkspaceObjects) -> None:
    workspace.projects.create("other")
    workspace.projects.delete("other")
    with pytest.raises(AlreadyExistsError) as caught:
        workspace.projects.ensure("other")
    assert "client.workspace.projects.undelete('projects/other')" in caught.value.remedy
    assert "ensure()" not in caught.value.remedy
    workspace.projects.delete("other", purge=True)


def test_beyond_what_a_branch_can_have(workspace: WorkspaceObjects) -> None:
    long_ago = datetime(2020, 1, 1, tzinfo=timezone.utc)
    for options, remedy in (
        ({"ttl": 31 * 86_400}, "at most 30 days ahead"),
        ({"ttl": 60, "source_branch_time": long_ago}, "history that its project keeps"),
        ({"ttl": 60, "source_branch_lsn": "0/1"}, "history that its project keeps"),
    ):
        with pytest.raises(LakebaseError) as caught:
            workspace.branches.create("ci-1", **options)  # type: ignore[arg-type] # of several kinds
        assert remedy in caught.value.remedy
    with without_options("ttl"), pytest.raises(LakebaseError) as caught:
        workspace.branches.create("ci-1", ttl=31 * 86_400)
    assert caught.value.remedy == "Give a shorter --ttl: at most 30d."
