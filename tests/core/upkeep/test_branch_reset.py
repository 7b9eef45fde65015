"""Resets of branches: what is put back, and what becomes of one that is refused, interrupted or killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.clock import Deadline, SystemClock
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.errors import (
    ConfigError,
    ControlPlaneError,
    ObjectStateError,
    SessionEndedError,
)
from lakebase_provider.core.upkeep.branches.branch_reset import Grant, Reset
from lakebase_provider.core.upkeep.branches.branch_upkeep import BranchUpkeep
from lakebase_provider.core.workspace.objects.branches import Branch
from lakebase_provider.core.workspace.objects.kept_changes import Kept
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.branch_clients import has_table, on
from tests.eventually import eventually

#: Resets a branch.
RESET = """
import sys
from pathlib import Path
from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.upkeep.branches.branch_upkeep import BranchUpkeep
BranchUpkeep.plans_folder = Path(sys.argv[1])
with LakebaseClient(LakebaseConfig.from_env()) as client:
    client.branches.reset("ci-1")
"""
PRIMARY = "projects/local/branches/ci-1/endpoints/primary"
BRANCHES = "/api/2.0/postgres/projects/local/branches"


@pytest.fixture(autouse=True)
def plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "plans"
    monkeypatch.setattr(BranchUpkeep, "plans_folder", folder)
    return folder


def test_a_reset_branch_has_its_parents_data_and_its_own_settings(client: LakebaseClient) -> None:
    former = client.workspace.branches.create("ci-1", ttl=3600)
    primary = "projects/local/branches/ci-1/endpoints/primary"
    client.workspace.endpoints.update(primary, min_cu=2, max_cu=4, suspend_timeout=120)
    client.workspace.endpoints.create(primary.replace("primary", "reader"), max_cu=2, min_cu=1)
    with on(client, "ci-1") as branch, branch.connection() as connection:
        connection.execute("CREATE TABLE dirty (n int); CREATE ROLE only_there;")
        connection.execute("GRANT SELECT ON dirty TO only_there")
    with client.connection() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS clean (n int)")
    done = client.branches.reset("ci-1")
    assert (done.former_uid, done.branch.expire_time) == (former.uid, former.expire_time)
    assert done.branch.uid != former.uid
    assert [(one.id, one.endpoint_type, one.min_cu, one.max_cu) for one in done.endpoints] == [
        ("primary", "READ_WRITE", 2, 4),
        ("reader", "READ_ONLY", 1, 2),
    ]
    assert done.endpoints[0].suspend_timeout == 120
    assert done.lost_roles == ("only_there",)
    assert done.lost_grants is not None
    assert Grant("table", "dirty", "only_there", "SELECT") in done.lost_grants
    with on(client, "ci-1") as branch:
        assert has_table(branch, "clean")
        assert not has_table(branch, "dirty")
        branch.branches.require(str(done.branch.uid))
    with client.connection() as connection:
        connection.execute("DROP TABLE clean")


def test_a_reset_that_lost_the_branch_says_how_to_have_it_back(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    branches, endpoints = client.workspace.branches, client.workspace.endpoints
    primary = "projects/local/branches/ci-1/endpoints/primary"
    made = branches.create("ci-1", ttl=3600)
    endpoints.update(primary, min_cu=2, max_cu=4)
    refuse = "/api/2.0/postgres/projects/local/branches"
    lakebase_env.admin.fault("POST", refuse, status=403, error_code="PERMISSION_DENIED", message="no")
    with pytest.raises(ControlPlaneError, match="ci-1 was purged, and is not created again: ") as caught:
        client.branches.reset("ci-1")
    lakebase_env.admin.clear_faults()
    again, _, calls = caught.value.remedy.rstrip(".").partition(" on this machine, or run ")
    assert again == "Call client.branches.reset('projects/local/branches/ci-1') again"
    exec(calls, {"client": client})  # noqa: S102 # what the remedy says, word by word
    assert branches.get("ci-1").expire_time == made.expire_time
    assert (endpoints.get(primary).min_cu, endpoints.get(primary).max_cu) == (2, 4)
    lakebase_env.admin.fault("PATCH", f"{refuse}/*", status=400, message="not now")
    with pytest.raises(ControlPlaneError, match=f"was reset, but not the settings of {primary}") as caught:
        client.branches.reset("ci-1")
    assert f"client.workspace.endpoints.ensure('{primary}', " in caught.value.remedy
    lakebase_env.admin.clear_faults()
    uid = branches.get("ci-1").uid
    assert "client.branches.recover()" in caught.value.remedy
    assert [one.branch.uid for one in client.branches.recover()] == [uid]
    assert (endpoints.get(primary).min_cu, endpoints.get(primary).max_cu) == (2, 4)


@pytest.mark.usefixtures("signals_are_default")
@pytest.mark.parametrize(
    ("number", "ends"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_reset_that_is_interrupted_ends_when_the_branch_is_there_again(
    lakebase_env: LocalLakebase,
    client: LakebaseClient,
    plans: Path,
    number: signal.Signals,
    ends: type[BaseException],
) -> None:
    made = with_choices(client)
    busy = "Another operation on the project is still running"
    lakebase_env.admin.fault(
        "POST", BRANCHES, status=409, error_code="RESOURCE_CONFLICT", message=busy, times=2
    )

    def interrupt() -> None:
        eventually(lambda: is_missing(client), within=60.0, every=0.01)
        os.kill(os.getpid(), number)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(ends):
        client.branches.reset("ci-1")
    interrupting.join()
    assert is_as_chosen(client, made)
    assert list(plans.glob("*.json")) == []


def test_of_two_resets_at_once_the_second_leaves_the_new_branch(client: LakebaseClient, plans: Path) -> None:
    former = client.workspace.branches.create("ci-1", ttl=3600)
    first = []

    def meanwhile() -> LakebaseConnection:
        first.append(client.branches.reset("ci-1"))
        raise SessionEndedError("No grants are read.")

    workspace, clock = client.workspace, SystemClock()
    second = Reset(
        former.name,
        workspace,
        meanwhile,
        Deadline(60.0, clock),
        clock,
        lambda: workspace.branches.wait_ready("ci-1"),
    )
    done = second.run("another", plans)
    assert (done.former_uid, done.branch.uid) == (former.uid, first[0].branch.uid)


def test_what_cannot_be_forgotten_hides_no_error(
    lakebase_env: LocalLakebase,
    client: LakebaseClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(kept: Kept) -> None:
        raise ConfigError("No space left on the device.")

    client.workspace.branches.create("ci-1", ttl=3600)
    monkeypatch.setattr(Kept, "leave", fail)
    assert client.branches.reset("ci-1").branch.state == "READY"
    assert "No space left on the device." in caplog.text
    lakebase_env.admin.fault("POST", BRANCHES, status=403, message="no")
    with pytest.raises(ControlPlaneError, match="ci-1 was purged, and is not created again: "):
        client.branches.reset("ci-1")


def test_one_plan_that_is_damaged_does_not_stop_the_others(
    lakebase_env: LocalLakebase, client: LakebaseClient, plans: Path
) -> None:
    made = with_choices(client)
    killed_reset(lakebase_env, plans, "POST", BRANCHES, lambda: is_missing(client))
    [left] = plans.glob("*.json")
    content = json.loads(left.read_text()) | {"name": "projects/local/branches/ci-2", "earlier": {}}
    # One that comes first.
    damaged = (Kept(content["workspace"], content["name"], f"{n}", plans) for n in range(10_000))
    bad = next(kept for kept in damaged if kept.path < left)
    bad.path.write_text(json.dumps({**content, "uid": bad._about["uid"]}))
    with pytest.raises(ConfigError, match=re.escape(str(bad.path))):
        client.branches.recover()
    assert is_as_chosen(client, made)
    assert list(plans.glob("*.json")) == [bad.path]


def test_a_branch_whose_endpoint_is_disabled_is_reset(client: LakebaseClient) -> None:
    former = client.workspace.branches.create("ci-1", ttl=3600)
    client.workspace.endpoints.suspend(PRIMARY)
    done = client.branches.reset("ci-1")
    assert done.branch.uid != former.uid
    assert (done.endpoints[0].disabled, done.lost_grants) == (True, None)


def killed_reset(
    lake: LocalLakebase, plans: Path, method: str, path: str, is_there: Callable[[], bool]
) -> None:
    """Reset the branch in another process, and kill that once it has come to a request, which hangs."""
    lake.admin.fault(method, path, hang=60.0, status=503, times=1)
    with subprocess.Popen(
        [sys.executable, "-c", RESET, str(plans)], env={**os.environ, "LAKEBASE_ALLOW_LOOPBACK": "1"}
    ) as run:
        try:
            eventually(is_there, within=60.0, every=0.05)
        finally:
            run.send_signal(signal.SIGKILL)
    lake.admin.clear_faults()


def with_choices(client: LakebaseClient) -> Branch:
    made = client.workspace.branches.create("ci-1", ttl=3600)
    client.workspace.endpoints.update(PRIMARY, min_cu=2, max_cu=4, pg_settings={"work_mem": "8MB"})
    with on(client, "ci-1") as branch, branch.connection() as connection:
        connection.execute("CREATE ROLE only_there")
    return made


def is_missing(client: LakebaseClient) -> bool:
    return client.workspace.branches.find("ci-1") is None


def is_as_chosen(client: LakebaseClient, made: Branch) -> bool:
    found, primary = client.workspace.branches.get("ci-1"), client.workspace.endpoints.get(PRIMARY)
    chosen = (primary.min_cu, primary.max_cu, primary.pg_settings) == (2, 4, (("work_mem", "8MB"),))
    return chosen and found.uid != made.uid and found.expire_time == made.expire_time


@pytest.mark.parametrize("by", ["reset", "recover"])
def test_a_reset_that_was_killed_before_it_created_the_branch_is_finished(
    lakebase_env: LocalLakebase, client: LakebaseClient, plans: Path, by: str
) -> None:
    made = with_choices(client)
    killed_reset(lakebase_env, plans, "POST", BRANCHES, lambda: is_missing(client))
    assert is_missing(client)
    [done] = [client.branches.reset("ci-1")] if by == "reset" else client.branches.recover()
    assert (done.former_uid, done.lost_roles) == (made.uid, ("only_there",))
    assert is_as_chosen(client, made)
    assert (list(plans.glob("*.json")), client.branches.recover()) == ([], ())


def test_a_reset_that_was_killed_before_it_put_sizes_back_is_finished(
    lakebase_env: LocalLakebase, client: LakebaseClient, plans: Path
) -> None:
    made = with_choices(client)

    def is_made_again() -> bool:
        found = client.workspace.branches.find("ci-1")
        return found is not None and found.uid != made.uid and found.is_settled

    killed_reset(lakebase_env, plans, "PATCH", f"{BRANCHES}/ci-1/endpoints/primary", is_made_again)
    assert client.workspace.endpoints.get(PRIMARY).max_cu != 4
    [done] = client.branches.recover()
    assert is_as_chosen(client, made)
    # The next one is a reset of its own.
    assert client.branches.reset("ci-1").former_uid == done.branch.uid
    assert is_as_chosen(client, made)


def test_a_reset_that_was_killed_before_it_purged_anything_has_changed_nothing(
    lakebase_env: LocalLakebase, client: LakebaseClient, plans: Path
) -> None:
    made = client.workspace.branches.create("ci-1", ttl=3600)
    killed_reset(lakebase_env, plans, "DELETE", f"{BRANCHES}/ci-1", lambda: any(plans.glob("*.json")))
    assert client.branches.recover() == ()
    assert client.workspace.branches.get("ci-1").uid == made.uid
    assert list(plans.glob("*.json")) == []


def test_a_killed_reset_of_what_has_expired_or_is_anothers_now_is_left(
    lakebase_env: LocalLakebase, client: LakebaseClient, plans: Path
) -> None:
    client.workspace.branches.create("ci-1", ttl=3600)
    client.workspace.branches.create("base", no_expiry=True)
    killed_reset(lakebase_env, plans, "POST", BRANCHES, lambda: is_missing(client))
    [kept] = plans.glob("*.json")
    text = kept.read_text()
    other = client.workspace.branches.create("ci-1", ttl=3600, source_branch="base")
    assert client.branches.recover() == ()
    assert client.workspace.branches.get("ci-1").uid == other.uid
    client.workspace.branches.delete("ci-1", purge=True)
    plan = json.loads(text)
    plan["earlier"]["options"]["expire_time"] = "2020-01-31T12:00:00+00:00"
    kept.write_text(json.dumps(plan))
    assert client.branches.recover() == ()
    assert is_missing(client)
    # Damaged, it says which file that is.
    del plan["earlier"]["computes"]
    kept.write_text(json.dumps(plan))
    with pytest.raises(ConfigError, match=re.escape(str(kept))):
        client.branches.recover()
    assert kept.exists()


def test_a_reset_that_the_workspace_refuses_leaves_no_plan(
    lakebase_env: LocalLakebase, client: LakebaseClient, plans: Path
) -> None:
    client.workspace.branches.create("ci-1", ttl=3600)
    lakebase_env.admin.fault("DELETE", f"{BRANCHES}/ci-1", status=403, message="no")
    with pytest.raises(ControlPlaneError):
        client.branches.reset("ci-1")
    assert list(plans.glob("*.json")) == []


def test_what_is_kept_of_a_reset_is_its_users_alone(
    lakebase_env: LocalLakebase, client: LakebaseClient, plans: Path
) -> None:
    client.workspace.branches.create("ci-1", ttl=3600)
    killed_reset(lakebase_env, plans, "POST", BRANCHES, lambda: is_missing(client))
    assert plans.stat().st_mode & 0o077 == 0
    for file in plans.iterdir():
        assert file.stat().st_mode & 0o077 == 0
        assert lakebase_env.client_secret not in file.read_text()


def test_nothing_is_reset_whose_plan_cannot_be_kept(client: LakebaseClient, plans: Path) -> None:
    made = client.workspace.branches.create("ci-1", ttl=3600)
    plans.write_text("no folder")
    with pytest.raises(ConfigError, match="What projects/local/branches/ci-1 was before cannot be kept"):
        client.branches.reset("ci-1")
    assert client.workspace.branches.get("ci-1").uid == made.uid


def test_a_client_on_a_branch_that_is_reset_finds_it_again(client: LakebaseClient) -> None:
    client.workspace.branches.create("ci-1", ttl=3600)
    with on(client, "ci-1") as branch:
        with branch.connection() as connection:
            connection.execute("CREATE TABLE dirty (n int)")
        client.branches.reset("ci-1")
        assert not has_table(branch, "dirty")


def test_what_cannot_be_reset_is_left_alone(lakebase_env: LocalLakebase, client: LakebaseClient) -> None:
    branches = client.workspace.branches
    branches.create("base", no_expiry=True)
    branches.create("child", ttl=3600, source_branch="base")
    client.workspace.snapshots.create("s-1", source_branch="production", ttl=3600)
    branches.create("root", no_expiry=True, source_snapshot="s-1")
    branches.create("safe", no_expiry=True, is_protected=True)
    lakebase_env.admin.reset_counters()
    for name, why in [
        ("production", "default branch"),
        ("base", "has children: projects/local/branches/child"),
        ("root", "is a root"),
        ("safe", "is protected"),
    ]:
        with pytest.raises(ObjectStateError, match=why):
            client.branches.reset(name)
    asked = {one.method for one in lakebase_env.admin.requests() if "/postgres/projects" in one.path}
    assert asked == {"GET"}
    branches.update("safe", is_protected=False)
