"""A statement that one borrower prepared is unknown to the next one, and harms nobody."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import ExecStatus
from sqlalchemy.exc import ProgrammingError

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.local import LocalLakebase
from tests.core.connect.test_session_reset import RoundTrips

PREPARED = "SELECT count(*) FROM pg_prepared_statements"
#: As often as psycopg runs a statement before it prepares it.
OFTEN = 7


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config(max_size=1)) as client:
        with client.connection() as connection:
            connection.execute("DROP TABLE IF EXISTS altered")
            connection.execute("CREATE TABLE altered AS SELECT 1 AS id")
        yield client


@pytest.fixture
async def async_client(client: LakebaseClient) -> AsyncIterator[LakebaseClient]:
    yield client
    await client.aclose()


def by_statement(connection: LakebaseConnection) -> None:
    connection.execute("PREPARE secret AS SELECT 'of the borrower before'")


def in_a_transaction(connection: LakebaseConnection) -> None:
    connection.autocommit = False
    by_statement(connection)
    connection.execute("SELECT 1")


def in_a_failed_transaction(connection: LakebaseConnection) -> None:
    connection.autocommit = True
    by_statement(connection)
    connection.autocommit = False
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("SELECT 1/0")


def by_bytes(connection: LakebaseConnection) -> None:
    connection.execute(b"SELECT 1; PREPARE secret AS SELECT 2")


def by_function(connection: LakebaseConnection) -> None:
    connection.execute("DO $$ BEGIN EXECUTE 'PREPARE secret AS SELECT 3'; END $$")


def by_pipeline(connection: LakebaseConnection) -> None:
    with connection.pipeline():
        connection.execute("SELECT 1")
        by_statement(connection)


def by_psycopg(connection: LakebaseConnection) -> None:
    for _ in range(OFTEN):
        connection.execute("SELECT id FROM altered").fetchall()


def by_psycopg_in_a_transaction(connection: LakebaseConnection) -> None:
    connection.autocommit = False
    by_psycopg(connection)


def by_psycopg_at_once(connection: LakebaseConnection) -> None:
    connection.execute("INSERT INTO altered VALUES (%s)", [1], prepare=True)


def by_executemany(connection: LakebaseConnection) -> None:
    connection.cursor().executemany("INSERT INTO altered VALUES (%s)", [[1], [2]])


def by_libpq(connection: LakebaseConnection) -> None:
    connection.pgconn.exec_(b"PREPARE secret AS SELECT 4")


def by_libpqs_own(connection: LakebaseConnection) -> None:
    connection.pgconn.prepare(b"secret", b"SELECT 5")


def by_libpq_step_by_step(connection: LakebaseConnection) -> None:
    connection.execute("SELECT 1")
    connection.pgconn.send_query_params(b"PREPARE secret AS SELECT 6", None)
    while connection.pgconn.get_result() is not None:
        pass


def by_a_cursors_libpq(connection: LakebaseConnection) -> None:
    kept = connection.cursor()
    kept._pgconn.exec_params(b"PREPARE secret AS SELECT 7", None)


@pytest.mark.parametrize(
    "prepare",
    [
        by_libpq,
        by_libpqs_own,
        by_libpq_step_by_step,
        by_a_cursors_libpq,
        by_statement,
        in_a_transaction,
        in_a_failed_transaction,
        by_bytes,
        by_function,
        by_pipeline,
        by_psycopg,
        by_psycopg_in_a_transaction,
        by_psycopg_at_once,
        by_executemany,
    ],
)
def test_no_prepared_statement_is_there_for_the_next_borrower(
    client: LakebaseClient, prepare: Callable[[LakebaseConnection], None]
) -> None:
    with closing(client.pool.getconn()) as connection:
        connection.autocommit = True
        before = connection.info.backend_pid
        prepare(connection)
        if connection.pgconn.transaction_status != psycopg.pq.TransactionStatus.INERROR:
            assert connection.execute(PREPARED, prepare=False).fetchone() != (0,)
    with closing(client.pool.getconn()) as connection:
        assert connection.info.backend_pid == before
        assert connection.execute(PREPARED).fetchone() == (0,)
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            connection.execute("EXECUTE secret")
        connection.rollback()
        # What psycopg believes to be prepared is what the server knows.
        connection.autocommit = True
        prepare(connection)


async def test_nor_for_the_next_one_of_asyncio(async_client: LakebaseClient) -> None:
    pool = await async_client.apool()
    for prepare in (["PREPARE secret AS SELECT 1"], ["SELECT id FROM altered"] * OFTEN):
        for _ in range(2):
            connection = await pool.getconn()
            await connection.set_autocommit(True)
            assert await (await connection.execute(PREPARED)).fetchone() == (0,)
            for statement in prepare:
                await connection.execute(statement)
            assert await (await connection.execute(PREPARED)).fetchone() != (0,)
            await connection.close()


async def test_nor_for_the_next_one_of_asyncio_by_libpq(async_client: LakebaseClient) -> None:
    pool = await async_client.apool()
    for _ in range(2):
        connection = await pool.getconn()
        assert connection.pgconn.exec_(b"PREPARE secret AS SELECT 1").status == ExecStatus.COMMAND_OK
        await connection.close()


def test_nor_for_the_next_one_of_an_engine_by_libpq(client: LakebaseClient) -> None:
    engine = client.engine(pool_size=1, max_overflow=0)
    try:
        for _ in range(2):
            with engine.connect() as connection:
                assert connection.exec_driver_sql(PREPARED).scalar() == 0
            with engine.connect() as connection:
                driver: Any = connection.connection.driver_connection
                assert driver.pgconn.prepare(b"secret", b"SELECT 1").status == ExecStatus.COMMAND_OK
    finally:
        engine.dispose()


def test_no_handler_of_libpqs_hears_the_next_borrower(client: LakebaseClient) -> None:
    heard: list[object] = []
    with closing(client.pool.getconn()) as connection:
        connection.pgconn.notify_handler = heard.append
        connection.pgconn.notice_handler = heard.append
    with closing(client.pool.getconn()) as connection:
        connection.autocommit = True
        connection.execute("LISTEN gossip")
        connection.execute("NOTIFY gossip")
        connection.execute("DO $$ BEGIN RAISE NOTICE 'psst'; END $$")
    assert not heard


@pytest.mark.skipif(sys.platform != "linux", reason="libpq traces for psycopg on Linux alone")
def test_forgetting_them_costs_no_round_trip_of_its_own(client: LakebaseClient, tmp_path: Path) -> None:
    def trips_of(borrow: Callable[[LakebaseConnection], Any]) -> int:
        with closing(client.pool.getconn()) as connection:
            connection.autocommit = True
            borrow(connection)
        return trips.count()

    trips = RoundTrips(client.pool, tmp_path / "trace")
    assert trips_of(by_statement) == 2  # the statement, the reset
    assert trips_of(lambda connection: connection.execute("SELECT 1")) == 1
    # Few statements of each of many borrowers are prepared for nobody.
    assert sum(trips_of(lambda connection: connection.execute("SELECT 1")) for _ in range(20)) == 20
    trips.stop()


def alter(lakebase: LocalLakebase, width: int) -> None:
    with LakebaseClient(lakebase.config()) as other, other.connection() as connection:
        connection.execute(f"ALTER TABLE altered ADD COLUMN c{width} int".encode())


def test_a_read_of_a_table_that_was_altered_meanwhile_is_run_again(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    with closing(client.pool.getconn()) as connection:
        for width, autocommit in enumerate([True, False], start=2):
            connection.autocommit = autocommit
            for _ in range(OFTEN):
                connection.execute("SELECT * FROM altered").fetchall()
                connection.commit()
            alter(lakebase_env, width)
            # The first statement of a transaction is as good as one outside: nothing is lost with it.
            row = connection.execute("SELECT * FROM altered").fetchone()
            assert row is not None
            assert len(row) == width
            connection.commit()


@pytest.mark.parametrize("query", ["SELECT *, pg_advisory_unlock_all() FROM altered", b"TABLE altered"])
def test_so_is_one_of_which_less_is_known(
    client: LakebaseClient, lakebase_env: LocalLakebase, query: Any
) -> None:
    with client.connection() as connection:
        for _ in range(OFTEN):
            connection.execute(query).fetchall()
            connection.commit()
        alter(lakebase_env, 2)
        (row,) = connection.execute(query).fetchall()
        assert row[:2] == (1, None)


async def test_a_read_of_asyncio_is_run_again(
    async_client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    async with async_client.aconnection() as connection:
        await connection.set_autocommit(True)
        for _ in range(OFTEN):
            await connection.execute("SELECT * FROM altered")
        alter(lakebase_env, 2)
        assert await (await connection.execute("SELECT * FROM altered")).fetchone() == (1, None)


def test_within_a_transaction_it_fails_and_the_next_one_succeeds(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    with closing(client.pool.getconn()) as connection:
        for _ in range(OFTEN):
            connection.execute("SELECT * FROM altered").fetchall()
            connection.commit()
        alter(lakebase_env, 2)
        connection.execute("INSERT INTO altered VALUES (2)")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cached plan"):
            connection.execute("SELECT * FROM altered")
        connection.rollback()
        assert connection.execute("SELECT * FROM altered").fetchall() == [(1, None)]


def test_what_writes_is_not_run_again_but_fails_once(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    with closing(client.pool.getconn()) as connection:
        connection.autocommit = True
        for _ in range(OFTEN):
            connection.execute("INSERT INTO altered (id) VALUES (1) RETURNING *")
        alter(lakebase_env, 2)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cached plan"):
            connection.execute("INSERT INTO altered (id) VALUES (1) RETURNING *")
        assert connection.execute("INSERT INTO altered (id) VALUES (1) RETURNING *").fetchone() == (1, None)


def test_the_reads_of_borrower_after_borrower_survive_an_altered_table(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    for width in (1, 2):
        for _ in range(OFTEN):
            with client.connection() as connection:
                row = connection.execute("SELECT * FROM altered").fetchone()
                assert row is not None
                assert len(row) == width
        if width == 1:
            alter(lakebase_env, 2)


def test_nor_for_the_next_one_of_an_engine(client: LakebaseClient) -> None:
    engine = client.engine(pool_size=1, max_overflow=0)
    try:
        for _ in range(2):
            with engine.begin() as connection:
                pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
                connection.exec_driver_sql("PREPARE secret AS SELECT 'of the borrower before'")
            with engine.connect() as connection:
                assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() == pid
                assert connection.exec_driver_sql(PREPARED).scalar() == 0
                with pytest.raises(ProgrammingError, match="does not exist"):
                    connection.exec_driver_sql("EXECUTE secret")
            # What psycopg prepares of itself is known to it as long as to the server.
            with engine.begin() as connection:
                for _ in range(OFTEN):
                    connection.exec_driver_sql("SELECT id FROM altered").all()
                assert connection.exec_driver_sql(PREPARED).scalar() != 0
            with engine.connect() as connection:
                assert connection.exec_driver_sql(PREPARED).scalar() == 0
    finally:
        engine.dispose()


async def test_nor_for_the_next_one_of_an_engine_for_asyncio(async_client: LakebaseClient) -> None:
    engine = async_client.async_engine(pool_size=1, max_overflow=0)
    try:
        for _ in range(2):
            async with engine.begin() as connection:
                await connection.exec_driver_sql("PREPARE secret AS SELECT 'of the borrower before'")
                for _ in range(OFTEN):
                    await connection.exec_driver_sql("SELECT id FROM altered")
            async with engine.connect() as connection:
                assert (await connection.exec_driver_sql(PREPARED)).scalar() == 0
                with pytest.raises(ProgrammingError, match="does not exist"):
                    await connection.exec_driver_sql("EXECUTE secret")
    finally:
        await engine.dispose()
