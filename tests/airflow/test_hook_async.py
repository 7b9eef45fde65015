"""The hook in async tasks and triggers: the event loop goes on, and Airflow is never asked by blocking."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import psycopg
import pytest
from airflow.sdk import BaseHook
from airflow.sdk.log import redact

from lakebase_provider.core.errors import LoginRejectedError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.triggers.sql import LakebaseSqlTrigger
from tests.airflow.conftest import connection_fields, define


@pytest.fixture
def hook(lake: LocalLakebase) -> LakebaseHook:
    return LakebaseHook()


async def test_records_of_one_statement_and_of_several(hook: LakebaseHook) -> None:
    assert await hook.aget_records("select i from generate_series(1, %s::int) i", (2,)) == [(1,), (2,)]
    assert await hook.aget_first("select 2 in %(ids)s", {"ids": (1, 2)}) == (True,)
    assert await hook.aget_first("select 1 where false") is None
    assert await hook.arun("select 1") is None
    await (await hook.aclient()).aclose()


async def test_run_takes_what_run_takes(hook: LakebaseHook) -> None:
    async def count(cursor: Any) -> int:
        return len(await cursor.fetchall())

    sql = "create temp table t (i int); insert into t values (%(a)s), (%(b)s); select * from t"
    parameters = {"a": 1, "b": 2}
    assert await hook.arun(sql, parameters=parameters, handler=count) == 2
    split = await hook.arun(
        "select 1; select 2, 3", handler=count, split_statements=True, return_last=False, autocommit=True
    )
    assert split == [1, 1]
    assert [len(description or ()) for description in hook.descriptions] == [1, 2]
    with pytest.raises(ValueError, match="empty"):
        await hook.arun(" ")
    await (await hook.aclient()).aclose()


async def test_a_failed_statement_is_rolled_back(hook: LakebaseHook) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        await hook.arun(["create table never (i int)", "select 1 / 0"])
    assert await hook.aget_first("select to_regclass('never')") == (None,)
    await (await hook.aclient()).aclose()


async def test_sequential_calls_share_a_connection(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, **connection_fields(lake, extra={"application_name": "async calls"}))
    hook = LakebaseHook()
    before = lake.admin.counters().logins
    for number in range(5):
        assert await hook.aget_first("select %s::int", (number,)) == (number,)
    connection = await hook.aget_conn()
    async with connection.cursor() as cursor:
        await cursor.execute("select 1")
    await connection.close()
    assert lake.admin.counters().logins - before == 1
    await hook.client.aclose()


async def test_the_loop_goes_on_while_a_token_is_minted(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, **connection_fields(lake, extra={"application_name": "async mint"}))
    hook = LakebaseHook()
    tokens = (await hook.aclient()).tokens
    tokens.invalidate((await tokens.aget()).fingerprint)
    lake.admin.fault("POST", "*/credentials", hang=3, times=1)
    longest, stop = 0.0, False

    async def beat() -> None:
        nonlocal longest
        while not stop:
            start = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - start)

    beating = asyncio.ensure_future(beat())
    assert await hook.aget_first("select 1") == (1,)
    stop = True
    await beating
    assert longest < 2.4  # of the three seconds of the hang, for which a loop that waits stands still
    secret = (await tokens.aget()).reveal()
    assert secret not in str(redact(f"a line with {secret} in it"))
    await hook.client.aclose()


async def test_airflow_is_asked_without_blocking_the_loop(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Airflow raises DeadlockImminentError, no Exception, where a blocking call meets one under way.
    from lakebase_provider._airflow.connection import connected_hook
    from lakebase_provider._airflow.task import masking

    loop_thread = threading.get_ident()
    blocking: list[str] = []

    def noting(name: str, call: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == loop_thread:
                blocking.append(name)
            return call(*args, **kwargs)

        return called

    define(monkeypatch, **connection_fields(lake, extra={"application_name": "async masks"}))
    monkeypatch.setattr(BaseHook, "get_connection", noting("get_connection", BaseHook.get_connection))
    for module in (connected_hook, masking):
        monkeypatch.setattr(module, "mask_secret", noting("mask_secret", module.mask_secret))
    hook = LakebaseHook()
    assert await hook.aget_first("select 1") == (1,)
    tokens = hook.client.tokens
    tokens.invalidate((await tokens.aget()).fingerprint)
    await tokens.aget()
    assert blocking == []
    await hook.client.aclose()


async def test_a_refused_login_says_why(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, **connection_fields(lake, extra={"client_id": lake.client_id}, login="nobody"))
    hook = LakebaseHook()
    with pytest.raises(LoginRejectedError, match="nobody"):
        await hook.aget_first("select 1")
    await hook.client.aclose()


async def test_rows_and_notices_as_the_hook_was_told(
    lake: LocalLakebase, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    hook = LakebaseHook(cursor="dictcursor", enable_log_db_messages=True, read_only=True)
    assert await hook.aget_first("select 1 as a") == {"a": 1}
    await hook.arun("do $$ begin raise notice 'from the server'; end $$")
    assert "from the server" in caplog.text + "".join(capfd.readouterr())
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        await hook.arun("create table never (i int)")
    await hook.client.aclose()


async def test_a_trigger_in_airflows_own_runner(lake: LocalLakebase) -> None:
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    runner = TriggerRunner()
    trigger = LakebaseSqlTrigger(
        conn_id="lakebase_default", sql=["create temp table t (i int)", "select generate_series(1, 3)"]
    )
    trigger.task_instance = None  # type: ignore[assignment] # as for a trigger of an asset
    task = asyncio.create_task(runner.run_trigger(1, trigger))
    runner.triggers[1] = {"task": task, "name": "counts", "is_watcher": False, "events": 0}
    await task
    [told] = runner.events
    assert (told[0], told[1].payload) == (1, {"status": "success", "rows": [0, 3]})
