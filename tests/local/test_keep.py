"""`keep`: data and credentials outlive the run."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from databricks.sdk.errors import BadRequest
from databricks.sdk.service.postgres import Project, Role, RoleRoleSpec

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase, LocalLakebaseError
from tests.eventually import eventually
from tests.local.postgres.conftest import PRIMARY, Branches
from tests.local.test_lifetime import processes_naming
from tests.local.workspace.conftest import PRODUCTION, PROJECT, seconds


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's own, which others may not pass through.
    with TemporaryDirectory(dir="/tmp") as outer:
        Path(outer).chmod(0o711)
        yield Path(outer, "kept")


def test_data_and_credentials_survive_a_restart(folder: Path) -> None:
    with LocalLakebase(keep=folder) as lake:
        credentials = (lake.client_id, lake.client_secret, lake.pat)
        authority = Path(lake.ca_path).read_text()
        other = lake.admin.add_principal("someone@example.com", "USER")
        Branches(lake).run(PRIMARY, "CREATE TABLE kept AS SELECT 1 AS i")
    with LocalLakebase(keep=folder) as lake:
        assert (lake.client_id, lake.client_secret, lake.pat) == credentials
        assert Path(lake.ca_path).read_text() == authority
        branches = Branches(lake)
        assert branches.kept() == [1]
        with LakebaseClient(lake.config()) as client, client.connection() as connection:
            assert connection.execute("SELECT session_user").fetchone() == (lake.client_id,)
        with pytest.raises(ValueError, match="already exists"):
            lake.admin.add_principal(other.name, "USER", create_role=False)


def test_its_history_begins_with_the_run(folder: Path) -> None:
    with LocalLakebase(keep=folder) as lake:
        Branches(lake).run(PRIMARY, "CREATE TABLE kept AS SELECT 1 AS i")
    with LocalLakebase(keep=folder) as lake:
        branches = Branches(lake)
        moment = branches.now()
        branches.run(PRIMARY, "DELETE FROM kept")
        then = branches.branch("then", source_branch=PRODUCTION, source_branch_time=moment)
        assert branches.kept(branches.endpoint(then)) == [1]
        branches.api.create_project(Project(), "other").wait()
        other = "projects/other/branches/production/endpoints/primary"
        with pytest.raises(psycopg.errors.UndefinedTable):
            branches.kept(other)


def test_a_killed_server_leaves_the_data(folder: Path) -> None:
    with LocalLakebase(keep=folder) as lake:
        Branches(lake).run(PRIMARY, "CREATE TABLE kept AS SELECT 1 AS i")
        os.kill(lake.pid, signal.SIGKILL)
        eventually(lambda: not processes_naming(str(folder)))
    with LocalLakebase(keep=folder) as lake:
        assert Branches(lake).kept() == [1]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is logged as a warning; another test may have switched on what is said of requests."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def end(lake: LocalLakebase, folder: Path, *, killed: bool) -> None:
    """Stop it, or have it killed."""
    if killed:
        os.kill(lake.pid, signal.SIGKILL)
        eventually(lambda: not processes_naming(str(folder)))
    lake.stop()


def views_of(branches: Branches) -> list[Any]:
    """What is told of all branches, but for their sizes on disk."""
    found = branches.send("GET", f"{PROJECT}/branches", show_deleted="true")["branches"]
    for one in found:
        del one["status"]["logical_size_bytes"]
    return list(found)


@pytest.mark.parametrize("killed", [False, True])
def test_branches_survive_with_their_data_roles_and_addresses(
    folder: Path, caplog: pytest.LogCaptureFixture, killed: bool
) -> None:
    with LocalLakebase(keep=folder) as lake:
        branches = Branches(lake)
        branches.run(PRIMARY, "CREATE TABLE kept AS SELECT 1 AS i")
        dev = branches.branch("dev")
        branches.run(branches.endpoint(dev), "INSERT INTO kept VALUES (2)")
        role = branches.api.create_role(
            str(dev.name), Role(spec=RoleRoleSpec(postgres_role="app_login")), role_id="app-login"
        ).wait()
        password = str(branches.api.reveal_role_password(str(role.name)).password)
        child = branches.branch("child", source_branch=dev.name)
        for name in ("gone", "back", "purged"):
            branches.branch(name)
            branches.api.delete_branch(f"{PROJECT}/branches/{name}", purge=name == "purged").wait()
        branches.api.undelete_branch(f"{PROJECT}/branches/back").wait()
        branches.snapshot(PRODUCTION, "safe")
        branches.api.create_project(Project(), "other").wait()
        before = views_of(branches)
        hosts = branches.send("GET", branches.endpoint(dev))["status"]["hosts"]
        end(lake, folder, killed=killed)
    with LocalLakebase(keep=folder, port=0) as lake:
        branches = Branches(lake)
        assert views_of(branches) == before
        assert branches.send("GET", branches.endpoint(dev))["status"]["hosts"] == hosts
        assert branches.kept(branches.endpoint(dev)) == branches.kept(branches.endpoint(child)) == [1, 2]
        assert branches.kept() == branches.kept(branches.endpoint(f"{PROJECT}/branches/back")) == [1]
        assert branches.api.reveal_role_password(str(role.name)).password == password
        branches.connect(password, user="app_login", host=hosts["read_write_pooled_host"]).close()
        restored = branches.branch("restored", source_snapshot=f"{PROJECT}/snapshots/safe")
        assert branches.kept(branches.endpoint(restored)) == [1]
        branches.api.undelete_branch(f"{PROJECT}/branches/gone").wait()
        assert branches.kept(branches.endpoint(f"{PROJECT}/branches/gone")) == [1]
        other = "projects/other/branches/production/endpoints/primary"
        assert branches.run(other, "SELECT to_regclass('kept') IS NULL") == [True]
        # What is a copy of another one holds it, as before.
        with pytest.raises(BadRequest, match="has children"):
            branches.api.delete_branch(str(dev.name))
        branches.api.delete_branch(str(child.name), purge=True).wait()
        branches.api.delete_branch(str(dev.name), purge=True).wait()
        assert warnings_of(caplog) == []
    with LocalLakebase(keep=folder) as lake:
        assert Branches(lake).names() == ["production", "gone", "back", "restored"]


def test_the_history_of_a_branch_goes_on_from_its_first_use(folder: Path) -> None:
    with LocalLakebase(keep=folder) as lake:
        branches = Branches(lake)
        branches.run(PRIMARY, "CREATE TABLE kept AS SELECT 1 AS i")
        dev = branches.branch("dev")
    with LocalLakebase(keep=folder) as lake:
        branches = Branches(lake)
        # Copied while it is asleep, then woken.
        child = branches.branch("child", source_branch=dev.name)
        moment = branches.now(branches.endpoint(dev))
        branches.run(branches.endpoint(dev), "DELETE FROM kept")
        then = branches.branch("then", source_branch=dev.name, source_branch_time=moment)
        assert branches.kept(branches.endpoint(then)) == branches.kept(branches.endpoint(child)) == [1]
        assert branches.kept(branches.endpoint(dev)) == []
        moment = branches.now(branches.endpoint(child))
        branches.run(branches.endpoint(child), "DELETE FROM kept")
        later = branches.branch("later", source_branch=child.name, source_branch_time=moment)
        assert branches.kept(branches.endpoint(later)) == [1]


def test_a_branch_that_expired_meanwhile_is_gone_and_another_expires_in_time(folder: Path) -> None:
    with LocalLakebase(keep=folder) as lake:
        Branches(lake).branch("brief", ttl=seconds(3600))
        Branches(lake).branch("longer", ttl=seconds(7200))
    note = folder / "kept.json"
    content = json.loads(note.read_text())
    [brief] = [one for one in content["state"]["projects"][0]["branches"] if one["id"] == "brief"]
    brief["expires_at"] -= 3601
    note.write_text(json.dumps(content))
    with LocalLakebase(keep=folder) as lake:
        branches = Branches(lake)
        eventually(lambda: branches.names() == ["production", "longer"])
        branches.admin.advance(7200)
        assert branches.names() == ["production"]
    assert [place.name for place in (folder / "c").iterdir()] == []


def test_what_a_killed_run_left_unfinished_is_removed(folder: Path) -> None:
    with LocalLakebase(keep=folder) as lake:
        branches = Branches(lake)
        branches.admin.set(operation_seconds=600)
        branches.begin_branch("half")
        eventually(lambda: [*(folder / "c").glob("*/data/postmaster.pid")])
        end(lake, folder, killed=True)
    assert [*(folder / "c").iterdir()] != []
    with LocalLakebase(keep=folder) as lake:
        assert Branches(lake).names() == ["production"]
        assert [*(folder / "c").iterdir()] == []


def test_what_is_not_kept_is_named_by_the_next_run(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with LocalLakebase(keep=folder) as lake:
        reader = Branches(lake).replica().name
    with LocalLakebase(keep=folder) as lake:
        [told] = warnings_of(caplog)
        assert f"not kept: {reader}. Create it again." in told
        assert [one.name for one in Branches(lake).api.list_endpoints(PRODUCTION)] == [PRIMARY]
        Branches(lake).replica()
    caplog.clear()
    caplog.clear()
    with LocalLakebase(keep=folder) as lake:
        Branches(lake).branch("dev")
        Branches(lake).api.create_project(Project(), "other").wait()
        # Whose end is noted, too.
        lake.admin.reset()
    caplog.clear()
    with LocalLakebase(keep=folder) as lake:
        assert [project.name for project in Branches(lake).api.list_projects()] == [PROJECT]
        assert Branches(lake).names() == ["production"]
        assert warnings_of(caplog) == []


def test_the_first_project_is_there_in_each_run(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with LocalLakebase(keep=folder) as lake:
        branches = Branches(lake)
        branches.run(PRIMARY, "CREATE TABLE kept AS SELECT 1 AS i")
        branches.api.delete_project(PROJECT, purge=True).wait()
    with LocalLakebase(keep=folder) as lake:
        branches = Branches(lake)
        assert branches.kept() == [1]
        branches.api.delete_project(PROJECT, purge=True).wait()
        branches.api.create_project(Project(), "local").wait()
    assert warnings_of(caplog) == []
    with LocalLakebase(keep=folder) as lake:
        [told] = warnings_of(caplog)
        assert f"not kept: {PROJECT}. Create it again." in told
        assert Branches(lake).kept() == [1]
        assert [*(folder / "c").iterdir()] == []


def test_an_address_that_is_taken_meanwhile_is_replaced(folder: Path) -> None:
    with LocalLakebase(keep=folder) as lake:
        branches = Branches(lake)
        dev = branches.endpoint(branches.branch("dev"))
        port = lake.port
        host = branches.send("GET", dev)["status"]["hosts"]["read_write_pooled_host"]
    with socket.create_server((host, port)), LocalLakebase(keep=folder, port=port) as lake:
        branches = Branches(lake)
        assert branches.send("GET", dev)["status"]["hosts"]["read_write_pooled_host"] != host
        assert branches.run(dev, "SELECT 1") == [1]


def test_one_run_at_a_time(folder: Path) -> None:
    with LocalLakebase(keep=folder), pytest.raises(LocalLakebaseError, match="Another local Lakebase"):
        LocalLakebase(keep=folder).start()


def test_another_version_is_refused(folder: Path) -> None:
    with LocalLakebase(keep=folder, postgres=16):
        pass
    with pytest.raises(LocalLakebaseError, match="is of Postgres 16, not 18"):
        LocalLakebase(keep=folder, postgres=18).start()


def test_what_can_keep_nothing(folder: Path) -> None:
    folder.write_text("")
    for place, why in (
        (folder, "it is no folder"),
        (folder / "in", "not a directory"),
        (Path("/proc/no"), "no such"),
    ):
        with pytest.raises(LocalLakebaseError, match=f"Nothing can be kept in {place}: {why}") as caught:
            LocalLakebase(keep=place).start()
        assert caught.value.remedy.startswith("Choose a folder")


def test_what_was_kept_and_is_damaged(folder: Path) -> None:
    with LocalLakebase(keep=folder):
        pass
    note = folder / "kept.json"
    good = note.read_text()
    for bad in (
        *("{broken", "[]", "{}", good.replace('"principals": [', '"principals": [5, ')),
        good.replace('"projects": [', '"projects": [5, '),
        good.replace('"branches": [', '"branches": [{}, '),
    ):
        note.write_text(bad)
        with pytest.raises(LocalLakebaseError, match=r"is damaged: .*kept.json") as caught:
            LocalLakebase(keep=folder).start()
        assert "another folder" in caught.value.remedy
    note.write_text(good)
    (folder / "postgres").rename(folder / "gone")
    with pytest.raises(LocalLakebaseError, match=r"is damaged: .*postgres"):
        LocalLakebase(keep=folder).start()
