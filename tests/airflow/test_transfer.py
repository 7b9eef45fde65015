"""Transfers between Postgres databases by the operator: what arrives, and what is left when they end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.providers.common.sql.hooks.sql import DbApiHook

from lakebase_provider.core.errors import BadRowError, ConfigError, LoadInterruptedError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.transfer import LakebaseTransferOperator
from tests.airflow.test_load_operators import executed
from tests.eventually import eventually

psycopg2 = pytest.importorskip("psycopg2", reason="psycopg2 is not installed: dagster-postgres brings it")

#: What a way through Python's values loses, refuses or changes.
VALUES = """
select 1 as id, '"123"'::jsonb as j1, '"true"'::jsonb as j2, 'null'::jsonb as j3,
    '[1.10, 0.48812409112942318]'::jsonb as j4, '{"a": 1, "a": 2}'::json as j5, interval '1 mon' as i1,
    '{1 mon,30 days}'::interval[] as i2, '[0:2]={1,2,3}'::int[] as a1, date 'infinity' as d1,
    date '0044-03-15 BC' as d2, time '24:00' as t1, '{infinity}'::timestamptz[] as t2,
    'NaN'::numeric as n1, '-0'::float8 as f1, '' as s1, null::text as s2, inet '10.0.0.1/8' as h1,
    '{[1,2),[3,)}'::int4multirange as r1
"""
SLOW = "select n as id from generate_series(1, 50000) n where n <= 40000 or pg_sleep(55) is null"


class Hook(DbApiHook):
    """A hook of Postgres as others have it, on either driver, past the front end."""

    conn_name_attr = "other_conn_id"
    driver: Any = psycopg
    dsn = ""
    opened = 0

    def get_conn(self) -> Any:
        self.opened += 1
        return self.driver.connect(self.dsn, application_name="transfer")


@pytest.fixture(params=["lakebase", "psycopg", "psycopg2"])
def source(lake: LocalLakebase, request: pytest.FixtureRequest) -> DbApiHook:
    if request.param == "lakebase":
        return LakebaseHook()
    hook = Hook()
    hook.driver = {"psycopg": psycopg, "psycopg2": psycopg2}[request.param]
    hook.dsn = f"{lake.superuser_dsn} dbname={lake.config().database}"
    return hook


@pytest.fixture(autouse=True)
def tables(lake: LocalLakebase) -> Iterator[None]:
    drop = "drop table if exists loaded, lakebase_load, everything; drop type if exists mood"
    LakebaseHook().run(drop)
    yield
    LakebaseHook().run(drop)


@pytest.fixture
def observer(lake: LocalLakebase) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(lake.superuser_dsn, dbname=lake.config().database, autocommit=True) as connection:
        yield connection


def operator(source: DbApiHook, sql: str, **arguments: Any) -> LakebaseTransferOperator:
    made = LakebaseTransferOperator(
        task_id="transfer", source_conn_id="other", sql=sql, table="loaded", **arguments
    )
    made.__dict__["_source_hook"] = source
    return made


def transfer(source: DbApiHook, sql: str, **arguments: Any) -> dict[str, Any]:
    return executed(operator(source, sql, **arguments))


def active(observer: psycopg.Connection[Any], *where: str) -> int:
    """How many sessions of the test's run a statement, of those that match."""
    found = observer.execute(
        "select count(*) from pg_stat_activity where state <> 'idle' and pid <> pg_backend_pid()"
        " and backend_type = 'client backend' and datname = current_database()"
        + "".join(f" and {condition}" for condition in where)
    ).fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.parametrize("own", ["", ", 'calm'::mood as m"], ids=["binary", "text"])
def test_values_arrive_as_they_were(source: DbApiHook, own: str) -> None:
    LakebaseHook().run("create type mood as enum ('calm')")
    LakebaseHook().run(f"create table everything as {VALUES.replace('as s2', f'as s2{own}')}")
    LakebaseHook().run("create table loaded (like everything)")
    result = transfer(source, "select * from everything where id >= %(id)s", parameters={"id": 1})
    assert result["format"] == ("text" if own else "binary")
    md5 = "select md5(r::text), r::text from {} r"
    assert LakebaseHook().get_records(md5.format("loaded")) == LakebaseHook().get_records(
        md5.format("everything")
    )


def test_placeholders_are_the_drivers(source: DbApiHook) -> None:
    LakebaseHook().run("create table loaded (id int, v text)")
    sql = "select n as id, %(v)s as v from generate_series(1, 9) n where n % 2 = 0"
    if isinstance(source, LakebaseHook):
        # The hook leaves a % alone, and spreads a list after IN.
        sql += " and n in %(some)s"
        assert transfer(source, sql, parameters={"v": "it's %", "some": [2, 4]})["inserted"] == 2
    else:
        sql = sql.replace("% 2", "%% 2")
        assert transfer(source, sql, parameters={"v": "it's %"})["inserted"] == 4
    assert LakebaseHook().get_first("select * from loaded order by 1") == (2, "it's %")


def test_a_load_that_is_skipped_asks_nobody(lake: LocalLakebase) -> None:
    LakebaseHook().run("create table loaded (id int)")
    hook = Hook()
    hook.dsn = f"{lake.superuser_dsn} dbname={lake.config().database}"
    assert transfer(hook, "select 1 as id")["inserted"] == 1
    assert transfer(hook, "select 1 as id")["skipped"] is True
    assert hook.opened == 1


@pytest.mark.parametrize(
    ("sql", "arguments", "cause"),
    [
        ("select 1.55 as id", {}, BadRowError),
        ("select 1 as id", {"on_error": "reject", "reject_to": "rejected"}, ConfigError),
        ("show server_version", {}, ConfigError),
    ],
)
def test_what_can_never_work_is_not_retried(
    source: DbApiHook, sql: str, arguments: dict[str, Any], cause: type[Exception]
) -> None:
    LakebaseHook().run("create table loaded (id numeric(10,1))")
    with pytest.raises(AirflowFailException) as caught:
        transfer(source, sql, **arguments)
    assert isinstance(caught.value.__cause__, cause)
    assert LakebaseHook().get_records("select * from loaded") == []


def test_a_source_that_is_lost_leaves_nothing(source: DbApiHook, observer: psycopg.Connection[Any]) -> None:
    LakebaseHook().run("create table loaded (id int)")

    def lose() -> None:
        eventually(lambda: active(observer, "wait_event = 'PgSleep'") == 1, within=20)
        observer.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'"
        )

    losing = threading.Thread(target=lose)
    losing.start()
    lost = psycopg2.OperationalError if getattr(source, "driver", None) is psycopg2 else LoadInterruptedError
    with pytest.raises(lost):
        transfer(source, SLOW)
    losing.join()
    assert LakebaseHook().get_records("select * from loaded") == []
    assert transfer(source, "select 1 as id")["inserted"] == 1


class OutOfTime(BaseException):
    """As Airflow's, at the end of the time that it gives a task."""


@pytest.mark.parametrize("waits", ["source", "target"])
@pytest.mark.parametrize("killed", [True, False], ids=["SIGTERM", "SIGALRM"])
def test_both_ends_stop_at_once(
    source: DbApiHook,
    observer: psycopg.Connection[Any],
    waits: str,
    killed: bool,
) -> None:
    LakebaseHook().run("create table loaded (id int)")
    made = operator(source, SLOW if waits == "source" else "select generate_series(1, 2000000) as id")
    if waits == "target":
        # The server waits for the lock and reads nothing: it is the source, then this process, that are full.
        observer.execute(
            "create or replace function wait_here() returns trigger language plpgsql as"
            " 'begin perform pg_advisory_xact_lock_shared(4712); return new; end'"
        )
        observer.execute(
            "create trigger gate before insert on loaded for each row when (new.id = 100)"
            " execute function wait_here()"
        )
        observer.execute("select pg_advisory_lock(4712)")
    event = "wait_event = 'PgSleep'" if waits == "source" else "wait_event = 'advisory'"

    def on_signal(_number: int, _frame: object) -> None:
        if not killed:
            raise OutOfTime
        made.on_kill()

    def end() -> None:
        eventually(lambda: active(observer, event) == 1, within=20)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, on_signal)
    ending = threading.Thread(target=end)
    try:
        ending.start()
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - of each driver and end another one
            executed(made)
    finally:
        ending.join()
        signal.signal(signal.SIGUSR1, before)
    assert isinstance(caught.value, OutOfTime) == (not killed), caught.value
    eventually(lambda: active(observer) == 0, within=2)
    assert [thread for thread in threading.enumerate() if thread.name == "lakebase-transfer"] == []
    observer.execute("select pg_advisory_unlock_all()")
    assert LakebaseHook().get_records("select * from loaded") == []
