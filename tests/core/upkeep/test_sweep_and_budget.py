"""What leases left behind is found and purged, and what a project may have is counted."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError, ControlPlaneTimeoutError, LimitError
from lakebase_provider.core.upkeep.branches.budget import BranchLimits, Usage
from lakebase_provider.core.upkeep.branches.sweep import Rules
from lakebase_provider.core.workspace.objects.branches import Branch
from lakebase_provider.local import LocalLakebase
from tests.core.fake_clock import FakeClock
from tests.security.hostile_workspace import HostileWorkspace

DAY = 86_400.0
BRANCHES = "/api/2.0/postgres/projects/local/branches"


class Later(FakeClock):
    """A clock that is a day on."""

    def __init__(self) -> None:
        super().__init__(time.time() + DAY + 60)


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config(), clock=Later()) as client:
        yield client


def test_what_was_left_is_purged_and_nothing_else(client: LakebaseClient) -> None:
    branches = client.workspace.branches
    branches.create("run-left", ttl=3 * DAY)
    branches.create("run-kept", no_expiry=True)
    branches.create("runs-1", ttl=3 * DAY)
    branches.create("ci-1", ttl=3 * DAY)
    branches.create("run-safe", no_expiry=True, is_protected=True)
    branches.create("run-base", no_expiry=True)
    branches.create("run-child", ttl=3 * DAY, source_branch="run-base")
    before = {branch.id for branch in branches.list()}
    tried = client.branches.sweep(dry_run=True)
    assert {branch.id for branch in branches.list()} == before
    report = client.branches.sweep()
    assert (tried.dry_run, report.dry_run, report.project) == (True, False, "projects/local")
    assert [one.name for one in report.deleted] == [one.name for one in tried.deleted]
    told = {one.name.rpartition("/")[2]: one for one in report.branches}
    assert {name: one.reason for name, one in told.items()} == {
        "run-left": "",
        "run-kept": "it does not expire, so it is no lease",
        "run-safe": "it is protected",
        "run-base": "it has children: run-child",
        "run-child": "",
    }
    assert told["run-left"].age is not None
    assert DAY < told["run-left"].age < DAY + 600
    assert told["run-left"].size is not None
    assert told["run-left"].size > 0
    assert {branch.id for branch in branches.list()} == before - {"run-left", "run-child"}
    branches.update("run-safe", is_protected=False)


def test_a_branch_that_is_held_or_young_is_kept(lakebase_env: LocalLakebase, client: LakebaseClient) -> None:
    with LakebaseClient(lakebase_env.config()) as holder:
        lease = holder.branches.take("run/1", ttl=3 * DAY)
        # Its heartbeats, as the sweep's clock has it half an hour ago, and a moment ago.
        assert client.branches.sweep(held=1800, dry_run=True).deleted
        [kept] = client.branches.sweep(held=2 * DAY).branches
        assert "it was changed" in kept.reason
        [kept] = client.branches.sweep(older_than=2 * DAY).branches
        assert kept.reason == "it is younger than 172800 s"
        lakebase_env.admin.advance(DAY)
        lease.extend()
        [kept] = client.branches.sweep().branches
        assert "so it is held" in kept.reason
        assert not kept.deleted
        lease.release()


@pytest.mark.parametrize(
    ("state", "why"), [("INIT", "it is being made"), ("ARCHIVED", "it does not expire, so it is no lease")]
)
def test_a_branch_that_does_not_expire_is_kept(state: str, why: str) -> None:
    branch = Branch(name="projects/local/branches/run-1", state=state, source_branch="production")
    assert Rules("run", DAY, 1800).keep(branch, (), time.time()) == why


def test_a_default_branch_of_such_a_name_is_kept(client: LakebaseClient) -> None:
    client.workspace.branches.create("run-1", no_expiry=True)
    client.workspace.projects.update("local", default_branch="run-1")
    [kept] = client.branches.sweep().branches
    assert kept.reason == "it is the project's default branch"
    client.workspace.projects.update("local", default_branch="production")


def test_one_that_cannot_be_deleted_does_not_stop_the_others(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    for name in ("run-1", "run-2"):
        client.workspace.branches.create(name, ttl=3 * DAY)
    lakebase_env.admin.fault("DELETE", f"{BRANCHES}/run-1", status=403, message="no", error_code="NO")
    report = client.branches.sweep()
    assert [one.name.rpartition("/")[2] for one in report.failed] == ["run-1"]
    assert "did not delete branch" in report.failed[0].reason
    assert [one.name.rpartition("/")[2] for one in report.deleted] == ["run-2"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"prefix": "run-"}, "'prefix' is"),
        ({"prefix": ""}, "'prefix' is empty"),
        ({"older_than": "1d"}, "'older_than' must be a number"),
        ({"held": None}, "'held' must be a number"),
        ({"timeout": 0}, "'timeout' must be above 0"),
    ],
)
def test_what_cannot_be_swept(client: LakebaseClient, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        client.branches.sweep(**options)


def test_what_a_project_has_is_counted(client: LakebaseClient) -> None:
    workspace = client.workspace
    workspace.branches.create("ci-1", ttl=3600)
    workspace.branches.create("gone", ttl=3600)
    workspace.branches.delete("gone")
    workspace.endpoints.create("projects/local/branches/ci-1/endpoints/reader", min_cu=0.5, max_cu=1)
    workspace.snapshots.create("s-1", source_branch="production", ttl=3600)
    found = client.branches.budget(limits=BranchLimits(unarchived=3))
    assert (found.branches, found.unarchived, found.roots) == (Usage(2, 500), Usage(2, 3), Usage(1, 3))
    assert (found.computes, found.snapshots, found.deleted) == (Usage(2, 20), Usage(1, 10), 1)
    assert found.to_text() == (
        "projects/local has 2 of 500 branches, 2 of 3 unarchived branches, 1 of 3 root branches,"
        " 2 of 20 computes, 1 of 10 snapshots; 1 deleted ones may count until they are purged."
    )
    found.require(branches=1, roots=1)
    for wanted, short in [
        ({"branches": 2}, "unarchived branches"),
        ({"branches": 1, "roots": 3}, "root branches"),
        ({"branches": 0, "computes": 19}, "computes"),
        ({"branches": 0, "snapshots": 10}, "snapshots"),
    ]:
        with pytest.raises(LimitError, match=f"no room for .* more: {short}. projects/local has 2 of 500"):
            found.require(**wanted)
    workspace.snapshots.delete("s-1")


def test_a_list_whose_pages_do_not_end_ends_with_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEBASE_ALLOW_LOOPBACK", "1")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))
    pages = itertools.count()

    class Endless(dict[str, Any]):
        def get(self, path: str, default: Any = None) -> Any:  # type: ignore[override]
            if "/branches?" not in path:
                return super().get(path, default)
            page = next(pages)  # it does end, so that a sweep without a limit does
            return {"branches": [], "next_page_token": f"{page}"} if page < 400 else {"branches": []}

    with HostileWorkspace() as workspace, LakebaseClient(workspace.config()) as client:
        workspace.answers = Endless(workspace.answers)
        with pytest.raises(ControlPlaneTimeoutError):
            client.branches.sweep(timeout=0.01)
    assert 0 < next(pages) < 400
