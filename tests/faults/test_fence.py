"""A retry ends the session of a try that is still at work."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.database.fence import fence
from lakebase_provider.core.errors import FenceError
from lakebase_provider.local import LocalLakebase


@pytest.fixture
def client(lake: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lake.config(max_size=4)) as client:
        yield client


def test_a_retry_ends_the_try_that_is_still_at_work(
    lake: LocalLakebase, client: LakebaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    with client.connection() as connection:
        connection.execute("drop table if exists fenced; create table fenced (who text)")
    zombie = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.working_try"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with zombie:
        assert zombie.stdout is not None
        assert zombie.stdout.readline() == "working\n"
        with caplog.at_level(logging.WARNING), client.connection() as connection:
            [ended] = fence(connection, "dag/task/run/-1")
            connection.execute("insert into fenced values ('retry')")
        said, _ = zombie.communicate("go on\n")
    assert "terminating connection due to administrator command" in said
    assert ended.application_name == "dag.task"
    assert f"pid {ended.pid} (dag.task" in caplog.text
    with client.connection() as connection:
        assert connection.execute("select who from fenced").fetchall() == [("retry",)]


def test_the_lock_outlasts_commits_and_goes_back_with_the_connection(client: LakebaseClient) -> None:
    free = """select pg_try_advisory_lock(classid::int8 << 32 | objid::int8)
              from pg_locks where locktype = 'advisory'"""
    with client.connect(autocommit=True) as observer:
        with client.connection() as connection:
            assert fence(connection, "some key") == []
            connection.rollback()
            assert observer.execute(free.encode()).fetchall() == [(False,)]
        assert observer.execute(free.encode()).fetchall() == []


def test_other_keys_do_not_meet(client: LakebaseClient) -> None:
    with client.connection() as one, client.connection() as other:
        assert fence(one, "dag/task/run/0") == []
        assert fence(other, "dag/task/run/1") == []
        one.execute("select 1")


def test_it_works_in_autocommit_as_well(client: LakebaseClient) -> None:
    with client.connect(autocommit=True) as one, client.connect(autocommit=True) as other:
        fence(one, "some key")
        assert [ended.pid for ended in fence(other, "some key")] == [one.info.backend_pid]
        with pytest.raises(psycopg.OperationalError):
            one.execute("select 1")


def test_another_roles_session_is_left_alone_and_named(lake: LocalLakebase, client: LakebaseClient) -> None:
    with client.connection() as connection:
        fence(connection, "some key")
        number = connection.execute(
            "select classid::int8 << 32 | objid::int8 from pg_locks where locktype = 'advisory'"
        ).fetchone()
    assert number is not None
    with (
        psycopg.connect(lake.superuser_dsn, dbname=client.config.database, autocommit=True) as other,
        client.connection() as connection,
    ):
        other.execute("set application_name to 'somebody'")
        other.execute("select pg_advisory_lock(%s)", number)
        with pytest.raises(FenceError, match=rf"(?s)another role .* pid {other.info.backend_pid} \(somebody"):
            fence(connection, "some key", timeout=0.1)
        assert other.execute("select 1").fetchone() == (1,)
