"""A process that is asked to end begins no other statement, and what undoes its work still runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.connect.cancel import (
    cancel_running_statements,
    forget_request_to_end,
    refuse_next_statement,
)
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config(max_size=1)) as client:
        yield client
    forget_request_to_end()


def copy(connection: LakebaseConnection) -> None:
    with connection.cursor() as cursor, cursor.copy("copy (select 1) to stdout") as rows:
        list(rows)


def from_a_server_cursor(connection: LakebaseConnection) -> None:
    with connection.cursor("rows") as cursor:
        cursor.execute("select 1")


STATEMENTS: dict[str, Callable[[LakebaseConnection], Any]] = {
    "execute": lambda connection: connection.execute("select 1"),
    "executemany": lambda connection: connection.cursor().executemany("select %s::int", [(1,), (2,)]),
    "copy": copy,
    "server cursor": from_a_server_cursor,
}


@pytest.mark.parametrize("kind", STATEMENTS)
def test_the_next_statement_does_not_begin(client: LakebaseClient, kind: str) -> None:
    with closing(client.pool.getconn()) as connection:
        connection.execute("create temp table kept (i int)")
        connection.commit()
        connection.execute("insert into kept values (1)")
        refuse_next_statement()
        with pytest.raises(psycopg.errors.QueryCanceled, match="asked to end"):
            STATEMENTS[kind](connection)
        # Nothing was sent, so the transaction is as it was, and can be ended either way.
        connection.commit()
        STATEMENTS[kind](connection)
        assert connection.execute("select i from kept").fetchall() == [(1,)]


def test_what_is_open_is_rolled_back_and_handed_back(client: LakebaseClient) -> None:
    def two_statements() -> None:
        with client.connection() as connection:
            connection.execute("create table never (i int)")
            refuse_next_statement()
            connection.execute("select 1")

    with pytest.raises(psycopg.errors.QueryCanceled):
        two_statements()
    with client.connection() as connection:
        assert connection.execute("select to_regclass('never')").fetchone() == (None,)
    assert client.stats().connections == 1


def test_a_statement_that_is_cancelled_is_the_one(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    # Such as what a task's failure callback writes down is no business of the signal any more.
    with client.connection() as connection:
        connection.autocommit = True

        def cancel_once_it_runs() -> None:
            # In a transaction each look would show what the first one has shown.
            with psycopg.connect(lakebase_env.superuser_dsn, autocommit=True) as observer:
                query = "select count(*) from pg_stat_activity where query like 'select pg_sleep(54%'"
                eventually(lambda: observer.execute(query + " and state = 'active'").fetchone() == (1,))
            os.kill(os.getpid(), signal.SIGUSR1)

        def handler(*_: Any) -> None:
            refuse_next_statement()
            assert cancel_running_statements() == 1

        before = signal.signal(signal.SIGUSR1, handler)
        canceller = threading.Thread(target=cancel_once_it_runs)
        canceller.start()
        try:
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("select pg_sleep(54)")
        finally:
            canceller.join()
            signal.signal(signal.SIGUSR1, before)
        assert connection.execute("select 1").fetchone() == (1,)


async def test_for_asyncio_too(client: LakebaseClient) -> None:
    async with client.aconnection() as connection:
        refuse_next_statement()
        with pytest.raises(psycopg.errors.QueryCanceled, match="asked to end"):
            await connection.execute("select 1")
        assert await (await connection.execute("select 1")).fetchone() == (1,)
    await client.aclose()


def test_a_forked_child_was_asked_nothing(client: LakebaseClient) -> None:
    refuse_next_statement()
    pid = os.fork()
    if pid == 0:
        try:
            with client.connection() as connection:
                connection.execute("select 1")
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
