"""SQLAlchemy's engines take what SQLAlchemy's do, or say why not; the token stays where it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from sqlalchemy import JSON, Engine, column, event, literal, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool, StaticPool

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.local import LocalLakebase


@pytest.fixture
async def client(lakebase_env: LocalLakebase) -> AsyncIterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config()) as client:
        yield client
        await client.aclose()


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Front:
    """An engine of either kind, with what the tests do on it."""

    def __init__(self, client: LakebaseClient, kind: str, **arguments: Any) -> None:
        self._async: AsyncEngine | None = client.async_engine(**arguments) if kind == "async" else None
        self.engine: Engine = self._async.sync_engine if self._async else client.engine(**arguments)

    async def at_once(self, times: int, statement: Any) -> list[Any]:
        """A statement's cell, on as many connections that are open at the same time."""
        found = []
        if self._async is None:
            connections = [self.engine.connect() for _ in range(times)]
            for connection in connections:
                found.append(connection.execute(statement).scalar())
            for connection in connections:
                connection.close()
        else:
            lent = [await self._async.connect() for _ in range(times)]
            for one in lent:
                found.append((await one.execute(statement)).scalar())
            for one in lent:
                await one.close()
        return found

    async def dispose(self) -> None:
        if self._async is None:
            self.engine.dispose()
        else:
            await self._async.dispose()


@asynccontextmanager
async def front(client: LakebaseClient, kind: str, **arguments: Any) -> AsyncIterator[Front]:
    made = Front(client, kind, **arguments)
    try:
        yield made
    finally:
        await made.dispose()


async def test_hstore_adapts_on_every_connection(
    client: LakebaseClient, lakebase_env: LocalLakebase, kind: str
) -> None:
    with psycopg.connect(lakebase_env.superuser_dsn, dbname="databricks_postgres", autocommit=True) as admin:
        admin.execute("drop type if exists hstore")
        # The server may lack the extension: a type of the name whose one value is written as hstore's are.
        admin.execute("""create type hstore as enum ('"a"=>"1", "b"=>NULL')""")
        try:
            async with front(client, kind) as opened:
                cells = await opened.at_once(3, text("""select '"a"=>"1", "b"=>NULL'::hstore"""))
                assert cells == [{"a": "1", "b": None}] * 3
        finally:
            admin.execute("drop type hstore")


async def test_json_is_written_and_read_by_the_users_functions(client: LakebaseClient, kind: str) -> None:
    def dumps(value: Any) -> str:
        return json.dumps({"wrapped": value})

    def loads(data: Any) -> Any:
        return ["read", json.loads(data)]

    async with front(client, kind, json_serializer=dumps, json_deserializer=loads) as opened:
        cells = await opened.at_once(2, select(literal([1], JSON())))
        assert cells == [["read", {"wrapped": [1]}]] * 2


@pytest.mark.parametrize(
    ("native", "expected"),
    [(False, "10.0.0.1"), (True, ip_address("10.0.0.1")), (None, ip_address("10.0.0.1"))],
)
async def test_addresses_are_objects_or_text_as_asked(
    client: LakebaseClient, kind: str, native: bool | None, expected: Any
) -> None:
    arguments = {} if native is None else {"native_inet_types": native}
    async with front(client, kind, **arguments) as opened:
        assert await opened.at_once(2, text("select '10.0.0.1'::inet")) == [expected] * 2


async def test_connect_args_reach_the_driver(client: LakebaseClient, kind: str) -> None:
    arguments = {"prepare_threshold": None, "keepalives_idle": 77, "autocommit": True}
    seen: list[Any] = []
    async with front(client, kind, connect_args=arguments) as opened:

        @event.listens_for(opened.engine, "connect")
        def look(connection: Any, _record: Any) -> None:
            driver = getattr(connection, "driver_connection", connection)
            parameters = {option.keyword: option.val for option in driver.pgconn.info}
            seen.append((driver.prepare_threshold, parameters[b"keepalives_idle"], driver.autocommit))

        assert await opened.at_once(2, text("select 1")) == [1, 1]
    assert seen == [(None, b"77", True)] * 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"connect_args": {"password": "x", "host": "elsewhere"}},
        {"connect_args": {"options": "-c search_path=x"}},
        {"connect_args": {"sslmode": "disable"}},
        {"client_encoding": "latin1"},
    ],
)
def test_what_the_configuration_settles_is_refused_at_once(
    client: LakebaseClient, kind: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"connect_args|client_encoding"):
        Front(client, kind, **arguments)


@pytest.mark.parametrize("encoding", ["utf8", "UTF-8", "utf_8"])
async def test_the_encoding_that_all_connections_have_may_be_asked_for(
    client: LakebaseClient, kind: str, encoding: str
) -> None:
    async with front(client, kind, client_encoding=encoding) as opened:
        assert await opened.at_once(1, text("show client_encoding")) == ["UTF8"]


async def test_a_listener_may_add_arguments_or_connect_itself(
    client: LakebaseClient, lakebase_env: LocalLakebase, kind: str
) -> None:
    seen: list[set[str]] = []
    async with front(client, kind) as opened:

        @event.listens_for(opened.engine, "do_connect")
        def add(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
            seen.append(set(parameters))
            parameters["prepare_threshold"] = 99

        @event.listens_for(opened.engine, "connect")
        def look(connection: Any, _record: Any) -> None:
            assert getattr(connection, "driver_connection", connection).prepare_threshold == 99

        user = lakebase_env.env()["PGUSER"]
        assert await opened.at_once(2, text("select current_user")) == [user] * 2
        assert len(seen) == 2
        assert not any("password" in names for names in seen)

        @event.listens_for(opened.engine, "do_connect")
        def elsewhere(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
            parameters["host"] = "elsewhere"

        await opened.dispose()
        with pytest.raises(ConfigError, match="host cannot be set by a do_connect listener"):
            await opened.at_once(1, text("select 1"))


def test_the_connection_that_a_listener_returns_is_taken(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    engine = client.engine(poolclass=NullPool)

    @event.listens_for(engine, "do_connect")
    def connect(*_: Any) -> Any:
        return psycopg.connect(make_conninfo(lakebase_env.superuser_dsn, application_name="the user's"))

    with engine.connect() as connection:
        assert connection.execute(text("show application_name")).scalar() == "the user's"
    engine.dispose()


async def test_pools_are_the_users_where_they_say_so(client: LakebaseClient, kind: str) -> None:
    async with front(client, kind, poolclass=NullPool) as opened:
        assert isinstance(opened.engine.pool, NullPool)
        assert await opened.at_once(2, text("select 1")) == [1, 1]
    if kind == "sync":
        async with front(client, kind, poolclass=StaticPool) as opened:
            assert await opened.at_once(2, text("select 1")) == [1, 1]
    async with front(client, kind, pool_size=1, max_overflow=0, pool_timeout=0.1) as opened:
        assert opened.engine.pool.size() == 1  # type: ignore[attr-defined]


def test_a_pool_that_is_given_opens_its_connections_itself(client: LakebaseClient) -> None:
    opened: list[Any] = []

    def connect() -> Any:
        opened.append(client.connect())
        return opened[-1]

    engine = client.engine(pool=QueuePool(connect, pool_size=1))
    with engine.connect() as connection:
        assert connection.execute(text("select 1")).scalar() == 1
        assert connection.connection.driver_connection is opened[0]
    engine.dispose()
    engine = client.engine(creator=connect)
    with engine.connect() as connection:
        assert connection.execute(select(column("n")).select_from(text("(select 2 as n) q"))).scalar() == 2
    assert len(opened) == 2
    engine.dispose()


async def test_a_pool_for_asyncio_that_is_given_is_taken(client: LakebaseClient) -> None:
    template = client.async_engine()
    dialect: Any = template.sync_engine.dialect
    pool = AsyncAdaptedQueuePool(
        lambda: dialect.loaded_dbapi.connect(async_creator_fn=client.aconnect), pool_size=1
    )
    engine = client.async_engine(pool=pool)
    async with engine.connect() as connection:
        assert (await connection.execute(text("select 1"))).scalar() == 1
    assert engine.sync_engine.pool is pool
    await engine.dispose()
    own = client.async_engine(async_creator=client.aconnect)
    async with own.connect() as connection:
        assert (await connection.execute(text("select 2"))).scalar() == 2
    await own.dispose()
    await template.dispose()
