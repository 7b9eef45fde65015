"""A branch has data of its own: its parent's, as they are or as they were."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import psycopg
import pytest
from databricks.sdk.errors import DatabricksError
from databricks.sdk.service.postgres import Project

from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually
from tests.local.postgres.conftest import PRIMARY, Branches
from tests.local.test_lifetime import assert_nothing_is_left, is_running, processes_naming
from tests.local.workspace.conftest import PRODUCTION, PROJECT


def test_a_write_shows_neither_on_the_parent_nor_on_the_branch(branches: Branches) -> None:
    dev = branches.endpoint(branches.branch("dev"))
    branches.run(dev, "INSERT INTO kept VALUES (3)")
    branches.run(PRIMARY, "INSERT INTO kept VALUES (4)")
    assert branches.kept(dev) == [1, 2, 3]
    assert branches.kept() == [1, 2, 4]


def test_a_branch_has_databases_roles_and_grants_of_its_parent(branches: Branches) -> None:
    role = branches.admin.add_principal("reader@example.com", "USER").name
    branches.run(PRIMARY, f'GRANT SELECT ON kept TO "{role}"')
    dev = branches.endpoint(branches.branch("dev"))
    assert branches.run(dev, f"SELECT has_table_privilege('{role}', 'kept', 'SELECT')") == [True]
    assert branches.run(dev, "SELECT session_user") == [branches.server.client_id]


def test_what_is_not_committed_is_not_in_a_branch(branches: Branches) -> None:
    with branches.connect() as open_one:
        open_one.execute("INSERT INTO kept VALUES (3)")
        dev = branches.endpoint(branches.branch("dev"))
        open_one.commit()
    assert branches.kept(dev) == [1, 2]
    assert branches.kept() == [1, 2, 3]


def test_a_parent_that_is_written_to_is_copied_consistently(branches: Branches) -> None:
    branches.run(PRIMARY, "CREATE TABLE pairs (a int PRIMARY KEY, b int)")
    with branches.connect(autocommit=True) as writer:
        # Bound to write on while the files are copied: sent in one piece, answered later.
        with writer.pipeline():
            for number in range(3_000):
                writer.execute("INSERT INTO pairs VALUES (%s, %s)", (number, number))
            dev = branches.endpoint(branches.branch("dev"))
        (whole,) = branches.run(PRIMARY, "SELECT count(*) FROM pairs")
    found = branches.run(dev, "SELECT a FROM pairs WHERE a = b ORDER BY a")
    assert found == list(range(len(found)))
    assert whole == 3_000
    branches.run(PRIMARY, "DROP TABLE pairs")


def test_a_time_before_a_delete_has_the_rows(branches: Branches) -> None:
    before = branches.now()
    branches.run(PRIMARY, "DELETE FROM kept")
    after = branches.now()
    branches.run(PRIMARY, "INSERT INTO kept VALUES (9)")
    then = branches.branch("then", source_branch=PRODUCTION, source_branch_time=before)
    assert branches.kept(branches.endpoint(then)) == [1, 2]
    assert then.status is not None
    assert then.status.source_branch_time == before
    later = branches.branch("later", source_branch=PRODUCTION, source_branch_time=after)
    assert branches.kept(branches.endpoint(later)) == []


def test_an_lsn_is_exact(branches: Branches) -> None:
    marks = []
    for number in (3, 4, 5):
        branches.run(PRIMARY, f"INSERT INTO kept VALUES ({number})")
        marks += branches.run(PRIMARY, "SELECT pg_current_wal_insert_lsn()::text")
    for number, lsn in zip((3, 4, 5), marks, strict=True):
        found = branches.branch(f"at-{number}", source_branch=PRODUCTION, source_branch_lsn=lsn)
        assert branches.kept(branches.endpoint(found)) == [*range(1, number + 1)]
        assert found.status is not None
        assert found.status.source_branch_lsn == lsn


@pytest.mark.parametrize("lsn", ["0/1", "FFFF/0", "nonsense"])
def test_an_lsn_outside_of_the_history_makes_no_branch(branches: Branches, lsn: str) -> None:
    with pytest.raises(Exception, match="LSN"):
        branches.branch("odd", source_branch=PRODUCTION, source_branch_lsn=lsn)
    assert branches.names() == ["production"]


def test_a_branch_of_a_branch_has_a_history_of_its_own(branches: Branches) -> None:
    first = branches.branch("first")
    branches.run(branches.endpoint(first), "INSERT INTO kept VALUES (3)")
    moment = branches.now()
    branches.run(branches.endpoint(first), "TRUNCATE kept")
    # A moment of the branch: on its parent it is another one.
    second = branches.branch("second", source_branch=first.name, source_branch_time=moment)
    assert branches.kept(branches.endpoint(second)) == [1, 2, 3]
    third = branches.branch("third", source_branch=second.name)
    branches.run(branches.endpoint(third), "DELETE FROM kept WHERE i = 1")
    assert branches.kept(branches.endpoint(third)) == [2, 3]
    assert branches.kept(branches.endpoint(second)) == [1, 2, 3]
    assert branches.kept(branches.endpoint(first)) == []


def test_a_time_before_the_branch_is_refused(branches: Branches) -> None:
    early = branches.now()
    dev = branches.branch("dev")
    with pytest.raises(DatabricksError):
        branches.branch("odd", source_branch=dev.name, source_branch_time=early)


def test_a_snapshot_is_restored_after_its_branch_is_gone(branches: Branches) -> None:
    branches.admin.set(snapshots_of_roots_only=False)
    dev = branches.branch("dev")
    branches.run(branches.endpoint(dev), "INSERT INTO kept VALUES (3)")
    assert dev.name is not None
    snapshot = branches.snapshot(dev.name, "safe")
    branches.run(branches.endpoint(dev), "TRUNCATE kept")
    branches.api.delete_branch(dev.name, purge=True).wait()
    restored = branches.branch("restored", source_snapshot=snapshot)
    assert branches.kept(branches.endpoint(restored)) == [1, 2, 3]
    # Its own history goes on from the snapshot, also when that is gone.
    branches.api.delete_snapshot(snapshot).wait()
    moment = branches.now()
    branches.run(branches.endpoint(restored), "TRUNCATE kept")
    again = branches.branch("again", source_branch=restored.name, source_branch_time=moment)
    assert branches.kept(branches.endpoint(again)) == [1, 2, 3]


def test_a_snapshot_of_an_earlier_moment(branches: Branches) -> None:
    moment = branches.now()
    branches.run(PRIMARY, "DELETE FROM kept")
    snapshot = branches.snapshot(PRODUCTION, "earlier", source_branch_time=moment)
    restored = branches.branch("restored", source_snapshot=snapshot)
    assert branches.kept(branches.endpoint(restored)) == [1, 2]


def test_a_replica_refuses_writes_and_shows_them_later(branches: Branches) -> None:
    replica = branches.replica().name
    assert replica is not None
    assert branches.kept(replica) == [1, 2]
    assert branches.run(replica, "SELECT pg_is_in_recovery()") == [True]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="cannot execute INSERT in a read-only"):
        branches.run(replica, "INSERT INTO kept VALUES (3)")
    branches.admin.hold_replica(replica)
    branches.run(PRIMARY, "INSERT INTO kept VALUES (3)")
    assert branches.kept(replica) == [1, 2]
    branches.admin.hold_replica(replica, False)
    eventually(lambda: branches.kept(replica) == [1, 2, 3])


def test_a_replica_follows_its_branch_through_a_sleep(branches: Branches) -> None:
    dev = branches.branch("dev")
    assert dev.name is not None
    replica = branches.replica(dev.name).name
    assert replica is not None
    for endpoint in (replica, branches.endpoint(dev)):
        branches.admin.suspend(endpoint)
    branches.run(branches.endpoint(dev), "INSERT INTO kept VALUES (3)")
    eventually(lambda: branches.kept(replica) == [1, 2, 3])


def test_ten_branches_at_once(branches: Branches) -> None:
    branches.admin.set(unarchived_branch_limit=20)
    names = [branches.endpoint(branches.branch(f"b-{number}")) for number in range(10)]
    sessions = [branches.open(name) for name in names]
    for number, session in enumerate(sessions):
        session.execute("INSERT INTO kept VALUES (%s)", (100 + number,))
    for number, session in enumerate(sessions):
        assert session.execute("SELECT max(i), count(*) FROM kept").fetchone() == (100 + number, 3)
        session.close()
    assert branches.kept() == [1, 2]


def test_a_suspended_branch_is_stopped_and_a_login_wakes_it(branches: Branches) -> None:
    dev = branches.endpoint(branches.branch("dev"))
    branches.run(dev, "INSERT INTO kept VALUES (3)")
    with branches.open(dev) as session:
        branches.admin.suspend(dev)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    status = branches.api.get_endpoint(dev).status
    assert status is not None
    assert str(status.current_state).endswith("IDLE")
    wakes = branches.admin.counters().wakes
    assert branches.kept(dev) == [1, 2, 3]
    assert branches.admin.counters().wakes == wakes + 1


def test_a_suspended_branch_is_copied_without_waking_it(branches: Branches) -> None:
    dev = branches.branch("dev")
    branches.run(branches.endpoint(dev), "INSERT INTO kept VALUES (3)")
    branches.admin.suspend(branches.endpoint(dev))
    child = branches.branch("child", source_branch=dev.name)
    branches.run(branches.endpoint(child), "INSERT INTO kept VALUES (4)")
    assert branches.kept(branches.endpoint(dev)) == [1, 2, 3]
    branches.run(branches.endpoint(dev), "INSERT INTO kept VALUES (5)")
    assert branches.kept(branches.endpoint(child)) == [1, 2, 3, 4]


def test_a_crash_of_one_branch_is_none_of_the_others(branches: Branches) -> None:
    one, other = (branches.endpoint(branches.branch(name)) for name in ("one", "other"))
    branches.run(one, "INSERT INTO kept VALUES (3)")
    with branches.open(other) as session, branches.open(one) as lost:
        branches.admin.crash_postgres(endpoint=one)
        assert session.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            lost.execute("SELECT 1")
    assert branches.kept(one) == [1, 2, 3]
    assert branches.kept() == [1, 2]


def test_a_branch_that_has_crashed_is_down_until_it_is_restarted(branches: Branches) -> None:
    dev = branches.endpoint(branches.branch("dev"))
    branches.run(dev, "INSERT INTO kept VALUES (3)")
    branches.admin.crash_postgres(endpoint=dev)
    ((pid,),) = branches.admin.execute("SELECT pg_read_file('postmaster.pid', 0, 10)", endpoint=dev)
    assert is_running(int(pid.split()[0]))
    branches.admin.crash_postgres(downtime=600, endpoint=dev)
    with pytest.raises(psycopg.OperationalError, match="the database system is shutting down"):
        branches.open(dev)
    # The next crash does not wait for the end of this one.
    branches.admin.crash_postgres(endpoint=dev)
    assert branches.kept(dev) == [1, 2, 3]
    branches.admin.crash_postgres(downtime=0.2, endpoint=dev)
    eventually(lambda: is_open(branches, dev))
    branches.admin.suspend(dev)
    branches.admin.crash_postgres(endpoint=dev)
    assert branches.kept(dev) == [1, 2, 3]
    branches.admin.crash_postgres(downtime=600, endpoint=dev)
    branches.admin.reset()
    assert branches.kept() == [1, 2]


def is_open(branches: Branches, endpoint: str) -> bool:
    try:
        branches.open(endpoint).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_branch_whose_server_was_killed_is_woken_by_a_login(branches: Branches) -> None:
    dev = branches.endpoint(branches.branch("dev"))
    branches.run(dev, "INSERT INTO kept VALUES (3)")
    ((pid,),) = branches.admin.execute("SELECT pg_read_file('postmaster.pid', 0, 10)", endpoint=dev)
    os.kill(int(pid.split()[0]), signal.SIGKILL)
    eventually(lambda: not is_running(int(pid.split()[0])))
    assert branches.kept(dev) == [1, 2, 3]


def test_a_statement_on_a_branch_is_cancelled_there(branches: Branches) -> None:
    dev = branches.endpoint(branches.branch("dev"))
    with branches.open(dev) as session:
        pid = session.info.backend_pid

        def cancel() -> None:
            active = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'"
            eventually(lambda: branches.admin.execute(active, endpoint=dev) == [(1,)])
            session.cancel_safe()

        other = threading.Thread(target=cancel)
        other.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("SELECT pg_sleep(60)")
        other.join()


def test_the_host_of_a_branch_that_is_gone_says_so(branches: Branches) -> None:
    dev = branches.branch("dev")
    status = branches.api.get_endpoint(branches.endpoint(dev)).status
    assert status is not None
    assert status.hosts is not None
    assert dev.name is not None
    branches.api.delete_branch(dev.name, purge=True).wait()
    assert "endpoint cannot be found" in branches.refusal(host=status.hosts.host)


@pytest.mark.parametrize("kind", ["expired", "other_host", "other_authority"])
def test_a_bad_certificate_is_shown_at_a_branch_too(branches: Branches, kind: str) -> None:
    dev = branches.endpoint(branches.branch("dev"))
    branches.admin.set_certificate(kind)
    with pytest.raises(psycopg.OperationalError, match="certificate"):
        branches.open(dev)
    branches.admin.set_certificate("valid")
    assert branches.kept(dev) == [1, 2]


def test_a_branch_that_is_purged_leaves_no_files(branches: Branches) -> None:
    folder = Path(branches.server.running.folder, "c")
    before = {*folder.iterdir()}
    dev = branches.branch("dev")
    assert {*folder.iterdir()} > before
    assert dev.name is not None
    branches.api.delete_branch(dev.name, purge=True).wait()
    assert {*folder.iterdir()} == before


def test_a_killed_server_leaves_no_branch_behind() -> None:
    with LocalLakebase(max_connections=20) as lake:
        branches = Branches(lake)
        branches.run(PRIMARY, "CREATE TABLE kept (i int)")
        for number in range(3):
            branches.branch(f"b-{number}")
        branches.replica()
        pid, folder = lake.pid, lake.running.folder
        running = len(processes_naming(folder))
        assert running >= 5
        os.kill(pid, signal.SIGKILL)
        assert_nothing_is_left(pid, folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="root gives the files away")
def test_all_files_of_a_branch_are_its_account_s_or_root_s(branches: Branches) -> None:
    branches.branch("dev")
    folder = branches.server.running.folder
    listed = subprocess.run(
        ["/usr/bin/find", folder, "-type", "f", "-printf", "%u %m %p\n"], capture_output=True, text=True
    )
    lines = [line.split(" ", 2) for line in listed.stdout.splitlines()]
    assert len({owner for owner, _, _ in lines} - {"root"}) == 1
    assert all(mode in ("600", "700") or path.endswith("ca.pem") for _, mode, path in lines if "/c/" in path)


def test_a_project_of_its_own_has_a_cluster_of_its_own(branches: Branches) -> None:
    branches.api.create_project(Project(), "other").wait()
    other = "projects/other/branches/production/endpoints/primary"
    assert branches.run(other, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [0]
    branches.api.delete_project("projects/other", purge=True).wait()
    assert PROJECT in [project.name for project in branches.api.list_projects()]
