"""What a checkout costs in round trips, and that nothing of it is left for the next borrower."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.pq.abc import PGconn
from psycopg.rows import dict_row
from psycopg.types.string import StrDumper

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.connect.pools.async_pool import AsyncLakebasePool
from lakebase_provider.core.connect.pools.pool import LakebasePool
from lakebase_provider.local import LocalLakebase

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="libpq traces for psycopg on Linux alone")

#: A session as a borrower finds it; the locks, channels, cursors and tables of those before must be none.
STATE = """
    SELECT current_setting('search_path'), current_setting('statement_timeout'), current_user,
      (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
      (SELECT count(*) FROM pg_listening_channels()),
      (SELECT count(*) FROM pg_cursors WHERE is_holdable),
      (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r')
"""


class RoundTrips:
    """Counts by libpq's trace how often the server said to a pool's one connection that it is ready."""

    def __init__(self, pool: LakebasePool | AsyncLakebasePool, file: Path) -> None:
        self._file = file
        self._stream = file.open("wb")
        self._seen = 0
        self._pool = pool
        self._pgconn.trace(self._stream.fileno())

    @property
    def _pgconn(self) -> PGconn:
        return self._pool._pool[0].pgconn

    def count(self) -> int:
        """Round trips since the last call."""
        # The trace is buffered until it stops.
        self._pgconn.untrace()
        self._pgconn.trace(self._stream.fileno())
        found = self._file.read_text().count("ReadyForQuery")
        found, self._seen = found - self._seen, found
        return found

    def stop(self) -> None:
        self._pgconn.untrace()
        self._stream.close()


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config(max_size=1)) as client:
        yield client


@pytest.fixture
def trips(client: LakebaseClient, tmp_path: Path) -> Iterator[RoundTrips]:
    """Of the pool's one connection."""
    with client.connection():
        pass
    trips = RoundTrips(client.pool, tmp_path / "trace")
    yield trips
    trips.stop()


def in_autocommit(connection: LakebaseConnection) -> None:
    connection.autocommit = True
    assert connection.execute("SELECT %s::int", [1]).fetchone() == (1,)


def by_cursor(connection: LakebaseConnection) -> None:
    connection.autocommit = True
    with connection.cursor(row_factory=dict_row, binary=True) as cursor:
        assert cursor.execute("SELECT 1 AS n").fetchone() == {"n": 1}


def composed(connection: LakebaseConnection) -> None:
    connection.autocommit = True
    connection.execute(
        sql.SQL("SELECT {} FROM {}").format(sql.Identifier("relname"), sql.Identifier("pg_class"))
    )


def failing(connection: LakebaseConnection) -> None:
    connection.autocommit = True
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("SELECT 1/0")


def in_a_transaction(connection: LakebaseConnection) -> None:
    connection.execute("SELECT 1")


def committed(connection: LakebaseConnection) -> None:
    connection.execute("SELECT 1")
    connection.commit()


def serializable(connection: LakebaseConnection) -> None:
    connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    connection.read_only = True
    connection.deferrable = True
    connection.execute("SELECT 1")
    connection.rollback()


def setting(connection: LakebaseConnection) -> None:
    connection.autocommit = True
    connection.execute("SET search_path = elsewhere")


def nothing(connection: LakebaseConnection) -> None:
    connection.commit()
    connection.rollback()


@pytest.mark.parametrize(
    ("borrow", "expected"),
    [
        (nothing, 0),
        (in_autocommit, 1),
        (by_cursor, 1),
        (composed, 1),
        (failing, 1),
        (in_a_transaction, 3),  # BEGIN, the statement, ROLLBACK
        (committed, 3),
        (serializable, 3),
        (setting, 2),  # the statement, the reset
    ],
)
def test_the_round_trips_of_a_checkout(
    client: LakebaseClient, trips: RoundTrips, borrow: Callable[[LakebaseConnection], None], expected: int
) -> None:
    with closing(client.pool.getconn()) as connection:
        borrow(connection)
    assert trips.count() == expected
    with closing(client.pool.getconn()) as connection:
        assert connection.autocommit is False
        assert connection.isolation_level is connection.read_only is connection.deferrable is None
    assert trips.count() == 0


def test_a_hundred_reads_take_a_hundred_round_trips_and_one_to_prepare(
    client: LakebaseClient, trips: RoundTrips
) -> None:
    for number in range(100):
        with closing(client.pool.getconn()) as connection:
            connection.autocommit = True
            assert connection.execute("SELECT %s + 1", [number]).fetchone() == (number + 1,)
    assert trips.count() <= 101


def test_isolation_levels_do_not_leak(client: LakebaseClient) -> None:
    with closing(client.pool.getconn()) as connection:
        serializable(connection)
    with closing(client.pool.getconn()) as connection:
        assert connection.isolation_level is None
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("read committed",)


def by_server_cursor(connection: LakebaseConnection) -> None:
    with connection.cursor("kept", withhold=True) as cursor:
        cursor.execute("SELECT set_config('search_path', 'elsewhere', false)")
        cursor.fetchall()
    connection.commit()


def by_executemany(connection: LakebaseConnection) -> None:
    connection.cursor().executemany("SELECT set_config('search_path', %s, false)", [["a"], ["b"]])
    connection.commit()


def by_stream_of_rows(connection: LakebaseConnection) -> None:
    for _ in connection.cursor().stream("SELECT set_config('search_path', 'elsewhere', false)"):
        pass
    connection.commit()


def by_copy(connection: LakebaseConnection) -> None:
    with connection.cursor().copy("COPY (SELECT set_config('search_path', 'a', false)) TO STDOUT") as copy:
        list(copy)
    connection.commit()


def by_pipeline(connection: LakebaseConnection) -> None:
    connection.autocommit = True
    with connection.pipeline():
        connection.execute("SELECT 1")
        connection.execute("SET statement_timeout = '7s'")
        connection.execute("SELECT pg_advisory_lock(7)")


def by_another_cursor(connection: LakebaseConnection) -> None:
    connection.cursor_factory = psycopg.ClientCursor
    connection.execute("SELECT %s, set_config('search_path', 'elsewhere', false)", [1])
    connection.commit()


def by_bytes(connection: LakebaseConnection) -> None:
    connection.execute(b"SELECT set_config('search_path', 'elsewhere', false)")
    connection.commit()


def by_function(connection: LakebaseConnection) -> None:
    connection.autocommit = True
    connection.execute("SELECT 1")
    connection.execute("SELECT set_config('search_path', 'elsewhere', false), pg_advisory_lock(7)")
    connection.execute("SELECT 1")


def by_temporary_table(connection: LakebaseConnection) -> None:
    connection.execute("SELECT 1 AS n INTO TEMPORARY leftover")
    connection.execute("SELECT n FROM leftover")
    connection.commit()


def by_transaction(connection: LakebaseConnection) -> None:
    with connection.transaction():
        connection.execute("LISTEN gossip")
    connection.execute("SELECT 1")


def by_held_cursor(connection: LakebaseConnection) -> None:
    connection.execute("DECLARE kept CURSOR WITH HOLD FOR SELECT 1")
    connection.commit()


def by_two_statements(connection: LakebaseConnection) -> None:
    connection.autocommit = True
    connection.execute("SELECT 1; SET search_path = elsewhere")


@pytest.mark.parametrize(
    "borrow",
    [
        setting,
        by_server_cursor,
        by_executemany,
        by_stream_of_rows,
        by_copy,
        by_pipeline,
        by_another_cursor,
        by_bytes,
        by_function,
        by_temporary_table,
        by_transaction,
        by_held_cursor,
        by_two_statements,
    ],
)
def test_whatever_way_a_session_is_changed_the_next_borrower_finds_it_as_it_was(
    client: LakebaseClient, lakebase_env: LocalLakebase, borrow: Callable[[LakebaseConnection], None]
) -> None:
    with closing(client.pool.getconn()) as connection:
        first = connection.info.backend_pid
        borrow(connection)
    with closing(client.pool.getconn()) as connection:
        assert connection.info.backend_pid == first
        user = lakebase_env.env()["PGUSER"]
        assert connection.execute(STATE).fetchone() == ('"$user", public', "0", user, 0, 0, 0, 0)


def test_what_a_borrower_hangs_on_the_object_is_gone(client: LakebaseClient) -> None:
    heard: list[object] = []

    class Shout(StrDumper):
        def dump(self, obj: str) -> bytes:
            return obj.upper().encode()

    with closing(client.pool.getconn()) as connection:
        connection.row_factory = dict_row  # type: ignore[assignment] # what a careless borrower does
        connection.cursor_factory = psycopg.ClientCursor
        connection.adapters.register_dumper(str, Shout)
        connection.add_notice_handler(heard.append)
        connection.autocommit = True
        connection.execute("SELECT 1")
    with closing(client.pool.getconn()) as connection:
        assert connection.execute("SELECT %s::text", ["quiet"]).fetchone() == ("quiet",)
        assert type(connection.cursor()).__name__ == "LakebaseCursor"
        connection.execute("DO $$ BEGIN RAISE NOTICE 'psst'; END $$")
    assert not heard


def test_a_read_in_one_thread_does_not_hide_what_another_thread_does(client: LakebaseClient) -> None:
    with closing(client.pool.getconn()) as connection:
        connection.autocommit = True
        read = threading.Thread(target=connection.execute, args=("SELECT pg_sleep(0.05)",))
        read.start()
        connection.execute("SELECT set_config('search_path', 'elsewhere', false)")
        read.join()
        connection.execute("SELECT 1")
    with closing(client.pool.getconn()) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ('"$user", public',)


@asynccontextmanager
async def async_trips(client: LakebaseClient, file: Path) -> AsyncIterator[RoundTrips]:
    async with client.aconnection():
        pass
    trips = RoundTrips(await client.apool(), file)
    try:
        yield trips
    finally:
        trips.stop()
        await client.aclose()


async def test_the_round_trips_of_an_async_checkout(client: LakebaseClient, tmp_path: Path) -> None:
    async with async_trips(client, tmp_path / "trace") as trips:
        async with client.aconnection() as connection:
            await connection.set_autocommit(True)
            assert await (await connection.execute("SELECT 1")).fetchone() == (1,)
        assert trips.count() == 1
        async with client.aconnection() as connection:
            assert connection.autocommit is False
            await connection.execute("SELECT set_config('search_path', 'elsewhere', false)")
        assert trips.count() == 4  # BEGIN, the statement, COMMIT, the reset
        async with client.aconnection() as connection:
            row = await (await connection.execute("SHOW search_path")).fetchone()
            assert row == ('"$user", public',)
        assert trips.count() == 3
