"""What a pool tells those who get no connection, and for whom it opens one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from psycopg_pool import PoolTimeout

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import LakebaseConnectionError, LakebaseError, PoolExhaustedError
from lakebase_provider.local import FaultProxy, LocalLakebase


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config(max_size=1, connect_budget=10)) as client:
        yield client


def test_exhaustion_is_psycopgs_error_too_and_says_who_holds(client: LakebaseClient) -> None:
    with (
        client.connection(),
        pytest.raises(PoolTimeout, match=r"(?s)lent at .*test_pool_says") as caught,
    ):
        client.pool.getconn(timeout=0.05)
    assert isinstance(caught.value, PoolExhaustedError)
    assert isinstance(caught.value, LakebaseError)


@pytest.fixture
def proxy(lakebase_env: LocalLakebase) -> Iterator[FaultProxy]:
    with FaultProxy(lakebase_env.host, lakebase_env.port) as proxy:
        yield proxy


def test_an_outage_is_told_as_one(lakebase_env: LocalLakebase, proxy: FaultProxy) -> None:
    with LakebaseClient(lakebase_env.config(max_size=1, port=proxy.port)) as client:
        with client.connection():
            pass
        client.pool._pool[0].last_used -= 60
        proxy.stop()
        with pytest.raises(LakebaseConnectionError):
            client.pool.getconn(timeout=1)
        assert client.stats().pool["pool_size"] == 0


async def test_an_outage_is_told_to_asyncio(lakebase_env: LocalLakebase, proxy: FaultProxy) -> None:
    with LakebaseClient(lakebase_env.config(max_size=1, port=proxy.port)) as client:
        async with client.aconnection():
            pass
        pool = await client.apool()
        pool._pool[0].last_used -= 60
        proxy.stop()
        with pytest.raises(LakebaseConnectionError):
            await pool.getconn(timeout=1)
        assert pool.get_stats()["pool_size"] == 0
        await client.aclose()


def test_those_who_wait_for_a_compute_to_wake_wait_together(lakebase_env: LocalLakebase) -> None:
    lakebase_env.admin.suspend()
    lakebase_env.admin.set_wake_delay(4.0)  # longer than an attempt in the background
    with LakebaseClient(lakebase_env.config(max_size=4)) as client:
        got: list[Any] = []

        def work() -> None:
            with client.connection(timeout=20) as connection:
                got.append(connection.execute("SELECT 1").fetchone())

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [(1,)] * 4


def test_short_borrowers_share_what_is_freed(lakebase_env: LocalLakebase) -> None:
    with LakebaseClient(lakebase_env.config(max_size=10)) as client:

        def work() -> None:
            with client.connection() as connection:
                connection.execute("SELECT pg_sleep(0.002)")

        threads = [threading.Thread(target=work) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.stats().pool["pool_size"] < 10


def test_connections_opened_for_a_caller_are_counted(client: LakebaseClient) -> None:
    with client.connection():
        assert client.stats().pool["connections_num"] == client.stats().connections == 1


def test_a_lost_connection_is_replaced_for_nobody(client: LakebaseClient) -> None:
    for _ in range(3):
        with closing(client.pool.getconn()) as connection:
            connection.pgconn.finish()
        assert client.stats().pool["pool_size"] == 0
        assert not client.pool._workers
    with client.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
