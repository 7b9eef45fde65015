"""`keep`: data and credentials outlive the run."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from databricks.sdk.service.postgres import Project

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase, LocalLakebaseError
from tests.eventually import eventually
from tests.local.postgres.conftest import PRIMARY, Branches
from tests.local.test_lifetime import processes_naming
from tests.local.workspace.conftest import PRODUCTION


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


@pytest.mark.parametrize("killed", [False, True])
def test_the_next_run_says_which_branches_ended_with_the_one_before(
    folder: Path, caplog: pytest.LogCaptureFixture, killed: bool
) -> None:
    with LocalLakebase(keep=folder) as lake:
        branches = Branches(lake)
        for name in ("dev", "gone", "back"):
            branches.branch(name)
        branches.api.delete_branch("projects/local/branches/gone").wait()
        branches.api.delete_branch("projects/local/branches/back").wait()
        branches.api.undelete_branch("projects/local/branches/back").wait()
        if killed:
            os.kill(lake.pid, signal.SIGKILL)
            eventually(lambda: not processes_naming(str(folder)))
    assert warnings_of(caplog) == []
    with LocalLakebase(keep=folder) as lake:
        told = "production is kept: projects/local/branches/back, projects/local/branches/dev. Create them"
        assert told in caplog.text
        assert Branches(lake).names() == ["production"]
    caplog.clear()
    with LocalLakebase(keep=folder):
        assert warnings_of(caplog) == []


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
    for bad in ("{broken", "[]", "{}", good.replace('"principals": [', '"principals": [5, ')):
        note.write_text(bad)
        with pytest.raises(LocalLakebaseError, match=r"is damaged: .*kept.json") as caught:
            LocalLakebase(keep=folder).start()
        assert "another folder" in caught.value.remedy
    note.write_text(good)
    (folder / "postgres").rename(folder / "gone")
    with pytest.raises(LocalLakebaseError, match=r"is damaged: .*postgres"):
        LocalLakebase(keep=folder).start()
