"""A loan ends once; no reference that outlives it reaches a session that somebody else holds."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.connect.connection import AsyncLakebaseConnection, LakebaseConnection
from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually

#: What an old reference tries to do to the session of the next borrower.
POISON = b"SET application_name = 'poisoned'"


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config(max_size=1, connect_budget=10)) as client:
        with client.connection() as connection:
            connection.execute("DROP TABLE IF EXISTS lent")
            connection.execute("CREATE TABLE lent (i int)")
        yield client


@pytest.fixture
async def async_client(client: LakebaseClient) -> AsyncIterator[LakebaseClient]:
    yield client
    await client.aclose()


def connection_itself(connection: LakebaseConnection) -> Callable[[], Any]:
    return lambda: connection.execute(POISON)


def cursor(connection: LakebaseConnection) -> Callable[[], Any]:
    kept = connection.cursor()
    return lambda: kept.execute(POISON)


def cursor_in_autocommit(connection: LakebaseConnection) -> Callable[[], Any]:
    connection.autocommit = True
    kept = connection.cursor()
    kept.execute("SELECT 1")
    return lambda: kept.execute(POISON)


def many(connection: LakebaseConnection) -> Callable[[], Any]:
    kept = connection.cursor()
    return lambda: kept.executemany("INSERT INTO lent VALUES (%s)", [[1], [2]])


def another_cursor(connection: LakebaseConnection) -> Callable[[], Any]:
    kept = psycopg.ClientCursor(connection)
    return lambda: kept.execute(POISON)


def server_cursor(connection: LakebaseConnection) -> Callable[[], Any]:
    kept = connection.cursor("kept")
    kept.execute("SELECT generate_series(1, 1000)")
    return kept.fetchone


def stream(connection: LakebaseConnection) -> Callable[[], Any]:
    rows = connection.cursor().stream("SELECT generate_series(1, 1000)")
    next(rows)
    return lambda: list(rows)


def copy_in(connection: LakebaseConnection) -> Callable[[], Any]:
    opened = connection.cursor().copy("COPY lent FROM STDIN")
    copy = opened.__enter__()
    copy.write("1\n")

    def write() -> None:
        for _ in range(1000):
            copy.write("2\n" * 1000)
        opened.__exit__(None, None, None)

    return write


def copy_out(connection: LakebaseConnection) -> Callable[[], Any]:
    opened = connection.cursor().copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT")
    copy = opened.__enter__()
    copy.read()

    def read() -> None:
        list(copy)
        opened.__exit__(None, None, None)

    return read


def transaction(connection: LakebaseConnection) -> Callable[[], Any]:
    block = connection.transaction()
    block.__enter__()

    def end() -> None:
        block.__exit__(None, None, None)
        connection.execute(POISON)

    return end


def new_transaction(connection: LakebaseConnection) -> Callable[[], Any]:
    return lambda: connection.transaction().__enter__()


def pipeline(connection: LakebaseConnection) -> Callable[[], Any]:
    kept = connection.pipeline().__enter__()
    connection.execute("SELECT 1")

    def sync() -> None:
        connection.execute(POISON)
        kept.sync()

    return sync


def libpq(connection: LakebaseConnection) -> Callable[[], Any]:
    kept = connection.pgconn

    def use() -> None:
        kept.exec_(POISON)

    return use


def libpq_query(connection: LakebaseConnection) -> Callable[[], Any]:
    kept = connection.pgconn
    connection.execute("SELECT 1")
    return lambda: kept.send_query(POISON)


def libpq_cancel(connection: LakebaseConnection) -> Callable[[], Any]:
    return connection.pgconn.get_cancel().cancel


def info(connection: LakebaseConnection) -> Callable[[], Any]:
    kept = connection.info
    assert kept.backend_pid
    return lambda: kept.backend_pid


def new_info(connection: LakebaseConnection) -> Callable[[], Any]:
    return lambda: connection.info.password


def notifies(connection: LakebaseConnection) -> Callable[[], Any]:
    connection.autocommit = True
    connection.execute("LISTEN gossip")
    connection.execute("NOTIFY gossip")
    heard = connection.notifies(timeout=5)
    next(heard)
    return lambda: list(heard)


def commit(connection: LakebaseConnection) -> Callable[[], Any]:
    return connection.commit


def rollback(connection: LakebaseConnection) -> Callable[[], Any]:
    return connection.rollback


def autocommit(connection: LakebaseConnection) -> Callable[[], Any]:
    return lambda: connection.set_autocommit(True)


def file(connection: LakebaseConnection) -> Callable[[], Any]:
    return connection.fileno


def block(connection: LakebaseConnection) -> Callable[[], Any]:
    return connection.__enter__


def name(connection: LakebaseConnection) -> Callable[[], Any]:
    return lambda: connection.name_session("poisoned")


WAYS = [
    connection_itself,
    cursor,
    cursor_in_autocommit,
    many,
    another_cursor,
    server_cursor,
    stream,
    copy_in,
    copy_out,
    transaction,
    new_transaction,
    pipeline,
    libpq,
    libpq_query,
    libpq_cancel,
    info,
    new_info,
    notifies,
    commit,
    rollback,
    autocommit,
    file,
    block,
    name,
]


@pytest.mark.filterwarnings("ignore:.*ServerCursor:ResourceWarning")
@pytest.mark.parametrize("way", WAYS)
def test_what_outlives_a_loan_reaches_nothing(
    client: LakebaseClient, way: Callable[[LakebaseConnection], Callable[[], Any]]
) -> None:
    old = client.pool.getconn()
    use = way(old)
    old.close()
    with client.connection() as connection:
        connection.execute("INSERT INTO lent VALUES (42)")
        with pytest.raises((psycopg.OperationalError, psycopg.InterfaceError), match=r"closed|lost"):
            use()
        old.close()
        with suppress(psycopg.Error):
            use()
        assert connection.pgconn.transaction_status == TransactionStatus.INTRANS
        assert connection.execute("SHOW application_name").fetchone() != ("poisoned",)
        assert connection.execute("SELECT * FROM lent").fetchall() == [(42,)]
    del use, old
    gc.collect()
    assert not client.pool._loans
    assert client.stats().pool["pool_size"] == 1


def test_the_end_of_a_loan_is_said_with_its_remedy(client: LakebaseClient) -> None:
    connection = client.pool.getconn()
    kept = connection.cursor()
    connection.close()
    assert connection.closed
    assert isinstance(connection, psycopg.Connection)
    assert "BAD" in repr(connection)
    for use in (connection.cursor, connection.commit, lambda: kept.execute("SELECT 1")):
        with pytest.raises(
            psycopg.OperationalError, match=r"(?s)the connection is closed: .*\nRemedy: borrow"
        ):
            use()


def test_a_late_second_close_does_nothing_to_the_next_borrower(client: LakebaseClient) -> None:
    old = client.pool.getconn()
    old.close()
    with client.connection() as connection:
        connection.execute("INSERT INTO lent VALUES (1)")
        old.close()
        client.pool.putconn(old)
    with client.connection() as connection:
        assert connection.execute("SELECT count(*) FROM lent").fetchone() == (1,)


def test_closed_within_its_own_blocks(client: LakebaseClient) -> None:
    with client.connection() as connection:
        connection.close()
    with closing(client.pool.getconn()) as connection:
        connection.close()
    with client.pool.getconn() as connection, connection.transaction():
        connection.close()
    with client.pool.getconn() as connection, suppress(psycopg.Error), connection.pipeline():
        connection.close()
    with client.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_with_commits_or_rolls_back_and_hands_back(client: LakebaseClient) -> None:
    with client.pool.getconn() as connection:
        connection.execute("INSERT INTO lent VALUES (1)")
    assert connection.closed
    with pytest.raises(ZeroDivisionError), client.pool.getconn() as connection:
        raise ZeroDivisionError(connection.execute("INSERT INTO lent VALUES (2)").rowcount)
    with client.pool.getconn() as connection, connection:
        assert connection.execute("SELECT * FROM lent").fetchall() == [(1,)]
    assert client.stats().pool["pool_size"] == 1


def test_a_commit_that_fails_hands_back_too(client: LakebaseClient) -> None:
    with client.connection() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS late (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(psycopg.errors.UniqueViolation), client.pool.getconn() as connection:
        connection.execute("INSERT INTO late VALUES (1), (1)")
    with client.connection(timeout=5) as connection:
        connection.execute("DROP TABLE late")


def test_an_inner_block_ends_a_transaction_and_not_the_loan(client: LakebaseClient) -> None:
    with client.connection() as connection:
        with connection:
            connection.execute("INSERT INTO lent VALUES (1)")
        assert connection.pgconn.transaction_status == TransactionStatus.IDLE
        assert connection.execute("SELECT * FROM lent").fetchall() == [(1,)]


def test_nothing_of_the_object_is_left(client: LakebaseClient) -> None:
    heard: list[object] = []
    with closing(client.pool.getconn()) as connection:
        connection.mark = 1  # type: ignore[attr-defined]
        connection.prepared_max = 1
        connection.add_notice_handler(heard.append)
        connection.add_notify_handler(heard.append)
        connection.autocommit = True
        connection.execute("LISTEN gossip")
        connection.execute("NOTIFY gossip")
        old = connection
    heard.clear()
    old.add_notice_handler(heard.append)
    old.prepare_threshold = 0
    with closing(client.pool.getconn()) as connection:
        assert not hasattr(connection, "mark")
        assert connection.prepared_max == 100
        assert connection.prepare_threshold == 5
        assert connection.lock is not old.lock
        connection.execute("DO $$ BEGIN RAISE NOTICE 'psst'; END $$")
        assert list(connection.notifies(timeout=0)) == []
    assert not heard


def hear(heard: list[str | None], notice: psycopg.errors.Diagnostic) -> None:
    heard.append(notice.message_primary)


def test_notices_reach_the_present_borrower(client: LakebaseClient) -> None:
    kept = []
    for _ in range(3):
        heard: list[str | None] = []
        with client.connection() as connection:
            # Held by somebody, so that libpq's object is another one each time; then by nobody.
            kept.append(connection.pgconn)
            connection.add_notice_handler(partial(hear, heard))
            connection.execute("DO $$ BEGIN RAISE NOTICE 'psst'; END $$")
        assert heard == ["psst"]
        if len(kept) == 2:
            kept.clear()
            gc.collect()


def test_a_thousand_loans_leave_nothing_behind(client: LakebaseClient) -> None:
    with client.connection() as connection:
        pgconn = connection.pgconn
        pid = connection.info.backend_pid
    del pgconn
    gc.collect()
    before = len(gc.get_objects())
    for number in range(1000):
        with client.connection() as connection:
            kept = connection.pgconn if number % 2 else connection.cursor()
            connection.execute("SELECT 1")
    assert connection.closed
    del kept, connection
    gc.collect()
    assert len(gc.get_objects()) - before < 200
    with client.connection() as connection:
        assert connection.info.backend_pid == pid


def test_of_many_threads_that_close_one_connection_one_hands_it_back(client: LakebaseClient) -> None:
    for _ in range(20):
        connection = client.pool.getconn()
        connection.execute("SELECT 1")
        barrier = threading.Barrier(8)

        def close(connection: LakebaseConnection = connection, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            connection.close()

        threads = [threading.Thread(target=close) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(client.pool._pool) == client.stats().pool["pool_size"] == 1


# What was dropped


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]


def test_a_dropped_connection_goes_back_with_one_warning_that_names_the_place(
    client: LakebaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    connection = client.pool.getconn()  # here
    connection.execute("INSERT INTO lent VALUES (1)")
    pid = connection.info.backend_pid
    with pytest.warns(ResourceWarning, match=r"test_lending\.py:\d+") as caught:
        del connection
    (told,) = warnings_of(caplog)
    line = int(told.split("test_lending.py:")[1].split()[0])
    assert Path(__file__).read_text().splitlines()[line - 1].endswith("# here")
    assert len(caught) == 1
    with client.connection(timeout=5) as connection:
        assert connection.info.backend_pid == pid
        assert connection.execute("SELECT count(*) FROM lent").fetchone() == (0,)


def test_one_that_was_handed_back_is_dropped_without_a_word(
    client: LakebaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connection = client.pool.getconn()
        connection.close()
        del connection
        with client.connection():
            pass
        gc.collect()
    assert not warnings_of(caplog)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_borrower_who_waits_gets_what_another_one_drops(client: LakebaseClient) -> None:
    held = [client.pool.getconn()]
    held[0].execute("SELECT 1")
    got: list[tuple[int, ...] | None] = []

    def borrow() -> None:
        with client.connection(timeout=10) as connection:
            got.append(connection.execute("SELECT 1").fetchone())

    thread = threading.Thread(target=borrow)
    thread.start()
    eventually(lambda: client.stats().pool["requests_waiting"] == 1)
    held.clear()
    thread.join(timeout=10)
    assert got == [(1,)]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_dropped_in_a_cycle_and_in_the_middle_of_a_stream(client: LakebaseClient) -> None:
    for _ in range(5):
        connection = client.pool.getconn(timeout=5)
        rows = connection.cursor().stream("SELECT generate_series(1, 100000)")
        next(rows)
        cycle: list[Any] = [connection, rows]
        cycle.append(cycle)
        del connection, rows, cycle
        gc.collect()
    with client.connection(timeout=5) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


async def test_what_asyncio_drops_goes_back(
    async_client: LakebaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    pool = await async_client.apool()
    pids = set()
    for _ in range(10):
        connection = await pool.getconn(timeout=5)
        await connection.execute("INSERT INTO lent VALUES (1)")
        pids.add(connection.info.backend_pid)
        with pytest.warns(ResourceWarning, match=r"test_lending\.py:\d+"):
            del connection
    assert len(pids) == 1
    assert len(warnings_of(caplog)) == 10
    async with async_client.aconnection(timeout=5) as connection:
        assert await (await connection.execute("SELECT count(*) FROM lent")).fetchone() == (0,)


# asyncio


async def test_async_with_hands_back_and_a_second_close_does_nothing(async_client: LakebaseClient) -> None:
    pool = await async_client.apool()
    async with await pool.getconn() as old:
        await old.execute("INSERT INTO lent VALUES (1)")
    kept = old.pgconn
    assert old.closed
    async with async_client.aconnection() as connection:
        kept_cursor = connection.cursor()
        await connection.execute("INSERT INTO lent VALUES (2)")
        await old.close()
        await pool.putconn(old)
        with pytest.raises(psycopg.OperationalError, match="closed"):
            await old.execute(POISON)
        with pytest.raises(psycopg.OperationalError, match="closed"):
            kept.exec_(POISON)
    with pytest.raises(psycopg.OperationalError, match="closed"):
        await kept_cursor.execute(POISON)
    async with async_client.aconnection() as connection:
        await connection.close()
    async with async_client.aconnection(timeout=5) as connection:
        rows = await (await connection.execute("SELECT * FROM lent ORDER BY i")).fetchall()
        assert rows == [(1,), (2,)]


async def test_a_cancelled_borrower_loses_nothing(async_client: LakebaseClient) -> None:
    async def borrow() -> None:
        async with await (await async_client.apool()).getconn() as connection:
            await connection.execute("SELECT pg_sleep(60)")

    for _ in range(3):
        task = asyncio.create_task(borrow())
        while not (await async_client.apool())._loans:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with async_client.aconnection(timeout=5) as connection:
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


# What is no loan of this pool


def test_a_foreign_connection_is_left_alone(client: LakebaseClient, lakebase_env: LocalLakebase) -> None:
    with LakebaseClient(lakebase_env.config()) as other, client.connect() as own:
        lent = other.pool.getconn()
        lent.execute("SELECT 1")
        for foreign in (own, lent):
            with pytest.raises(ValueError, match=r"did not lend"):
                client.pool.putconn(foreign)
            assert not foreign.closed
        assert lent.pgconn.transaction_status == TransactionStatus.INTRANS
        lent.close()


async def test_nor_is_one_of_asyncio(async_client: LakebaseClient) -> None:
    own = await async_client.aconnect()
    with pytest.raises(ValueError, match=r"did not lend"):
        await (await async_client.apool()).putconn(own)
    assert not own.closed
    await own.close()


def test_the_kinds_are_what_they_were(client: LakebaseClient) -> None:
    with client.connection() as connection:
        assert type(connection) is LakebaseConnection
    assert issubclass(AsyncLakebaseConnection, psycopg.AsyncConnection)


#: More than libpq and the server hold between them.
MANY = "SELECT i, repeat('x', 1000) FROM generate_series(1, 100000) i"


@pytest.mark.timeout(30)
def test_a_stream_that_is_left_ends_with_its_block(client: LakebaseClient) -> None:
    with client.connection() as connection:
        pid = connection.info.backend_pid
        rows = connection.cursor().stream(MANY)
        assert next(rows)[0] == 1
    assert list(rows) == []
    with client.connection() as connection:
        # The session itself came back.
        assert connection.info.backend_pid == pid
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.timeout(30)
def test_a_stream_that_is_left_after_a_write_tells_that_the_write_is_undone(client: LakebaseClient) -> None:
    def write_and_leave(*, dropped: bool = False, failing: bool = False) -> None:
        with client.connection() as connection:
            connection.execute("INSERT INTO lent VALUES (1)")
            rows = connection.cursor().stream(MANY)
            next(rows)
            if dropped:
                del rows
            if failing:
                raise ZeroDivisionError

    with pytest.raises(psycopg.ProgrammingError, match="rolled back"):
        write_and_leave()
    with pytest.raises(psycopg.ProgrammingError, match="rolled back"):
        write_and_leave(dropped=True)
    with pytest.raises(ZeroDivisionError):
        write_and_leave(failing=True)
    with client.connection() as connection:
        connection.execute("INSERT INTO lent VALUES (4)")
        connection.commit()
        connection.rollback()
        assert connection.execute("SELECT i FROM lent").fetchall() == [(4,)]
        assert len(list(connection.cursor().stream("SELECT i FROM lent"))) == 1


@pytest.mark.timeout(30)
def test_a_connection_that_streams_says_so_to_its_reader(client: LakebaseClient) -> None:
    with client.connection() as connection:
        rows = connection.cursor().stream(MANY)
        next(rows)
        for use in (
            lambda: connection.execute("SELECT 1"),
            connection.commit,
            lambda: next(connection.cursor().stream("SELECT 1")),
        ):
            with pytest.raises(psycopg.ProgrammingError, match="read in part"):
                use()
        rows.close()
        connection.rollback()
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.timeout(30)
def test_a_commit_after_a_stream_that_was_left_is_none_and_says_so(client: LakebaseClient) -> None:
    def write_and_leave(connection: psycopg.Connection[Any]) -> None:
        connection.execute("INSERT INTO lent VALUES (1)")
        for _ in connection.cursor().stream(MANY):
            break

    with client.connection() as connection:
        write_and_leave(connection)
        with pytest.raises(psycopg.ProgrammingError, match="rolled back"):
            connection.commit()
        with pytest.raises(psycopg.ProgrammingError, match="rolled back"), connection.transaction():
            write_and_leave(connection)
        assert connection.execute("SELECT i FROM lent").fetchall() == []
        # What is rolled back on purpose is no such loss, later on.
        write_and_leave(connection)
        connection.rollback()
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1/0")
        connection.commit()


@pytest.mark.timeout(30)
async def test_an_async_commit_after_a_stream_that_was_left(async_client: LakebaseClient) -> None:
    async def write_and_leave(connection: psycopg.AsyncConnection[Any]) -> None:
        async with connection.transaction():
            await connection.execute("INSERT INTO lent VALUES (1)")
            rows: Any = connection.cursor().stream(MANY)
            await anext(rows)
            await rows.aclose()

    async with async_client.aconnection() as connection:
        with pytest.raises(psycopg.ProgrammingError, match="rolled back"):
            await write_and_leave(connection)
        assert await (await connection.execute("SELECT i FROM lent")).fetchall() == []


@pytest.mark.timeout(30)
def test_another_thread_waits_for_a_stream(client: LakebaseClient) -> None:
    got: list[Any] = []
    with client.connection() as connection:
        rows = connection.cursor().stream(MANY)
        next(rows)
        thread = threading.Thread(target=lambda: got.append(connection.execute("SELECT 1").fetchone()))
        thread.start()
        assert len(list(rows)) == 99_999
        thread.join(timeout=10)
    assert got == [(1,)]


@pytest.mark.timeout(30)
async def test_an_async_stream_that_is_left_ends_with_its_block(async_client: LakebaseClient) -> None:
    async with async_client.aconnection() as connection:
        pid = connection.info.backend_pid
        rows: Any = connection.cursor().stream(MANY)
        await anext(rows)
        with pytest.raises(psycopg.ProgrammingError, match="read in part"):
            await connection.execute("SELECT 1")

    async def write_and_leave() -> None:
        async with async_client.aconnection() as connection:
            assert connection.info.backend_pid == pid
            await connection.execute("INSERT INTO lent VALUES (1)")
            rows: Any = connection.cursor().stream(MANY)
            await anext(rows)

    with pytest.raises(psycopg.ProgrammingError, match="rolled back"):
        await write_and_leave()
    async with async_client.aconnection() as connection:
        assert connection.info.backend_pid == pid
        assert await (await connection.execute("SELECT i FROM lent")).fetchall() == []
