from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg.rows import dict_row

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ForkedPoolError, LoginRejectedError, PoolExhaustedError
from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config(max_size=2)) as client:
        yield client


def backend(connection: psycopg.Connection[tuple[int]]) -> int:
    return connection.info.backend_pid


def test_ten_borrowers_in_turn_share_one_connection_and_one_token(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    for _ in range(10):
        with client.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    counters = lakebase_env.admin.counters()
    assert (counters.logins, counters.mints) == (1, 1)
    assert client.stats().connections == 1
    assert client.stats().checkouts == 10
    assert client.stats().pool["pool_size"] == 1


def test_close_hands_a_borrowed_connection_back(client: LakebaseClient) -> None:
    with closing(client.pool.getconn()) as connection:
        first = backend(connection)
    with closing(client.pool.getconn()) as connection:
        assert backend(connection) == first


def test_success_commits_and_failure_rolls_back(client: LakebaseClient) -> None:
    with client.connection() as connection:
        connection.execute("CREATE TABLE pool_commit (i int)")
    with pytest.raises(ZeroDivisionError), client.connection() as connection:
        raise ZeroDivisionError(connection.execute("INSERT INTO pool_commit VALUES (1)").rowcount)
    with client.connection() as connection:
        assert connection.execute("SELECT count(*) FROM pool_commit").fetchone() == (0,)
        connection.execute("DROP TABLE pool_commit")
    assert client.stats().connections == 1


def test_nothing_leaks_from_one_borrower_to_the_next(client: LakebaseClient) -> None:
    with closing(client.pool.getconn()) as connection:
        connection.autocommit = True
        connection.row_factory = dict_row  # type: ignore[assignment] # what a careless borrower does
        connection.prepare_threshold = 0
        connection.execute("SET search_path = elsewhere")
        connection.execute("SET statement_timeout = '7s'")
        connection.execute("CREATE TEMPORARY TABLE leftover (i int)")
        connection.execute("SELECT pg_advisory_lock(7)")
        connection.execute("LISTEN gossip")
        connection.execute("SELECT 41 + %s", [1])
        first = backend(connection)
    with closing(client.pool.getconn()) as connection:
        assert backend(connection) == first
        assert connection.autocommit is False
        assert connection.execute("SHOW search_path").fetchone() == ('"$user", public',)
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
        assert connection.execute("SELECT to_regclass('pg_temp.leftover')").fetchone() == (None,)
        assert connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (
            0,
        )
        assert connection.execute("SELECT count(*) FROM pg_listening_channels()").fetchone() == (0,)
        assert connection.execute("SELECT 41 + %s", [1]).fetchone() == (42,)


def test_threads_start_when_they_have_something_to_do_and_end_with_the_pool(client: LakebaseClient) -> None:
    before = _thread._count()
    with client.connection() as connection:
        assert _thread._count() == before
        connection.execute("SELECT 1")
    eventually(lambda: _thread._count() == before + 1)  # one watches for idle connections
    with closing(client.pool.getconn()) as connection:
        connection.pgconn.finish()
    assert client.stats().pool["pool_size"] == 0
    assert _thread._count() == before + 1  # nobody waits for another one
    with client.connection(), client.connection():
        assert _thread._count() == before + 2  # one has opened the second while its borrower waited
    client.close()
    eventually(lambda: _thread._count() == before)


def test_the_end_of_a_pool_waits_for_a_thread_that_begins(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python 3.11.2 crashes if it ends in between, which one in five short processes did.
    let, start = threading.Event(), _thread.start_new_thread
    order: list[str] = []

    def late(run: Callable[..., None], arguments: tuple[object, ...]) -> int:
        def begin() -> None:
            let.wait()
            order.append("begun")
            run(*arguments)

        return start(begin, ())

    def close() -> None:
        client.close()
        order.append("closed")

    monkeypatch.setattr(_thread, "start_new_thread", late)
    with client.connection() as connection:
        connection.execute("SELECT 1")
    monkeypatch.undo()
    closing = threading.Thread(target=close)
    closing.start()
    closing.join(0.1)
    let.set()
    closing.join()
    assert order == ["begun", "closed"]


def test_an_idle_connection_is_closed_after_a_while(lakebase_env: LocalLakebase) -> None:
    with LakebaseClient(lakebase_env.config(max_idle=1)) as client:
        with client.connection() as connection:
            connection.execute("SELECT 1")
        eventually(lambda: lakebase_env.admin.counters().open_connections == 0)
        assert client.stats().pool["pool_size"] == 0


def test_the_least_number_of_connections_is_opened_in_the_background(lakebase_env: LocalLakebase) -> None:
    with LakebaseClient(lakebase_env.config(min_size=2, max_size=2)) as client:
        assert client.pool.min_size == 2
        eventually(lambda: len(client.pool._pool) == 2)


def test_a_connection_that_broke_in_use_is_replaced(client: LakebaseClient) -> None:
    with closing(client.pool.getconn()) as connection:
        first = backend(connection)
        connection.pgconn.finish()
    with client.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert backend(connection) != first


def test_connections_that_broke_in_use_do_not_use_up_the_pool(client: LakebaseClient) -> None:
    for _ in range(5):
        connection = client.pool.getconn(timeout=5)
        connection.pgconn.finish()
        connection.close()
        connection.close()
    assert client.stats().pool["pool_size"] <= 2


def test_a_connection_past_its_life_is_replaced(client: LakebaseClient) -> None:
    with closing(client.pool.getconn()) as connection:
        first = backend(connection)
        connection._expire_at = 0.0
    with client.connection() as connection:
        assert backend(connection) != first


def test_a_connection_that_outlived_its_life_while_idle_is_replaced(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    with closing(client.pool.getconn()) as connection:
        first = backend(connection)
    client.pool._pool[0].last_used -= 60
    client.pool._pool[0]._expire_at = 0.0
    with client.connection() as connection:
        assert backend(connection) != first
    eventually(lambda: lakebase_env.admin.counters().open_connections <= 1)


def test_a_connection_returned_after_close_is_closed(client: LakebaseClient) -> None:
    connection = client.pool.getconn()
    client.close()
    connection.close()
    assert connection.closed


def test_a_connection_left_in_a_failed_transaction_comes_back_clean(client: LakebaseClient) -> None:
    with closing(client.pool.getconn()) as connection, pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("SELECT 1/0")
    with client.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert client.stats().connections == 1


def test_the_pool_grows_to_its_maximum_and_says_when_it_is_exhausted(client: LakebaseClient) -> None:
    with client.connection() as one, client.connection() as two:
        assert backend(one) != backend(two)
        with pytest.raises(PoolExhaustedError, match="2 of at most 2 are in use") as caught:
            client.pool.getconn(timeout=0.05)
    assert "max_size" in caught.value.remedy
    assert client.stats().connections == 2


def test_many_threads_share_few_connections(client: LakebaseClient, lakebase_env: LocalLakebase) -> None:
    seen: list[int] = []

    def work() -> None:
        for _ in range(10):
            with client.connection() as connection:
                row = connection.execute("SELECT 1").fetchone()
                assert row is not None
                seen.append(row[0])

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 160
    assert lakebase_env.admin.counters().open_connections <= 2
    assert lakebase_env.admin.counters().mints == 1


def test_threads_that_all_find_no_connection_open_no_more_than_the_maximum(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    barrier = threading.Barrier(30)
    pids: set[int] = set()

    def work() -> None:
        barrier.wait()
        with client.connection() as connection:
            pids.add(backend(connection))

    threads = [threading.Thread(target=work) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) <= 2
    assert client.stats().connections <= 2
    assert lakebase_env.admin.counters().logins <= 2


def test_a_login_that_fails_reaches_the_borrower_at_once(lakebase_env: LocalLakebase) -> None:
    with (
        LakebaseClient(lakebase_env.config(user="nobody-knows")) as client,
        pytest.raises(LoginRejectedError, match="nobody-knows"),
        client.connection(),
    ):
        pass


def test_a_refusal_reaches_those_who_wait_too(lakebase_env: LocalLakebase) -> None:
    with LakebaseClient(lakebase_env.config(user="nobody-knows", max_size=1)) as client:
        barrier = threading.Barrier(8)
        errors: list[BaseException] = []

        def work() -> None:
            barrier.wait()
            try:
                client.pool.getconn()
            except LoginRejectedError as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert len(errors) == 8
        assert len({id(error) for error in errors}) == 8


def test_connections_that_a_suspend_cut_are_replaced(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    with client.connection(), client.connection():
        pass
    lakebase_env.admin.suspend()
    for connection in client.pool._pool:
        connection.last_used -= 60  # they have been idle for a minute
    with client.connection(timeout=10) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_the_pool_opens_again_after_close_with_the_same_token(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    with client.connection():
        pass
    client.close()
    eventually(lambda: lakebase_env.admin.counters().open_connections == 0)
    with client.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert lakebase_env.admin.counters().mints == 1
    assert client.stats().checkouts == 2


def test_a_forked_child_does_not_touch_the_parents_sockets(client: LakebaseClient) -> None:
    with client.connection() as connection:
        parents = backend(connection)
    read_end, write_end = os.pipe()
    pool = client.pool
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.raises(ForkedPoolError):
                pool.getconn()
            with client.connection() as connection:
                os.write(write_end, str(backend(connection)).encode())
            client.close()
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        childs = int(answer.read())
    assert os.waitpid(child, 0)[1] == 0
    assert childs != parents
    with client.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert backend(connection) == parents


def test_sqlalchemy_gets_its_token_at_connect_time(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    from sqlalchemy import text

    engine = client.engine()
    try:
        with engine.connect() as connection:
            assert connection.execute(text("SELECT current_user")).scalar() == lakebase_env.env()["PGUSER"]
        lakebase_env.admin.expire_tokens()
        engine.dispose()
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
        assert engine.url.password is None
        assert client.tokens.get().reveal() not in repr(engine.url)
    finally:
        engine.dispose()
