"""What a client does with branches: waits until they accept logins, is held to one, loses it, warms it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import (
    ConfigError,
    EndpointNotFoundError,
    LoginRejectedError,
    OperationTimeoutError,
    SessionEndedError,
    TableNotFoundError,
    WrongBranchError,
)
from lakebase_provider.core.upkeep.branches import branch_check
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.branch_clients import has_table, on
from tests.eventually import eventually

#: Makes a branch, says so, and waits to be killed before it deletes it.
RUN = """
import sys
from lakebase_provider.core import LakebaseClient, LakebaseConfig
with LakebaseClient(LakebaseConfig.from_env()) as client:
    client.workspace.branches.create("run-1", ttl=3600)
    with LakebaseClient(client.config.on_branch("run-1")) as on:
        with on.connection() as connection:
            connection.execute("CREATE TABLE dirty (n int)")
    print("created", flush=True)
    sys.stdin.read()
    client.workspace.branches.delete("run-1", purge=True)
"""
PRIMARY = "projects/local/branches/ci-1/endpoints/primary"


def test_refused_logins_at_a_new_branch_are_waited_out(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    client.workspace.branches.create("ci-1", ttl=3600)
    lakebase_env.admin.login_fault("password authentication failed for user 'x'", times=3)
    lakebase_env.admin.reset_counters()
    assert client.branches.wait_ready("ci-1").state == "READY"
    assert lakebase_env.admin.counters().mints >= 2


def test_five_seconds_of_refused_logins(lakebase_env: LocalLakebase, client: LakebaseClient) -> None:
    lakebase_env.admin.set(auth_delay=5.0)
    client.workspace.branches.create("ci-1", ttl=3600)
    with pytest.raises(OperationTimeoutError, match="Waiting for logins at projects/local/branches/ci-1/"):
        client.branches.wait_ready("ci-1", timeout=0.5)
    lakebase_env.admin.advance(5.0)
    client.branches.wait_ready("ci-1")


def test_logins_that_stay_refused_are_an_error_with_the_refusal(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    client.workspace.branches.create("ci-1", ttl=3600)
    lakebase_env.admin.login_fault("password authentication failed for user 'x'")
    with pytest.raises(OperationTimeoutError, match="password authentication failed") as caught:
        client.branches.wait_ready("ci-1", timeout=4.0)
    assert isinstance(caught.value.__cause__, LoginRejectedError)


def test_a_wait_for_logins_that_is_cancelled_ends(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    client.workspace.branches.create("ci-1", ttl=3600)
    lakebase_env.admin.login_fault("password authentication failed for user 'x'")
    lakebase_env.admin.reset_counters()

    async def run() -> None:
        waiting = asyncio.create_task(client.branches.await_ready("ci-1", timeout=300))
        await asyncio.to_thread(eventually, lambda: lakebase_env.admin.counters().mints > 0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    began = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - began < 15


def test_a_write_on_a_branch_stays_there(client: LakebaseClient) -> None:
    client.workspace.branches.create("ci-1", ttl=3600)
    with on(client, "ci-1") as branch:
        with branch.connection() as connection:
            connection.execute("CREATE TABLE only_there (n int)")
        assert has_table(branch, "only_there")
    assert not has_table(client, "only_there")


def test_a_client_is_held_to_its_branch(client: LakebaseClient) -> None:
    made = client.workspace.branches.create("ci-1", ttl=3600)
    other = client.workspace.branches.create("ci-2", ttl=3600)
    assert made.uid is not None
    assert other.uid is not None
    with on(client, "ci-1") as branch, on(client, "ci-2") as elsewhere:
        for known_as in (made.uid, made.name, "ci-1"):
            assert branch.branches.require(known_as).uid == made.uid
        with pytest.raises(WrongBranchError, match=f"not on {other.uid}"):
            branch.branches.require(other.uid)
        for wrong in (client, elsewhere):
            with wrong.connection() as connection, pytest.raises(WrongBranchError, match="no host of"):
                branch.branches.require(made.uid, connection)
        endpoint = branch.workspace.endpoints.get("primary")
        with LakebaseClient(client.config.replace(endpoint=endpoint.uid)) as by_uid:
            assert by_uid.branches.require(made.uid).name == made.name


def test_production_is_refused_unless_it_is_meant(client: LakebaseClient) -> None:
    with pytest.raises(WrongBranchError, match="default branch"):
        client.branches.require("production")
    assert client.branches.require("production", default_is_meant=True).is_default


def test_a_client_at_a_host_of_another_branch_is_found_out(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    client.workspace.branches.create("ci-1", ttl=3600)
    # The host of production, kept by hand.
    config = client.config.on_branch("ci-1").replace(host=lakebase_env.host)
    with LakebaseClient(config) as wrong, pytest.raises(WrongBranchError, match="no host of"):
        wrong.branches.require("ci-1")


def test_what_the_server_says_counts_more_than_the_host(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = client.workspace.branches.create("ci-1", ttl=3600)
    with on(client, "ci-1") as branch, branch.connect(autocommit=True) as connection:
        connection.execute("SET neon.branch_id = 'br-another'")
        with pytest.raises(WrongBranchError, match="serves br-another"):
            branch.branches.require("ci-1", connection)
        connection.execute(f"SET neon.branch_id = '{made.uid}'")
        assert branch.branches.require("ci-1", connection).uid == made.uid
    assert branch_check.BRANCH_SETTINGS[0] == "neon.branch_id"


def test_a_session_at_the_branchs_own_pooler_is_on_it(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    lakebase_env.admin.set_native_password("reporter", "s3cret")
    made, other = (client.workspace.branches.create(name, ttl=3600) for name in ("ci-1", "ci-2"))
    pooler = client.workspace.endpoints.get(PRIMARY).pooled_host
    with (
        on(client, "ci-1") as branch,
        on(client, "ci-2") as elsewhere,
        psycopg.connect(
            host=pooler,
            port=lakebase_env.port,
            dbname="databricks_postgres",
            user="reporter",
            password="s3cret",
            sslmode="verify-full",
            sslrootcert=lakebase_env.ca_path,
        ) as session,
    ):
        at_pooler: Any = session
        assert branch.branches.require(str(made.uid), at_pooler).uid == made.uid
        with pytest.raises(WrongBranchError, match="no host of"):
            elsewhere.branches.require(str(other.uid), at_pooler)


def test_a_killed_run_leaves_a_branch_that_the_next_one_adopts_or_replaces(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LAKEBASE_ALLOW_LOOPBACK": "1"},
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "created\n"
        run.send_signal(signal.SIGKILL)
    left = client.workspace.branches.get("run-1")
    assert client.workspace.branches.ensure("run-1", ttl=3600).uid == left.uid
    with on(client, "run-1") as branch:
        assert has_table(branch, "dirty")
    fresh = client.workspace.branches.ensure("run-1", ttl=3600, on_exists="recreate")
    assert fresh.uid != left.uid
    with on(client, "run-1") as branch:
        assert not has_table(branch, "dirty")
    # If nobody comes, the workspace deletes it.
    lakebase_env.admin.advance(3601)
    assert client.workspace.branches.find("run-1") is None


def is_gone(error: BaseException | None) -> bool:
    """Whether an error says that the branch is gone: typed, also as psycopg's, with the remedy."""
    typed = isinstance(error, EndpointNotFoundError) and not error.retryable
    return typed and "branch id not found" in str(error) and "Remedy: " in str(error)


@pytest.mark.parametrize("ends", ["expired", "deleted"])
def test_a_branch_that_is_gone_under_an_open_connection(
    lakebase_env: LocalLakebase, client: LakebaseClient, ends: str
) -> None:
    client.workspace.branches.create("ci-1", ttl=3600)
    with on(client, "ci-1") as branch, branch.connection() as lent:
        connection = branch.connect(autocommit=True)
        if ends == "expired":
            lakebase_env.admin.advance(3601)
        else:
            client.workspace.branches.delete("ci-1")
        for open_one in (connection, lent, connection):
            with pytest.raises(psycopg.OperationalError) as caught:
                open_one.execute("SELECT pg_sleep(10)")
            assert is_gone(caught.value)
            assert "it again: what was on this one is gone" in str(caught.value)
        connection.close()
        with pytest.raises(EndpointNotFoundError):
            branch.connect(timeout=10)


@pytest.mark.parametrize("trusted", [0.0, 60.0])
def test_a_branch_that_expires_under_a_pool(
    lakebase_env: LocalLakebase, client: LakebaseClient, monkeypatch: pytest.MonkeyPatch, trusted: float
) -> None:
    monkeypatch.setattr("lakebase_provider.core.connect.pools.pool.TRUSTED_IDLE", trusted)
    client.workspace.branches.create("ci-1", ttl=3600)
    with on(client, "ci-1") as branch:
        with branch.connection() as connection:
            connection.execute("SELECT 1")
        lakebase_env.admin.advance(3601)
        with pytest.raises(EndpointNotFoundError) as caught, branch.connection(10) as connection:
            connection.execute("SELECT 1")
        assert is_gone(caught.value) or not trusted


def test_a_branch_that_expires_under_asyncio(lakebase_env: LocalLakebase, client: LakebaseClient) -> None:
    client.workspace.branches.create("ci-1", ttl=3600)

    async def run() -> None:
        branch = on(client, "ci-1")
        connection = await branch.aconnect(autocommit=True)
        await asyncio.to_thread(lakebase_env.admin.advance, 3601)
        with pytest.raises(psycopg.OperationalError) as caught:
            await connection.execute("SELECT 1")
        assert is_gone(caught.value)
        await connection.close()
        await branch.aclose()

    asyncio.run(run())


def test_a_branch_that_expires_under_an_engine(lakebase_env: LocalLakebase, client: LakebaseClient) -> None:
    client.workspace.branches.create("ci-1", ttl=3600)
    with on(client, "ci-1") as branch:
        engine = branch.engine()
        with engine.connect() as connection:
            lakebase_env.admin.advance(3601)
            with pytest.raises(sqlalchemy.exc.OperationalError) as caught:
                connection.exec_driver_sql("SELECT 1")
            assert is_gone(caught.value.orig)
        with pytest.raises(EndpointNotFoundError):
            engine.connect()
        engine.dispose()


def test_a_session_that_is_lost_while_its_endpoint_is_there_is_told_as_before(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    with client.connection() as connection:
        pid = connection.info.backend_pid
        lakebase_env.admin.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
        with pytest.raises(SessionEndedError):
            connection.execute("SELECT 1")


def test_a_suspended_endpoint_is_warmed(lakebase_env: LocalLakebase, client: LakebaseClient) -> None:
    with client.connection() as connection:
        connection.execute('CREATE TABLE IF NOT EXISTS "Warm" AS SELECT 1 AS n')
    client.close()
    lakebase_env.admin.suspend()
    lakebase_env.admin.reset_counters()
    assert client.branches.warm(["Warm", ("public", "Warm")]) > 0
    assert lakebase_env.admin.counters().wakes == 1
    with pytest.raises(TableNotFoundError, match="no table absent"):
        client.branches.warm(["absent"])
    with client.connection() as connection:
        connection.execute('DROP TABLE "Warm"')


@pytest.mark.parametrize("timeout", ["5", float("nan"), 0, -5, timedelta(seconds=5)])
@pytest.mark.parametrize("call", ["wait_ready", "reset", "require", "warm"])
def test_no_time_to_wait_is_an_error_that_names_it(client: LakebaseClient, call: str, timeout: Any) -> None:
    given = () if call == "warm" else ("production",)
    with pytest.raises(ConfigError, match="'timeout' must be") as caught:
        getattr(client.branches, call)(*given, timeout=timeout)
    assert "in seconds" in caught.value.remedy


@pytest.mark.parametrize("name", [None, 5, b"x", ""])
def test_no_name_is_an_error_that_says_so(client: LakebaseClient, name: Any) -> None:
    for call in (client.branches.wait_ready, client.branches.reset, client.branches.require):
        with pytest.raises(ConfigError, match=r"branch (must be text, not|is empty)"):
            call(name)
    with pytest.raises(ConfigError, match=r"[Bb]ranch"):
        client.config.on_branch(name)


@pytest.mark.parametrize("tables", ["orders", b"orders", None, 5])
def test_what_is_no_list_of_tables_is_not_warmed(client: LakebaseClient, tables: Any) -> None:
    with pytest.raises(ConfigError, match="'tables' must be a list, not"):
        client.branches.warm(tables)


@pytest.mark.parametrize("branch", [None, ""])
def test_no_branch_to_be_on(client: LakebaseClient, branch: Any) -> None:
    with pytest.raises(ConfigError, match=r"The branch is (None|empty)") as caught:
        client.config.on_branch(branch)
    assert "projects/<project>/branches/<branch>" in caught.value.remedy
