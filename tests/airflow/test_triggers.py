"""The triggers on an event loop, as the triggerer runs them."""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from airflow.triggers.base import BaseTrigger

from lakebase_provider.core.shared import shared_clients
from lakebase_provider.local import LocalLakebase
from lakebase_provider.triggers.polling import LakebaseHealthTrigger, LakebaseSqlSensorTrigger
from lakebase_provider.triggers.sql import LakebaseSqlTrigger
from tests.airflow.conftest import DagLoader, connection_fields, define
from tests.airflow.test_dags import states

CONN: dict[str, Any] = {"conn_id": "lakebase_default"}
#: Seconds within which the statement must be gone after the trigger was asked to end.
ASKED = 2.0


@pytest.fixture
def observer(lake: LocalLakebase) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(lake.superuser_dsn, dbname="databricks_postgres", autocommit=True) as connection:
        yield connection


@pytest.fixture(autouse=True)
async def no_open_pool(lake: LocalLakebase) -> AsyncIterator[None]:
    yield
    for client in shared_clients():
        await client.aclose()


def sent(trigger: BaseTrigger) -> Any:
    """The trigger as the triggerer makes it anew, after its arguments were stored."""
    path, arguments = trigger.serialize()
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))


async def event_of(trigger: BaseTrigger) -> dict[str, Any]:
    made_anew = sent(trigger)
    async for event in made_anew.run():
        await made_anew.cleanup()
        payload: dict[str, Any] = json.loads(json.dumps(event.payload))
        return payload
    raise AssertionError("no event")


def count(observer: psycopg.Connection[Any], query: str) -> int:
    row = observer.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


RUNNING = "select count(*) from pg_stat_activity where query like 'select pg_sleep(50)%' and state = 'active'"
SESSIONS = "select count(*) from pg_stat_activity where backend_type = 'client backend'"


async def reached(condition: Callable[[], bool], within: float) -> None:
    """``eventually`` for a loop that has to run on meanwhile."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"it did not happen within {within} s"
        await asyncio.sleep(0.01)


async def test_it_counts_the_rows_of_each_statement(
    lake: LocalLakebase, observer: psycopg.Connection[Any]
) -> None:
    before = count(observer, SESSIONS)
    statements = [
        "drop table if exists counted",
        "create table counted (i int)",
        "insert into counted select generate_series(1, %(n)s::int)",
        "update counted set i = i + %(n)s where i > 10",
        "select i from counted where i > %(n)s",
        "do $$ begin perform 1; end $$",
    ]
    event = await event_of(LakebaseSqlTrigger(**CONN, sql=statements, parameters={"n": 5000}))
    assert event == {"status": "success", "rows": [0, 0, 5000, 4990, 4990, 0]}
    await reached(lambda: count(observer, SESSIONS) == before, within=ASKED)


async def test_all_statements_are_one_transaction_unless_asked_otherwise(lake: LocalLakebase) -> None:
    await event_of(
        LakebaseSqlTrigger(**CONN, sql=["drop table if exists whole", "create table whole (i int)"])
    )
    broken = ["insert into whole values (1)", "select 1/0"]
    event = await event_of(LakebaseSqlTrigger(**CONN, sql=broken))
    assert (event["status"], event["kind"], event["retryable"]) == ("error", "DivisionByZero", False)
    counted = LakebaseSqlTrigger(**CONN, sql=["select * from whole"])
    assert (await event_of(counted))["rows"] == [0]
    await event_of(LakebaseSqlTrigger(**CONN, sql=broken, autocommit=True))
    assert (await event_of(counted))["rows"] == [1]


async def test_the_session_is_as_the_task_wants_it(lake: LocalLakebase) -> None:
    session = {"application_name": "dag.task", "statement_timeout": "1500ms"}
    shown = (
        "select 1 where (current_setting('application_name'), current_setting('statement_timeout')) "
        "= ('dag.task', '1500ms') and current_database() = 'postgres'"
    )
    trigger = LakebaseSqlTrigger(**CONN, sql=[shown], session=session, settings={"schema": "postgres"})
    assert (await event_of(trigger))["rows"] == [1]
    trigger = LakebaseSqlTrigger(**CONN, sql=["create table unwanted (i int)"], read_only=True)
    assert (await event_of(trigger))["kind"] == "ReadOnlySqlTransaction"
    # Settings of the session make no further client, which would keep a pool for each task.
    before = len(shared_clients())
    session["application_name"] = "dag.other_task"
    await event_of(LakebaseSqlTrigger(**CONN, sql=["select 1"], session=session))
    assert len(shared_clients()) == before


@pytest.mark.parametrize(
    ("sql", "parameters", "rows"),
    [
        ("select 1 where 'a%b' like 'a%' and 1 = %s", [1], 1),
        ("select * from generate_series(1, 9) n where n in %(ids)s", {"ids": [1, 2, 3]}, 3),
        ("select * from generate_series(1, 9) n where n = any(%s)", [[1, 2]], 2),
        ("select '%(day)s' is not null", {"other": 1}, 1),
    ],
)
async def test_placeholders_are_those_of_the_hook(
    lake: LocalLakebase, sql: str, parameters: Any, rows: int
) -> None:
    event = await event_of(LakebaseSqlTrigger(**CONN, sql=[sql], parameters=parameters))
    assert event == {"status": "success", "rows": [rows]}


async def test_rows_go_to_a_file_and_never_into_the_event(lake: LocalLakebase, tmp_path: Path) -> None:
    path = str(tmp_path / "result.csv")
    statements = ["create temp table t as select generate_series(1, 3500) as i", "select * from t order by i"]
    event = await event_of(LakebaseSqlTrigger(**CONN, sql=statements, output_path=path))
    assert event == {"status": "success", "path": path, "rows": 3500}
    lines = Path(path).read_text().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("i", "3500", 3501)
    broken = LakebaseSqlTrigger(
        **CONN, sql=["select 1 / (2500 - i) from generate_series(1, 3000) i"], output_path=path
    )
    assert (await event_of(broken))["kind"] == "DivisionByZero"
    # A result is whole or is that of the run before; a task that fails says so itself.
    assert Path(path).read_text().splitlines() == lines
    assert [file.name for file in tmp_path.iterdir()] == ["result.csv"]


async def test_copy_from_the_client_is_refused(lake: LocalLakebase) -> None:
    event = await event_of(LakebaseSqlTrigger(**CONN, sql=["copy (select 1) to stdout"]))
    assert event["status"] == "error"
    assert "COPY" in event["message"]


@asynccontextmanager
async def running(trigger: Any, observer: psycopg.Connection[Any]) -> AsyncIterator[asyncio.Task[Any]]:
    async def consume() -> list[Any]:
        try:
            return [event async for event in trigger.run()]
        finally:
            await trigger.cleanup()

    task = asyncio.ensure_future(consume())
    try:
        await reached(lambda: task.done() or count(observer, RUNNING) == 1, within=20)
        assert not task.done(), task.result()
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_cancelled_trigger_leaves_no_statement_and_no_session(
    lake: LocalLakebase, observer: psycopg.Connection[Any]
) -> None:
    before = count(observer, SESSIONS)
    trigger = sent(LakebaseSqlTrigger(**CONN, sql=["select pg_sleep(50)"]))
    async with running(trigger, observer) as task:
        task.cancel("__airflow_user_action__")
        await reached(lambda: count(observer, RUNNING) == 0, within=ASKED)
        await reached(lambda: count(observer, SESSIONS) == before, within=ASKED)


async def test_on_kill_cancels_by_itself(lake: LocalLakebase, observer: psycopg.Connection[Any]) -> None:
    trigger = sent(LakebaseSqlTrigger(**CONN, sql=["select pg_sleep(50)"]))
    async with running(trigger, observer) as task:
        await trigger.on_kill()
        await reached(lambda: count(observer, RUNNING) == 0, within=ASKED)
        (event,) = await task
        assert event.payload["kind"] == "QueryCanceled"
        # Nobody's statement ran out of its time: a retry may help.
        assert event.payload["retryable"] is True
    await trigger.on_kill()


async def test_out_of_time_it_cancels_and_says_so(
    lake: LocalLakebase, observer: psycopg.Connection[Any]
) -> None:
    event = await event_of(LakebaseSqlTrigger(**CONN, sql=["select pg_sleep(50)"], timeout=1))
    assert "execution_timeout" in event["message"]
    await reached(lambda: count(observer, RUNNING) == 0, within=ASKED)


async def test_the_loop_runs_on_while_it_connects_and_waits(lake: LocalLakebase) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.ensure_future(tick())
    await event_of(LakebaseSqlTrigger(**CONN, sql=["select pg_sleep(0.5)"]))
    ticking.cancel()
    assert ticks > 20


async def test_a_wrong_connection_is_told_without_a_secret(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, **connection_fields(lake, password="wrong-canary"))
    event = await event_of(LakebaseSqlTrigger(**CONN, sql=["select 1"]))
    assert (event["kind"], event["retryable"]) == ("NotAuthenticatedError", False)
    assert "client id and secret" in event["remedy"]
    assert "wrong-canary" not in str(event)


async def test_the_sensor_waits_until_the_cell_is_true(
    lake: LocalLakebase, observer: psycopg.Connection[Any]
) -> None:
    observer.execute(
        "drop table if exists landed; create table landed (i int); grant all on landed to public"
    )
    trigger = LakebaseSqlSensorTrigger(
        **CONN, sql="select count(*) > %(n)s from landed", parameters={"n": 1}, poke_interval=0.05
    )
    logins = lake.admin.counters().logins

    waiting = asyncio.ensure_future(event_of(trigger))
    await reached(lambda: sum(client.stats().checkouts for client in shared_clients()) >= 3, within=20)
    assert not waiting.done()
    observer.execute("insert into landed values (1), (2)")
    assert await asyncio.wait_for(waiting, 10) == {"status": "success", "empty": False}
    # All polls went over one pooled connection.
    assert lake.admin.counters().logins - logins == 1


@pytest.mark.parametrize("ended", ["by the event", "by cancelling"])
async def test_between_two_polls_and_after_the_last_there_is_no_session(
    lake: LocalLakebase, observer: psycopg.Connection[Any], ended: str
) -> None:
    before = count(observer, SESSIONS)
    polls = sum(client.stats().checkouts for client in shared_clients())
    seldom = asyncio.ensure_future(
        event_of(LakebaseSqlSensorTrigger(**CONN, sql="select false", poke_interval=60))
    )
    await reached(lambda: sum(c.stats().checkouts for c in shared_clients()) == polls + 1, within=20)
    # A session that lies idle, even in a pool, would keep the compute from being suspended.
    await reached(lambda: count(observer, SESSIONS) == before, within=ASKED)
    assert not seldom.done()
    seldom.cancel()

    table = f"often_{ended[3:5]}"
    observer.execute(f"drop table if exists {table}; create table {table} (i int)".encode())
    observer.execute(f"grant all on {table} to public".encode())
    often = LakebaseSqlSensorTrigger(**CONN, sql=f"select count(*) from {table}", poke_interval=0.05)
    waiting = asyncio.ensure_future(event_of(often))
    await reached(lambda: sum(c.stats().checkouts for c in shared_clients()) > polls + 3, within=20)
    if ended == "by the event":
        observer.execute(f"insert into {table} values (1)".encode())
        assert (await asyncio.wait_for(waiting, 20))["status"] == "success"
    else:
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
    await reached(lambda: count(observer, SESSIONS) == before, within=ASKED)


async def test_many_polls_at_once_share_the_pools_connections(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, **connection_fields(lake, extra={"max_size": 2, "application_name": "many polls"}))
    logins = lake.admin.counters().logins
    polls = [LakebaseSqlSensorTrigger(**CONN, sql="select true", poke_interval=60) for _ in range(20)]
    assert {event["status"] for event in await asyncio.gather(*map(event_of, polls))} == {"success"}
    # What is handed back while others wait for it goes to them.
    assert lake.admin.counters().logins - logins < len(polls)


@pytest.mark.parametrize("cell", ["0", "null", "''", "'0'", "false"])
async def test_what_the_sensor_takes_for_untrue(lake: LocalLakebase, cell: str) -> None:
    trigger = sent(LakebaseSqlSensorTrigger(**CONN, sql=f"select {cell}", poke_interval=60))
    from lakebase_provider.triggers._clients import client_of

    assert await trigger._poll(await client_of("lakebase_default", {})) is None


async def test_the_sensor_tells_of_no_rows_where_asked(lake: LocalLakebase) -> None:
    trigger = LakebaseSqlSensorTrigger(
        **CONN, sql="select 1 where false", poke_interval=60, fail_on_empty=True
    )
    assert await event_of(trigger) == {"status": "success", "empty": True}


async def test_a_failed_poll_ends_the_sensor_unless_it_is_to_be_silent(
    lake: LocalLakebase, observer: psycopg.Connection[Any]
) -> None:
    observer.execute("drop table if exists comes_later")
    waiting: dict[str, Any] = {**CONN, "sql": "select 1 from comes_later", "poke_interval": 0.05}
    event = await event_of(LakebaseSqlSensorTrigger(**waiting))
    assert (event["kind"], event["retryable"]) == ("UndefinedTable", False)
    patient = asyncio.ensure_future(event_of(LakebaseSqlSensorTrigger(**waiting, silent_fail=True)))
    await asyncio.sleep(0)
    observer.execute("create table comes_later as select 1 as i; grant select on comes_later to public")
    assert (await asyncio.wait_for(patient, 20))["status"] == "success"
    observer.execute("drop table comes_later")


async def test_the_health_trigger_waits_for_an_endpoint_that_is_switched_on_again(
    lake: LocalLakebase, caplog: pytest.LogCaptureFixture
) -> None:
    lake.admin.disable_endpoint()
    trigger = sent(
        LakebaseHealthTrigger(
            **CONN,
            checks=["query"],
            limits={"max_connections_used": 1},
            stage_timeout=5,
            poke_interval=0.05,
        )
    )

    waiting = asyncio.ensure_future(event_of(trigger))
    await reached(lambda: caplog.text.count("Health check stage login failed") >= 2, within=30)
    assert not waiting.done()
    lake.admin.disable_endpoint(False)
    payload = await asyncio.wait_for(waiting, 30)
    assert payload["status"] == "success"
    assert payload["report"]["status"] == "ok"


def test_what_is_stored_names_the_connection_alone(lake: LocalLakebase) -> None:
    for trigger in (
        LakebaseSqlTrigger(**CONN, sql=["select 1"]),
        LakebaseSqlSensorTrigger(**CONN, sql="select 1", poke_interval=1),
        LakebaseHealthTrigger(**CONN, poke_interval=1),
    ):
        stored = json.dumps(trigger.serialize())
        assert lake.client_secret not in stored
        assert "lakebase_default" in stored
        assert sent(trigger).serialize() == trigger.serialize()


# dag.test() runs Airflow's own API server in this process, by starlette's test client.
@pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")
def test_tasks_that_defer_end_as_their_triggers_do(
    lake: LocalLakebase, dag_of: DagLoader, observer: psycopg.Connection[Any]
) -> None:
    run = dag_of("deferrals").test()
    assert states(run) == {
        "polls": "success",
        "waits": "success",
        "wrong": "failed",
        "out_of_time": "failed",
    }
    assert count(observer, "select last_value from deferral_polls") == 3
    running = "select pg_sleep(55) /* out_of_time */"
    (active,) = observer.execute(
        "select count(*) from pg_stat_activity where query = %s and state = 'active'", (running,)
    ).fetchone() or (None,)
    assert active == 0
