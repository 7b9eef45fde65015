"""The client for asyncio, against the local Lakebase: real SDK, real TLS, real Postgres."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import socket
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.connect import network
from lakebase_provider.core.errors import (
    ControlPlaneTimeoutError,
    ControlPlaneUnavailableError,
    DnsError,
    EndpointDisabledError,
    EndpointWakingError,
    LakebaseError,
    LoginRejectedError,
    PoolExhaustedError,
    TlsError,
)
from lakebase_provider.local import LocalLakebase
from tests.eventually import BUSY, eventually

CREDENTIALS = "/api/2.0/postgres/credentials"


@pytest.fixture
async def client(lakebase_env: LocalLakebase) -> AsyncIterator[LakebaseClient]:
    async with closing(LakebaseClient(lakebase_env.config(max_size=2))) as client:
        yield client


@asynccontextmanager
async def closing(client: LakebaseClient) -> AsyncIterator[LakebaseClient]:
    try:
        yield client
    finally:
        await client.aclose()


async def scalar(client: LakebaseClient, sql: str) -> Any:
    async with client.aconnection() as connection:
        row = await (await connection.execute(sql.encode())).fetchone()
    assert row is not None
    return row[0]


async def backend(client: LakebaseClient) -> int:
    async with client.aconnection() as connection:
        return connection.info.backend_pid


async def aeventually(condition: Callable[[], bool]) -> None:
    """tests/eventually.py off the loop's thread, so that the loop runs on meanwhile."""
    await asyncio.to_thread(eventually, condition)


@asynccontextmanager
async def heartbeat() -> AsyncIterator[list[float]]:
    """Beats every 5 ms; the moments of the beats tell how long the loop was held."""
    beats = [time.monotonic()]

    async def beat() -> None:
        while True:
            await asyncio.sleep(0.005)
            beats.append(time.monotonic())

    task = asyncio.create_task(beat())
    try:
        yield beats
    finally:
        beats.append(time.monotonic())
        task.cancel()


def largest_gap(beats: list[float]) -> float:
    return max(later - earlier for earlier, later in itertools.pairwise(beats))


async def test_connects_as_the_service_principal(client: LakebaseClient, lakebase_env: LocalLakebase) -> None:
    assert await scalar(client, "SELECT current_user") == lakebase_env.env()["PGUSER"]


async def test_an_unpooled_connection_belongs_to_the_caller(client: LakebaseClient) -> None:
    async with await client.aconnect(autocommit=True) as connection:
        assert connection.autocommit
        assert await (await connection.execute("SHOW application_name")).fetchone() == ("lakebase-provider",)
    assert connection.closed
    assert client.stats().checkouts == 0


async def test_host_and_user_are_resolved_where_they_are_left_out(lakebase_env: LocalLakebase) -> None:
    async with closing(LakebaseClient(lakebase_env.config(host=None, user=None))) as client:
        assert await scalar(client, "SELECT current_user") == lakebase_env.env()["PGUSER"]


async def test_ten_borrowers_in_turn_share_one_connection_and_one_token(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    for _ in range(10):
        assert await scalar(client, "SELECT 1") == 1
    counters = lakebase_env.admin.counters()
    assert (counters.logins, counters.mints) == (1, 1)
    assert (client.stats().connections, client.stats().checkouts) == (1, 10)


async def test_thirty_tasks_at_once_open_no_more_than_the_maximum(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    pids = await asyncio.gather(*(backend(client) for _ in range(30)))
    assert 1 <= len(set(pids)) <= 2
    assert client.stats().connections <= 2
    assert client.stats().checkouts == 30
    assert lakebase_env.admin.counters().logins <= 2


async def test_success_commits_and_failure_rolls_back(client: LakebaseClient) -> None:
    async with client.aconnection() as connection:
        await connection.execute("CREATE TABLE async_commit (i int)")

    async def fail() -> None:
        async with client.aconnection() as connection:
            raise ZeroDivisionError(
                (await connection.execute("INSERT INTO async_commit VALUES (1)")).rowcount
            )

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await scalar(client, "SELECT count(*) FROM async_commit") == 0
    async with client.aconnection() as connection:
        await connection.execute("DROP TABLE async_commit")
    assert client.stats().connections == 1


async def test_nothing_leaks_from_one_borrower_to_the_next(client: LakebaseClient) -> None:
    connection = await (await client._async_pools.current()).getconn()
    await connection.set_autocommit(True)
    connection.row_factory = dict_row  # type: ignore[assignment] # what a careless borrower does
    connection.prepare_threshold = 0
    for statement in (
        "SET search_path = elsewhere",
        "CREATE TEMPORARY TABLE leftover (i int)",
        "SELECT pg_advisory_lock(7)",
        "LISTEN gossip",
    ):
        await connection.execute(statement.encode())
    await connection.execute("SELECT 41 + %s", [1])
    first = connection.info.backend_pid
    await connection.set_autocommit(False)
    await connection.set_read_only(True)
    await connection.execute("SELECT 1")
    await connection.close()  # hands it back
    async with client.aconnection() as connection:
        assert connection.info.backend_pid == first
        assert (connection.autocommit, connection.read_only) == (False, None)
        for question, answer in (
            ("SHOW search_path", '"$user", public'),
            ("SELECT to_regclass('pg_temp.leftover')", None),
            ("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", 0),
            ("SELECT count(*) FROM pg_listening_channels()", 0),
        ):
            assert await (await connection.execute(question.encode())).fetchone() == (answer,)
        assert await (await connection.execute("SELECT 41 + %s", [1])).fetchone() == (42,)


async def test_a_connection_left_in_a_failed_transaction_comes_back_clean(client: LakebaseClient) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        await scalar(client, "SELECT 1/0")
    assert await scalar(client, "SELECT 1") == 1
    assert client.stats().connections == 1


async def test_an_exhausted_pool_says_so(client: LakebaseClient) -> None:
    async with client.aconnection(), client.aconnection():
        with pytest.raises(PoolExhaustedError, match="2 of at most 2 are in use"):
            async with client.aconnection(timeout=0.05):
                pass
    assert client.stats().connections == 2
    assert await scalar(client, "SELECT 1") == 1


async def test_the_typed_error_reaches_a_borrower_at_once(lakebase_env: LocalLakebase) -> None:
    async with closing(LakebaseClient(lakebase_env.config(user="nobody-knows"))) as client:
        with pytest.raises(LoginRejectedError, match="nobody-knows") as caught:
            await scalar(client, "SELECT 1")
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert lakebase_env.admin.counters().mints == 2
    assert lakebase_env.admin.counters().refused_logins == 2


async def test_the_typed_error_reaches_all_who_wait(lakebase_env: LocalLakebase) -> None:
    config = lakebase_env.config(user="nobody-knows", max_size=2)
    async with closing(LakebaseClient(config)) as client:
        errors = await asyncio.gather(
            *(scalar(client, "SELECT 1") for _ in range(30)), return_exceptions=True
        )
    assert {type(error) for error in errors} == {LoginRejectedError}
    assert len({id(error) for error in errors}) == 30
    assert lakebase_env.admin.counters().refused_logins <= 4


async def test_who_waits_for_a_caller_that_gave_up_is_served_all_the_same(
    lakebase_env: LocalLakebase,
) -> None:
    lakebase_env.admin.fault("POST", CREDENTIALS, hang=0.5, times=1)
    async with closing(LakebaseClient(lakebase_env.config(max_size=1))) as client:
        pool = await client._async_pools.current()
        hasty = asyncio.create_task(pool.getconn(timeout=0.1))
        patient = asyncio.create_task(scalar(client, "SELECT 1"))
        with pytest.raises(ControlPlaneTimeoutError):
            await hasty
        assert await patient == 1
    assert lakebase_env.admin.counters().logins == 1


async def test_a_hanging_control_plane_does_not_hold_the_loop(lakebase_env: LocalLakebase) -> None:
    lakebase_env.admin.fault("POST", CREDENTIALS, hang=1)
    lakebase_env.admin.fault("GET", "/api/2.0/postgres/*", hang=1)
    async with closing(LakebaseClient(lakebase_env.config(host=None))) as client, heartbeat() as beats:
        assert await scalar(client, "SELECT 1") == 1
    assert beats[-1] - beats[0] > 2.0
    assert largest_gap(beats) < 0.7  # a loop that waits stands still for a second


async def test_a_hanging_control_plane_does_not_hold_the_caller(lakebase_env: LocalLakebase) -> None:
    lakebase_env.admin.fault("POST", CREDENTIALS, hang=30)
    async with closing(LakebaseClient(lakebase_env.config())) as client:
        with pytest.raises(ControlPlaneTimeoutError, match=r"within 0\.5 s"):
            await client.aconnect(timeout=0.5)
        await end_mint(client, lakebase_env)


async def test_an_endpoint_that_nobody_names_in_time_is_said_to_be_that(lakebase_env: LocalLakebase) -> None:
    lakebase_env.admin.fault("GET", "/api/2.0/postgres/*", hang=1.0)
    async with closing(LakebaseClient(lakebase_env.config(host=None))) as client:
        await client.tokens.aget()
        with pytest.raises(ControlPlaneTimeoutError, match="did not return the database's host"):
            await client.aconnect(timeout=0.2)
    lakebase_env.admin.clear_faults()


async def test_a_sleeping_compute_is_waited_for_and_the_loop_runs_on(lakebase_env: LocalLakebase) -> None:
    lakebase_env.admin.set_wake_delay(1)
    lakebase_env.admin.suspend()
    async with closing(LakebaseClient(lakebase_env.config())) as client, heartbeat() as beats:
        assert await scalar(client, "SELECT 1") == 1
    assert lakebase_env.admin.counters().wakes == 1
    assert largest_gap(beats) < 0.7  # a loop that waits stands still for a second


async def test_a_compute_that_does_not_wake_ends_at_the_callers_deadline(lakebase_env: LocalLakebase) -> None:
    lakebase_env.admin.set_wake_delay(60)
    lakebase_env.admin.suspend()
    async with closing(LakebaseClient(lakebase_env.config())) as client:
        await client.tokens.aget()
        start = time.monotonic()
        with pytest.raises(EndpointWakingError, match="timeout"):
            await client.aconnect(timeout=1)
        assert time.monotonic() - start < 1 + BUSY


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"sslrootcert": None}, TlsError),
        ({"host": "unknown.databricks.com"}, DnsError),
    ],
)
@pytest.mark.usefixtures("no_name_server")
async def test_failures_are_typed(
    lakebase_env: LocalLakebase, settings: dict[str, Any], kind: type[LakebaseError]
) -> None:
    with pytest.raises(kind):
        await LakebaseClient(lakebase_env.config(**settings)).aconnect(timeout=10)


async def test_a_failing_control_plane_is_typed(lakebase_env: LocalLakebase) -> None:
    lakebase_env.admin.fault("POST", CREDENTIALS, status=503)
    client = LakebaseClient(lakebase_env.config())
    with pytest.raises(ControlPlaneUnavailableError):
        await client.aconnect(timeout=4)
    await end_mint(client, lakebase_env)


async def end_mint(client: LakebaseClient, lake: LocalLakebase) -> None:
    """A mint outlives the caller that gave up; the next test is not to count it."""
    lake.admin.clear_faults()
    await client.tokens.aget()


async def test_a_token_that_expired_is_minted_anew_once(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    async with client.aconnection():
        lakebase_env.admin.expire_tokens()
        assert await scalar(client, "SELECT 1") == 1
    counters = lakebase_env.admin.counters()
    assert (counters.mints, counters.refused_logins) == (2, 1)


async def test_connections_that_a_suspend_cut_are_replaced(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    async with client.aconnection(), client.aconnection():
        pass
    lakebase_env.admin.suspend()
    # The next one to be lent has been idle for a minute; the other one would be lent without a look at it.
    (await client._async_pools.current())._pool[0].last_used -= 60
    async with client.aconnection(timeout=10) as one, client.aconnection(timeout=10) as two:
        for connection in (one, two):
            assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


async def test_an_endpoint_that_was_disabled_meanwhile_is_said_to_be_that(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    await scalar(client, "SELECT 1")
    lakebase_env.admin.disable_endpoint()
    try:
        for connection in (await client._async_pools.current())._pool:
            connection.last_used -= 60
        with pytest.raises(EndpointDisabledError):
            await scalar(client, "SELECT 1")
    finally:
        lakebase_env.admin.disable_endpoint(False)
    assert await scalar(client, "SELECT 1") == 1


async def test_a_cancelled_borrower_does_not_take_its_connection_along(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    first = await backend(client)
    for _ in range(5):
        task = asyncio.create_task(scalar(client, "SELECT pg_sleep(60)"))
        await aeventually(lambda: running(lakebase_env) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert running(lakebase_env) == 0
    assert await backend(client) == first
    assert client.stats().connections == 1


def running(lake: LocalLakebase) -> int:
    found = lake.admin.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active'"
        " AND pid <> pg_backend_pid()"
    )
    return int(found[0][0])


async def test_a_borrower_cancelled_at_any_moment_leaves_the_pool_whole(client: LakebaseClient) -> None:
    async def borrow(ready: asyncio.Event) -> None:
        async with client.aconnection() as connection:
            await connection.execute("SET search_path = elsewhere")
            ready.set()

    for steps in range(0, 150, 2):
        for wait_until_ready in (True, False):
            ready = asyncio.Event()
            task = asyncio.create_task(borrow(ready))
            if wait_until_ready:
                await ready.wait()
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    # Both places of the pool are still to be had, at once, and clean.
    async with client.aconnection(timeout=5) as one, client.aconnection(timeout=5) as two:
        for connection in (one, two):
            shown = await (await connection.execute("SHOW search_path")).fetchone()
            assert shown == ('"$user", public',)


async def test_a_cancelled_connect_leaves_its_place_to_the_next(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    lakebase_env.admin.fault("POST", CREDENTIALS, hang=30, times=1)
    tasks = [asyncio.create_task(scalar(client, "SELECT 1")) for _ in range(2)]
    await aeventually(lambda: bool(lakebase_env.admin.requests()))  # the workspace token's; next, it hangs
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    lakebase_env.admin.clear_faults()
    assert await asyncio.gather(*(scalar(client, "SELECT 1") for _ in range(4))) == [1] * 4


async def test_a_cancelled_login_shows_no_token_in_its_frames(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config())
    token = (await client.tokens.aget()).reveal()
    lakebase_env.admin.set_wake_delay(60)
    lakebase_env.admin.suspend()
    task = asyncio.create_task(client.aconnect())
    await aeventually(lambda: lakebase_env.admin.counters().wakes == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    step: BaseException | None = caught.value
    while step is not None:
        for frame, _ in traceback.walk_tb(step.__traceback__):
            assert frame.f_code.co_filename == __file__ or token not in repr(frame.f_locals)
        step = step.__cause__ or step.__context__


async def test_a_name_that_the_system_does_not_resolve_is_asked_of_name_servers(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = lakebase_env.env()["PGHOST"]
    system = socket.getaddrinfo

    def getaddrinfo(name: Any, *arguments: Any, **options: Any) -> Any:
        if name == host:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return system(name, *arguments, **options)

    asked: list[str] = []

    def ask(host: str, timeout: float) -> tuple[str, ...]:
        asked.append(host)
        return ("127.0.0.1",)

    client = LakebaseClient(lakebase_env.config())
    await client.tokens.aget()
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(network, "ask_name_servers", ask)
    async with await client.aconnect(timeout=5) as connection:
        # The certificate is still checked for the name, not for the address.
        assert connection.info.host == host
    with client.connect(timeout=5):
        pass
    assert asked == [host] * 2


async def test_the_pool_opens_again_after_aclose_with_the_same_token(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    await scalar(client, "SELECT 1")
    await client.aclose()
    await aeventually(lambda: lakebase_env.admin.counters().open_connections == 0)
    assert await scalar(client, "SELECT 1") == 1
    assert lakebase_env.admin.counters().mints == 1
    assert client.stats().checkouts == 2


async def test_two_event_loops_in_two_threads_have_a_pool_each(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    async def work() -> set[int]:
        async with closing(client):
            return set(await asyncio.gather(*(backend(client) for _ in range(20))))

    first, second = await asyncio.gather(*(asyncio.to_thread(asyncio.run, work()) for _ in range(2)))
    assert first
    assert second
    assert not first & second
    assert client.stats().checkouts == 40
    assert lakebase_env.admin.counters().mints == 1
    assert await scalar(client, "SELECT 1") == 1


def test_a_loop_that_ended_without_aclose_is_forgotten(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config())
    pids = [asyncio.run(backend(client)) for _ in range(3)]
    assert len(set(pids)) == 3
    eventually(lambda: lakebase_env.admin.counters().open_connections == 1)
    client.close()
    eventually(lambda: lakebase_env.admin.counters().open_connections == 0)
    assert client.stats().checkouts == 3
    assert client._async_pools._pools == {}
    del client
    gc.collect()


def test_a_loop_ends_although_its_pool_is_opening_a_connection(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config(min_size=1))
    lakebase_env.admin.set_wake_delay(60)
    lakebase_env.admin.suspend()

    async def leave_early() -> None:
        await client._async_pools.current()
        await aeventually(lambda: client.tokens.stats().mints == 1)

    start = time.monotonic()
    asyncio.run(leave_early())
    assert time.monotonic() - start < 1 + BUSY
    client.close()


async def test_a_forked_child_does_not_touch_the_parents_sockets(client: LakebaseClient) -> None:
    parents = await backend(client)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # The parent's loop is none of the child's; asyncio lets a new one run only in its place.
            asyncio._set_running_loop(None)
            os.write(write_end, str(asyncio.run(backend(client))).encode())
            client.close()
            assert len(client._async_pools._inherited) == 1
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        childs = int(await asyncio.to_thread(answer.read))
    assert os.waitpid(child, 0)[1] == 0
    assert childs != parents
    assert await scalar(client, "SELECT 1") == 1
    assert await backend(client) == parents


async def test_sqlalchemy_gets_its_token_at_connect_time_without_holding_the_loop(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    from sqlalchemy import text

    lakebase_env.admin.fault("POST", CREDENTIALS, hang=1)
    engine = client.async_engine(pool_size=2)
    try:
        async with heartbeat() as beats, engine.connect() as connection:
            user = (await connection.execute(text("SELECT current_user"))).scalar()
        assert user == lakebase_env.env()["PGUSER"]
        assert largest_gap(beats) < 0.7  # a loop that waits stands still for a second
        lakebase_env.admin.expire_tokens()
        await engine.dispose()
        async with engine.begin() as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar() == 1
        assert engine.url.password is None
        assert client.tokens.get().reveal() not in repr(engine.url)
    finally:
        await engine.dispose()


async def test_connections_that_sqlalchemy_kept_are_checked(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    from sqlalchemy import text

    engine = client.async_engine()
    try:
        for _ in range(2):
            async with engine.connect() as connection:
                assert (await connection.execute(text("SELECT 1"))).scalar() == 1
            lakebase_env.admin.suspend()
    finally:
        await engine.dispose()


async def test_connections_that_broke_in_use_do_not_use_up_the_pool(client: LakebaseClient) -> None:
    pool = await client._async_pools.current()
    for _ in range(5):
        connection = await pool.getconn(timeout=5)
        connection.pgconn.finish()
        await connection.close()
        await connection.close()
    assert client.stats().pool == {}
    assert pool.get_stats()["pool_size"] <= 2


def test_a_loop_that_pauses_keeps_no_connection_of_a_client_that_is_closed(
    lakebase_env: LocalLakebase,
) -> None:
    # As Airflow leaves the loop of an async task: neither running nor closed.
    async def backend(client: LakebaseClient) -> int:
        async with client.aconnection() as connection:
            return connection.info.backend_pid

    loop = asyncio.new_event_loop()
    try:
        with LakebaseClient(lakebase_env.config()) as client:
            pid = loop.run_until_complete(backend(client))
            client.close()
            with psycopg.connect(lakebase_env.superuser_dsn, autocommit=True) as observer:
                query = "select count(*) from pg_stat_activity where pid = %s"
                eventually(lambda: observer.execute(query, (pid,)).fetchone() == (0,))
            assert client.stats().checkouts == 1
            # The loop may go on, with a pool of its own again.
            assert loop.run_until_complete(backend(client)) != pid
    finally:
        loop.close()


async def test_what_stands_in_a_comment_is_no_placeholder(client: LakebaseClient) -> None:
    async with client.aconnection() as connection:
        for cursor in (connection.cursor(), connection.cursor("named")):
            async with cursor:
                await cursor.execute("select %s::int -- was %(region)s, 100% sure", (1,))
                assert await cursor.fetchall() == [(1,)]
