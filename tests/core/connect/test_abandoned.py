"""What nobody refers to any more comes back, whoever gave up waiting for it, in whatever cycle it lies."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from psycopg_pool.pool import WaitingClient

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.connect.pools import abandoned
from lakebase_provider.core.errors import PoolExhaustedError
from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually

MOST = 2
pytestmark = pytest.mark.filterwarnings("ignore:A connection that was lent:ResourceWarning")


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config(max_size=MOST, connect_budget=10)) as client:
        yield client


@pytest.fixture
async def async_client(client: LakebaseClient) -> AsyncIterator[LakebaseClient]:
    yield client
    await client.aclose()


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No collection but those that the pool asks for."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that only references decide."""
    monkeypatch.setattr(abandoned, "find", lambda _left: None)


def borrow_all_and_one_more(client: LakebaseClient) -> None:
    kept = [client.pool.getconn() for _ in range(MOST)]
    kept.append(client.pool.getconn(timeout=0.05))


@pytest.mark.usefixtures("uncollected", "never_looks")
def test_who_gave_up_keeps_nothing(client: LakebaseClient) -> None:
    for _ in range(3):
        with pytest.raises(PoolExhaustedError) as caught:
            borrow_all_and_one_more(client)
        assert not client.pool._waiting
        assert caught.value.__context__ is None
        # The error and its frames, nothing else, keep what was borrowed.
        del caught
        with client.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.usefixtures("uncollected", "never_looks")
async def test_who_gave_up_in_asyncio_keeps_nothing(async_client: LakebaseClient) -> None:
    pool = await async_client.apool()

    async def borrow() -> None:
        kept = [await pool.getconn() for _ in range(MOST)]
        kept.append(await pool.getconn(timeout=0.05))

    for _ in range(3):
        with pytest.raises(PoolExhaustedError) as caught:
            await borrow()
        assert not pool._waiting
        assert caught.value.__context__ is None
        del caught
        async with async_client.aconnection() as connection:
            cursor = await connection.execute("SELECT 1")
            assert await cursor.fetchone() == (1,)


class Timeout(BaseException):
    """As Airflow's task timeout, which is no Exception."""


@pytest.mark.usefixtures("never_looks")
def test_who_is_interrupted_leaves_the_queue(client: LakebaseClient, monkeypatch: pytest.MonkeyPatch) -> None:
    lent = [client.pool.getconn() for _ in range(MOST)]

    def interrupted(*_: Any) -> None:
        assert client.pool._waiting
        raise Timeout

    monkeypatch.setattr(WaitingClient, "wait", interrupted)
    with pytest.raises(Timeout):
        client.pool.getconn()
    assert not client.pool._waiting
    for connection in lent:
        connection.close()
    assert len(client.pool._pool) == MOST


@pytest.mark.usefixtures("never_looks")
def test_errors_that_are_kept_keep_connections_and_the_message_says_so(client: LakebaseClient) -> None:
    errors: list[Exception] = []

    def work() -> None:
        connection = client.pool.getconn()
        try:
            connection.execute("SELECT 1/0")
        except psycopg.Error as error:
            errors.append(error)

    for _ in range(MOST):
        work()
    with pytest.raises(
        PoolExhaustedError, match=r"(?s)lent at .*test_abandoned.*An error that is kept keeps"
    ) as caught:
        client.pool.getconn(timeout=0.05)
    del caught
    errors.clear()
    gc.collect()
    lent = [client.pool.getconn() for _ in range(MOST)]
    for connection in lent:
        connection.close()


def drop_in_a_cycle(client: LakebaseClient) -> None:
    connection = client.pool.getconn()
    try:
        connection.execute("SELECT 1/0")
    except psycopg.Error as error:
        kept = error
        assert kept.__traceback__ is not None


@pytest.mark.usefixtures("uncollected")
def test_a_cycle_is_found_before_a_borrower_gives_up(client: LakebaseClient) -> None:
    for _ in range(3 * MOST):
        drop_in_a_cycle(client)
    with client.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.usefixtures("uncollected")
async def test_a_cycle_is_found_in_asyncio(async_client: LakebaseClient) -> None:
    pool = await async_client.apool()

    async def drop() -> None:
        connection = await pool.getconn()
        try:
            await connection.execute("SELECT 1/0")
        except psycopg.Error as error:
            kept = error
            assert kept.__traceback__ is not None

    for _ in range(3 * MOST):
        await drop()
    async with async_client.aconnection() as connection:
        await connection.execute("SELECT 1")


def test_collections_are_few(client: LakebaseClient, monkeypatch: pytest.MonkeyPatch) -> None:
    collections: list[int] = []
    monkeypatch.setattr(abandoned, "_began", -1e9)
    monkeypatch.setattr(abandoned, "_LEAST_PAUSE", 1e6)
    monkeypatch.setattr(abandoned, "_per_object", 0.0)
    monkeypatch.setattr(gc, "collect", lambda: collections.append(1))
    lent = [client.pool.getconn() for _ in range(MOST)]
    for _ in range(5):
        with pytest.raises(PoolExhaustedError):
            client.pool.getconn(timeout=0.01)
    assert len(collections) == 1
    for connection in lent:
        connection.close()


@pytest.mark.usefixtures("uncollected")
def test_who_would_give_up_before_the_next_collection_is_due_collects(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(MOST):
        drop_in_a_cycle(client)
    # As after one that took long, in a process of few objects.
    monkeypatch.setattr(abandoned, "_due", 1e9)
    monkeypatch.setattr(abandoned, "_per_object", 0.0)
    monkeypatch.setattr(abandoned, "_began", -1e9)
    with client.connection(timeout=1) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_after_a_quick_collection_a_borrower_looks_when_the_next_may_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of few objects, as in a script, or in one that has frozen them.
    monkeypatch.setattr(gc, "collect", lambda: 0)
    monkeypatch.setattr(abandoned, "_per_object", 0.0)
    monkeypatch.setattr(abandoned, "_began", -1e9)
    monkeypatch.setattr(abandoned, "_due", 0.0)
    monkeypatch.setattr(abandoned, "_LEAST_PAUSE", 1e6)
    abandoned.find(left=10.0)
    assert abandoned.seconds_until_due(1e9) > 9e5


@pytest.mark.parametrize(("timeout", "collections"), [(0.05, 0), (2.0, 1)])
def test_no_deadline_is_overrun_by_a_collection(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch, timeout: float, collections: int
) -> None:
    collected: list[int] = []
    monkeypatch.setattr(abandoned, "_began", -1e9)
    monkeypatch.setattr(abandoned, "_due", 0.0)
    monkeypatch.setattr(gc, "collect", lambda: collected.append(1))
    # A second for all objects of this process, as in one that has millions.
    monkeypatch.setattr(abandoned, "_per_object", 1.0 / len(gc.get_objects()))
    lent = [client.pool.getconn() for _ in range(MOST)]
    with pytest.raises(PoolExhaustedError):
        client.pool.getconn(timeout=timeout)
    assert len(collected) == collections
    for connection in lent:
        connection.close()


def test_who_need_not_wait_collects_nothing(client: LakebaseClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abandoned, "find", lambda _left: pytest.fail("collected"))
    lent = [client.pool.getconn() for _ in range(MOST)]
    got: list[int] = []

    def work() -> None:
        with client.connection():
            got.append(1)

    thread = threading.Thread(target=work)
    monkeypatch.setattr(abandoned, "_GRACE", 10.0)
    thread.start()
    eventually(lambda: bool(client.pool._waiting))
    for connection in lent:
        connection.close()
    thread.join()
    assert got
