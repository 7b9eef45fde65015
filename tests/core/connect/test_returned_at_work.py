"""A connection is returned while another thread, or another task, is at a statement on it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually

#: Each hits another moment of the statement: it is sent, waited for, cancelled, or the next one begins.
TIMES = 25
SLEEP = "SELECT pg_sleep(300)"


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config(max_size=4, connect_budget=10)) as client:
        yield client


@pytest.mark.timeout(120)
def test_the_thread_gets_an_error_and_no_session_of_others(client: LakebaseClient) -> None:
    def work(connection: Any, started: threading.Event, ended: list[BaseException]) -> None:
        try:
            while True:
                started.set()
                try:
                    connection.execute(SLEEP)
                except psycopg.errors.QueryCanceled:
                    # Goes on with what it takes for its own session.
                    continue
        except BaseException as error:
            ended.append(error)

    for _ in range(TIMES):
        connection = client.pool.getconn()
        connection.autocommit = True
        started, ended = threading.Event(), list[BaseException]()
        thread = threading.Thread(target=work, args=(connection, started, ended), daemon=True)
        thread.start()
        started.wait()
        connection.close()
        # Whose descriptors may be those that the thread waits at.
        held = [client.pool.getconn() for _ in range(3)]
        assert [other.execute("SELECT 1").fetchone() for other in held] == [(1,)] * 3
        thread.join(timeout=25)
        assert not thread.is_alive()
        assert [type(error) for error in ended] == [psycopg.OperationalError]
        for other in held:
            other.close()
    eventually(lambda: sleeping(client) == 0)


@pytest.mark.timeout(120)
async def test_the_task_gets_an_error_and_no_session_of_others(client: LakebaseClient) -> None:
    async def work(connection: Any, started: asyncio.Event) -> None:
        while True:
            started.set()
            try:
                await connection.execute(SLEEP)
            except psycopg.errors.QueryCanceled:
                continue

    pool = await client.apool()
    for turn in range(TIMES):
        connection = await pool.getconn()
        await connection.set_autocommit(True)
        started = asyncio.Event()
        task = asyncio.create_task(work(connection, started))
        await started.wait()
        for _ in range(turn):
            await asyncio.sleep(0)
        await connection.close()
        held = [await pool.getconn() for _ in range(3)]
        for other in held:
            assert await (await other.execute("SELECT 1")).fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            await asyncio.wait_for(task, 25)
        for other in held:
            await other.close()
    await client.aclose()
    eventually(lambda: sleeping(client) == 0)


def sleeping(client: LakebaseClient) -> int:
    with client.connection() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = %s"
        row = connection.execute(query, (SLEEP,)).fetchone()
        assert row is not None
        return int(row[0])
