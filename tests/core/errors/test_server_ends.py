"""What the server ends of its own accord is told alike, by whichever way the statement came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.load.load import load
from lakebase_provider.core.bulk.load.transfer.transfer import PostgresQuery
from lakebase_provider.core.bulk.read.batches import read_batches
from lakebase_provider.core.errors import (
    IdleInTransactionError,
    LakebaseError,
    LoadError,
    LoadInterruptedError,
    SessionEndedError,
    StatementTimeoutError,
)
from lakebase_provider.core.errors.sqlstates import retry_helps
from lakebase_provider.local import LocalLakebase

SLOW = "SELECT 1 AS i FROM pg_sleep(60)"


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config(max_size=3)) as client:
        with client.connection() as connection:
            connection.execute("DROP TABLE IF EXISTS ends; CREATE TABLE ends (i int)")
        yield client


@pytest.fixture
def hasty(lakebase_env: LocalLakebase, client: LakebaseClient) -> Iterator[LakebaseClient]:
    """A client whose statements must be short."""
    with LakebaseClient(lakebase_env.config(max_size=3, statement_timeout=0.1)) as hasty:
        yield hasty


def execute(client: LakebaseClient, _folder: Path) -> None:
    with client.connection() as connection:
        connection.execute(SLOW)


def stream(client: LakebaseClient, _folder: Path) -> None:
    with client.connection() as connection:
        list(connection.cursor().stream(SLOW))


def declare(client: LakebaseClient, _folder: Path) -> None:
    with client.connection() as connection, connection.cursor("c") as cursor:
        cursor.execute(SLOW).fetchall()


def pipeline(client: LakebaseClient, _folder: Path) -> None:
    with client.connection() as connection, connection.pipeline():
        connection.execute(SLOW).fetchall()


WAYS: dict[str, Callable[[LakebaseClient, Path], Any]] = {
    "execute": execute,
    "stream": stream,
    "server cursor": declare,
    "pipeline": pipeline,
    "transaction": lambda client, _: client.run_transaction(lambda c: c.execute(SLOW)),
    "fetch": lambda client, _: client.fetch_arrow(SLOW),
    "iterate": lambda client, _: list(client.iter_rows(SLOW)),
    "unload": lambda client, folder: client.unload(SLOW, folder / "to.parquet"),
    "unload csv": lambda client, folder: client.unload(SLOW, folder / "to.csv", format="csv"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_statement_that_takes_too_long(hasty: LakebaseClient, tmp_path: Path, way: str) -> None:
    with pytest.raises(StatementTimeoutError, match="due to statement timeout") as caught:
        WAYS[way](hasty, tmp_path)
    # Code that knows psycopg alone goes on working.
    assert isinstance(caught.value, psycopg.errors.QueryCanceled)
    assert caught.value.sqlstate == "57014"
    assert caught.value.diag.message_primary == "canceling statement due to statement timeout"
    assert "statement_timeout" in caught.value.remedy
    assert retry_helps(caught.value) is False


async def test_for_asyncio(hasty: LakebaseClient) -> None:
    with pytest.raises(StatementTimeoutError) as caught:
        async with hasty.aconnection() as connection:
            await connection.execute(SLOW)
    assert isinstance(caught.value, psycopg.errors.QueryCanceled)
    await hasty.aclose()


def test_in_an_engine(hasty: LakebaseClient) -> None:
    engine = hasty.engine()
    with pytest.raises(OperationalError) as caught, engine.connect() as connection:
        connection.execute(text(SLOW))
    assert isinstance(caught.value.orig, StatementTimeoutError)
    engine.dispose()


def test_a_load_says_what_to_do_about_a_load(hasty: LakebaseClient, client: LakebaseClient) -> None:
    with client.connection() as source, hasty.connection() as connection:
        source.execute("SET statement_timeout = '100ms'")
        with pytest.raises(LoadError) as caught:
            load(connection, PostgresQuery(source, SLOW), "ends")
    assert "statement timeout" in caught.value.message
    assert caught.value.remedy == "Raise statement_timeout, or load less at once."
    assert not caught.value.retryable


def test_a_cancelled_statement_is_none_that_took_too_long(client: LakebaseClient) -> None:
    with client.connection() as connection, pytest.raises(psycopg.errors.QueryCanceled) as caught:
        connection.execute("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)")
    assert not isinstance(caught.value, LakebaseError)


#: By the setting: the error, whether a retry may help, and what the remedy names.
IDLE: dict[str, tuple[type[LakebaseError], type[psycopg.Error]]] = {
    "idle_in_transaction_session_timeout": (
        IdleInTransactionError,
        psycopg.errors.IdleInTransactionSessionTimeout,
    ),
    "idle_session_timeout": (SessionEndedError, psycopg.errors.IdleSessionTimeout),
}


def idle(client: LakebaseClient, connection: psycopg.Connection[Any], setting: str) -> None:
    """Let the session idle until the server has ended it."""
    pid = connection.info.backend_pid
    connection.execute(f"SET {setting} = '10ms'".encode())
    if setting == "idle_session_timeout":
        connection.commit()
    gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
    with client.connect(autocommit=True) as observer:
        while observer.execute(gone, (pid,)).fetchone() == (False,):
            pass


@pytest.mark.parametrize("setting", IDLE)
def test_a_session_that_idles(client: LakebaseClient, setting: str) -> None:
    ours, theirs = IDLE[setting]
    with client.connection() as connection:
        idle(client, connection, setting)
        with pytest.raises(ours) as caught:
            connection.execute("SELECT 1")
    assert isinstance(caught.value, theirs)
    assert setting in caught.value.remedy
    assert retry_helps(caught.value) is True


@pytest.mark.parametrize("setting", IDLE)
def test_a_load_whose_session_has_idled(client: LakebaseClient, setting: str) -> None:
    with client.connection() as connection:
        idle(client, connection, setting)
        with pytest.raises(LoadInterruptedError) as caught:
            load(connection, [(1,)], "ends")
    assert "timeout" in caught.value.message
    assert setting in caught.value.remedy


#: A server older than 17 has no such timeout, and says so at our word.
_AS_IF = (
    "DO $$ BEGIN RAISE 'terminating connection due to transaction timeout' USING ERRCODE = '25P04'; END $$"
)


def test_a_transaction_that_takes_too_long(client: LakebaseClient) -> None:
    with client.connection() as connection:
        has_one = connection.info.server_version >= 170_000
        if has_one:
            connection.execute("SET transaction_timeout = '50ms'")
        with pytest.raises(StatementTimeoutError) as caught:
            connection.execute("SELECT pg_sleep(60)" if has_one else _AS_IF)
    assert isinstance(caught.value, psycopg.errors.TransactionTimeout)
    assert "transaction_timeout" in caught.value.remedy


def test_a_session_that_somebody_ends(lakebase_env: LocalLakebase, client: LakebaseClient) -> None:
    def end(connection: psycopg.Connection[Any]) -> None:
        lakebase_env.admin.execute(f"SELECT pg_terminate_backend({connection.info.backend_pid}, 5000)")

    with client.connection() as connection:
        end(connection)
        with pytest.raises(SessionEndedError) as caught:
            connection.execute("SELECT 1")
    assert isinstance(caught.value, psycopg.errors.AdminShutdown)
    assert "new connection" in caught.value.remedy
    assert retry_helps(caught.value) is True
    with client.connection() as connection:
        end(connection)
        with pytest.raises(LoadInterruptedError) as interrupted:
            load(connection, [(1,)], "ends")
    assert "administrator command" in interrupted.value.message
    # The pool does not lend it again.
    with client.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_while_rows_come(client: LakebaseClient) -> None:
    query = (
        "SELECT i, repeat('x', 1000), CASE WHEN i = 5000 THEN pg_terminate_backend(pg_backend_pid()) END"
        " FROM generate_series(1, 10000) i"
    )

    def read_on() -> None:
        with client.connection() as connection, read_batches(connection, query, batch_rows=10) as batches:
            list(batches)

    with pytest.raises(LoadInterruptedError, match="administrator command"):
        read_on()
