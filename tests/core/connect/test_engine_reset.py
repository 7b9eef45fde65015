"""What one borrower of an engine left in the session is not there for the next one; what is for all, is."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterator
from inspect import isawaitable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.adapt import Loader, PyFormat
from psycopg.pq import Format
from psycopg.rows import dict_row, namedtuple_row
from psycopg.types.string import StrDumper
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import StaticPool

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase

#: All of them with one connection, so that who comes next has the same session.
ONE: dict[str, Any] = {"pool_size": 1, "max_overflow": 0}
LEFT = (
    "SELECT current_setting('search_path') = '\"$user\", public', current_setting('role'),"
    " (SELECT count(*) FROM pg_class WHERE relname = 'left_behind' AND relpersistence = 't'),"
    " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),"
    " (SELECT count(*) FROM pg_listening_channels())"
)
CLEAN = (True, "none", 0, 0, 0)
DIRT = (
    "SET search_path TO pg_catalog",
    "CREATE TEMP TABLE left_behind (i int)",
    "SELECT pg_advisory_lock(4711)",
    "LISTEN left_behind",
)


class Front:
    """An engine of either kind: statements, each block of them in one connection, committed."""

    def __init__(self, client: LakebaseClient, kind: str, **arguments: Any) -> None:
        self._async: AsyncEngine | None = client.async_engine(**arguments) if kind == "async" else None
        self.engine = self._async.sync_engine if self._async else client.engine(**arguments)

    async def run(self, *statements: str) -> Any:
        """The row of the last statement, if it has any."""
        if self._async is None:
            with self.engine.begin() as connection:
                for statement in statements:
                    result = connection.exec_driver_sql(statement)
                return tuple(result.one()) if result.returns_rows else None
        async with self._async.begin() as lent:
            for statement in statements:
                result = await lent.exec_driver_sql(statement)
            return tuple(result.one()) if result.returns_rows else None

    async def with_driver(self, call: Callable[[Any], Any]) -> None:
        """Call with what the event of a pool is given."""
        if self._async is None:
            with self.engine.connect() as connection:
                call(connection.connection.driver_connection)
        else:
            async with self._async.connect() as lent:
                call((await lent.get_raw_connection()).driver_connection)


@pytest.fixture
async def client(lakebase_env: LocalLakebase) -> AsyncIterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config()) as client:
        yield client
        await client.aclose()


@pytest.fixture(params=["sync", "async"])
async def make(client: LakebaseClient, request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Front]]:
    made: list[Front] = []

    def make(**arguments: Any) -> Front:
        made.append(Front(client, request.param, **{**ONE, **arguments}))
        return made[-1]

    yield make
    for front in made:
        if front._async is None:
            front.engine.dispose()
        else:
            await front._async.dispose()


async def test_nothing_is_left_of_the_borrower_before(make: Callable[..., Front]) -> None:
    front = make()
    pid = await front.run("SELECT pg_backend_pid()")
    for _ in range(2):
        await front.run(*DIRT)
        assert await front.run(LEFT) == CLEAN
        assert await front.run("SELECT pg_backend_pid()") == pid


async def test_what_a_borrower_keeps_has_no_session(make: Callable[..., Front]) -> None:
    front = make()
    pid = await front.run("SELECT pg_backend_pid()")
    kept: list[Any] = []
    await front.with_driver(lambda driver: kept.extend([driver, driver.cursor(), driver.pgconn]))
    driver, cursor, pgconn = kept
    for use in (driver.execute, cursor.execute):
        with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
            await answered(use("SELECT 1"))
    with pytest.raises(psycopg.OperationalError):
        pgconn.send_query(b"SELECT 1")
    await answered(driver.close())
    assert await front.run("SELECT pg_backend_pid()") == pid


async def answered(found: Any) -> None:
    if isawaitable(found):
        await found


def test_a_cursor_outlives_the_connection_that_made_it_for_nobody(client: LakebaseClient) -> None:
    engine = client.engine(**ONE)
    cursor = engine.raw_connection().cursor()
    gc.collect()
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
            cursor.execute("SET application_name = 'poisoned'")
    engine.dispose()


async def test_sqlalchemys_own_switch_leaves_it(make: Callable[..., Front]) -> None:
    front = make(pool_reset_on_return=None)
    await front.run(*DIRT)
    assert await front.run(LEFT) != CLEAN


@pytest.fixture
def fixed_role(lakebase_env: LocalLakebase) -> Iterator[None]:
    user = lakebase_env.env()["PGUSER"]
    with psycopg.connect(lakebase_env.superuser_dsn, autocommit=True) as admin:
        admin.execute("CREATE ROLE fixed_role")
        admin.execute(sql.SQL("GRANT fixed_role TO {}").format(sql.Identifier(user)))
        yield
        admin.execute("DROP ROLE fixed_role")


@pytest.mark.usefixtures("fixed_role")
async def test_what_a_listener_of_connect_sets_stays(make: Callable[..., Front]) -> None:
    front = make()

    @event.listens_for(front.engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute('SET search_path TO information_schema, "it\'s"')
        cursor.execute("SET work_mem TO '7MB'")
        cursor.execute("SET ROLE fixed_role")
        cursor.close()
        connection.autocommit = False

    shown = "SELECT current_setting('search_path'), current_setting('work_mem'), current_setting('role')"
    expected = ('information_schema, "it\'s"', "7MB", "fixed_role")
    for _ in range(3):
        assert await front.run(shown) == expected
        await front.run("SET search_path TO pg_catalog", "SET work_mem TO '9MB'", "RESET ROLE")

    @event.listens_for(front.engine, "checkout")
    def of_a_tenant(connection: Any, _record: Any, _fairy: Any) -> None:
        connection.cursor().execute("SET lakebase.tenant TO '42'")

    for _ in range(2):
        assert await front.run("SELECT current_setting('lakebase.tenant')") == ("42",)


async def test_a_reader_costs_no_round_trip_more(make: Callable[..., Front], tmp_path: Path) -> None:
    front = make()
    await front.run("SELECT 1")
    with (tmp_path / "trace").open("wb") as stream:
        await front.with_driver(lambda driver: driver.pgconn.trace(stream.fileno()))
        for _ in range(3):
            await front.run("SELECT 1")
        await front.with_driver(lambda driver: driver.pgconn.untrace())
    trips = (tmp_path / "trace").read_text().count("ReadyForQuery")
    # BEGIN, SELECT, COMMIT and the ping of each, and the second ping of with_driver.
    assert trips == 3 * 4 + 1
    assert "DISCARD" not in (tmp_path / "trace").read_text()


def test_a_transaction_left_open_takes_one_round_trip(client: LakebaseClient, tmp_path: Path) -> None:
    engine = client.engine(**ONE, pool_pre_ping=False)
    raw = engine.raw_connection()
    raw.cursor().execute("CREATE TEMP TABLE left_behind (i int)")
    driver: Any = raw.driver_connection
    with (tmp_path / "trace").open("wb") as stream:
        driver.pgconn.trace(stream.fileno())
        raw.close()
        # The session has moved on.
        raw = engine.raw_connection()
        driver = raw.driver_connection
        driver.pgconn.untrace()
        raw.close()
    assert (tmp_path / "trace").read_text().count("ReadyForQuery") == 1
    engine.dispose()


def test_commit_on_return_commits_first(client: LakebaseClient) -> None:
    with client.connection() as connection:
        connection.execute("DROP TABLE IF EXISTS committed")
    engine = client.engine(pool_reset_on_return="commit", **ONE)
    raw = engine.raw_connection()
    raw.cursor().execute("CREATE TABLE committed (i int)")
    raw.close()
    with client.connection() as connection:
        connection.execute("DROP TABLE committed")
    engine.dispose()


def test_connections_of_others_are_left_alone(client: LakebaseClient, lakebase_env: LocalLakebase) -> None:
    engine = client.engine(creator=lambda: psycopg.connect(lakebase_env.superuser_dsn), **ONE)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE left_behind (i int)")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO left_behind VALUES (1)")
    engine.dispose()


def test_a_loan_of_the_pool_is_reset_and_handed_back_without_the_engines_settings(
    client: LakebaseClient,
) -> None:
    engine = client.engine(creator=client.pool.getconn, **ONE)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.execute("SET work_mem TO '7MB'")
        connection.commit()

    for _ in range(2):
        with engine.begin() as connection:
            assert connection.exec_driver_sql("SHOW work_mem").scalar() == "7MB"
            connection.exec_driver_sql("SET work_mem TO '9MB'")
    engine.dispose()
    with client.connection() as borrowed:
        assert borrowed.execute("SHOW work_mem").fetchone() not in [("7MB",), ("9MB",)]


def test_a_static_pool_is_reset_too(client: LakebaseClient) -> None:
    engine = client.engine(poolclass=StaticPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE left_behind (i int)")
    with engine.begin() as connection:
        assert connection.exec_driver_sql(LEFT).one() == CLEAN
    engine.dispose()


def test_a_session_that_cannot_be_reset_is_not_handed_on(client: LakebaseClient) -> None:
    engine = client.engine(**ONE)
    raw = engine.raw_connection()
    driver: Any = raw.driver_connection
    pid = driver.info.backend_pid
    driver.pgconn.send_query(b"SELECT pg_sleep(30)")
    raw.close()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() != pid
    engine.dispose()


class Shout(StrDumper):
    """What a borrower may register."""

    def dump(self, obj: str) -> bytes:
        return obj.upper().encode()


class Evil(Loader):
    """The same for results."""

    def load(self, data: Buffer) -> str:
        return "evil"


def by_attributes(driver: Any) -> None:
    # What the setters of either kind of connection come to, without a coroutine.
    driver._autocommit, driver._isolation_level = True, psycopg.IsolationLevel.SERIALIZABLE
    driver._read_only = driver._deferrable = True
    driver.row_factory = dict_row
    driver.cursor_factory = driver.server_cursor_factory = None
    driver.prepare_threshold, driver.prepared_max = 0, 3
    driver.mine = driver.execute = None


def by_adapters(driver: Any) -> None:
    driver.adapters.register_dumper(str, Shout)
    driver.adapters.register_loader("text", Evil)
    driver.adapters.types.add(psycopg.types.TypeInfo("evil", 25, 0))


def by_handlers(driver: Any) -> None:
    driver.add_notice_handler(print)
    driver.add_notify_handler(print)


def object_of(driver: Any) -> Any:
    names = ("row_factory", "cursor_factory", "server_cursor_factory", "autocommit", "isolation_level")
    names += ("read_only", "deferrable", "prepare_threshold", "prepared_max")
    registered = driver.adapters
    return (
        {name: getattr(driver, name) for name in names},
        set(vars(driver)),
        (list(driver._notice_handlers), list(driver._notify_handlers)),
        registered.get_dumper(str, PyFormat.AUTO),
        registered.get_loader(25, Format.TEXT),
        registered.types[25].name,
    )


@pytest.mark.parametrize("dirt", [by_attributes, by_adapters, by_handlers])
@pytest.mark.parametrize("statement", [True, False], ids=["used", "unused"])
async def test_what_a_borrower_sets_on_the_object_is_gone(
    make: Callable[..., Front], dirt: Callable[[Any], None], statement: bool
) -> None:
    front = make()
    heard: list[object] = []

    @event.listens_for(front.engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        driver = getattr(connection, "driver_connection", connection)
        driver.row_factory = namedtuple_row
        driver.prepare_threshold = 9
        driver.add_notice_handler(heard.append)
        driver.adapters.register_loader("int4", Evil)

    seen: list[Any] = []
    await front.with_driver(lambda driver: seen.append(object_of(driver)))
    assert heard.append in seen[0][2][0]
    for _ in range(2):
        if statement:
            await front.run("CREATE TEMP TABLE mess (i int)")
        await front.with_driver(dirt)
        await front.with_driver(lambda driver: seen.append(object_of(driver)))
        assert seen[-1] == seen[0]
        assert tuple(await front.run("SELECT 1")) == ("evil",)


async def test_the_isolation_level_of_an_engine_stays(make: Callable[..., Front]) -> None:
    front = make(isolation_level="SERIALIZABLE")
    for _ in range(3):
        assert await front.run("SHOW transaction_isolation") == ("serializable",)
        await front.with_driver(by_attributes)
