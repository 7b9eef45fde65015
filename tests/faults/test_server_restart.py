"""The server restarts under its clients."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase

from .conftest import idle_for_a_minute, timed


@pytest.fixture
def client(lake: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lake.config()) as client:
        with client.connect(autocommit=True) as connection:
            connection.execute("CREATE TABLE restarted (n int)")
        yield client
        with client.connect(autocommit=True) as connection:
            connection.execute("DROP TABLE restarted")


def rows(client: LakebaseClient) -> object:
    with client.connection(timeout=20) as connection:
        row = connection.execute("SELECT count(*) FROM restarted").fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("downtime", [0, 0.5])
def test_idle_connections_are_replaced(lake: LocalLakebase, client: LakebaseClient, downtime: float) -> None:
    borrowed = [client.pool.getconn() for _ in range(4)]
    for connection in borrowed:
        client.pool.putconn(connection)
    idle_for_a_minute(client)
    lake.admin.crash_postgres(downtime=downtime)
    with timed(downtime + 10):
        assert rows(client) == 0


def test_a_transaction_that_was_cut_is_not_replayed(lake: LocalLakebase, client: LakebaseClient) -> None:
    attempts = 0

    def work() -> None:
        nonlocal attempts
        attempts += 1
        with client.connection() as connection:
            connection.execute("INSERT INTO restarted VALUES (1)")
            lake.admin.crash_postgres()
            connection.execute("INSERT INTO restarted VALUES (2)")

    with pytest.raises(psycopg.OperationalError):
        work()
    assert attempts == 1
    assert rows(client) == 0


def test_what_was_committed_is_there(lake: LocalLakebase, client: LakebaseClient) -> None:
    with client.connection() as connection:
        connection.execute("INSERT INTO restarted VALUES (1)")
    lake.admin.crash_postgres()
    idle_for_a_minute(client)
    assert rows(client) == 1


@pytest.mark.parametrize("name", ["starting", "recovering", "stopping"])
def test_a_server_that_is_not_ready_is_waited_for(lake: LocalLakebase, name: str) -> None:
    lake.admin.login_fault(name, times=2)
    with timed(5):
        LakebaseClient(lake.config()).connect(timeout=10).close()
