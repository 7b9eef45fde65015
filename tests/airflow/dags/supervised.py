"""Statements that outlive their task, each marked with the task's name."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import datetime, timedelta

from airflow.sdk import DAG, task

from lakebase_provider.operators.sql import LakebaseSqlOperator

with DAG(
    dag_id="supervised",
    schedule=None,
    start_date=datetime(2025, 1, 1),
    # With one the task has a handler for the clock's signal; the tests send it.
    default_args={"execution_timeout": timedelta(minutes=10), "retries": 1},
) as dag:
    LakebaseSqlOperator(task_id="operator", sql="select pg_sleep(55) /* operator */")

    # The first try waits until it is ended; a later one has nothing to wait for.
    first = os.environ.get("TRY") == "1"
    LakebaseSqlOperator(
        task_id="fenced",
        sql=[f"insert into fenced values ({os.environ.get('TRY', 0)})"]
        + ["select pg_sleep(55) /* fenced */"] * first,
        fence=True,
    )

    def run_by_hook(mark: str) -> None:
        from lakebase_provider.hooks.lakebase import LakebaseHook

        LakebaseHook().run(f"select pg_sleep(55) /* {mark} */")

    @task(task_id="hook")
    def hook() -> None:
        run_by_hook("hook")

    def run_by_client(mark: str) -> None:
        from lakebase_provider.hooks.lakebase import LakebaseHook

        with LakebaseHook().client.connection() as connection:
            connection.execute(f"select pg_sleep(55) /* {mark} */".encode())

    @task(task_id="client")
    def client() -> None:
        run_by_client("client")

    async def run_by_asyncio(mark: str) -> None:
        from lakebase_provider.hooks.lakebase import LakebaseHook

        async with LakebaseHook().client.aconnection() as connection:
            await connection.execute(f"select pg_sleep(55) /* {mark} */".encode())

    @task(task_id="asyncio")
    def by_asyncio() -> None:
        asyncio.run(run_by_asyncio("asyncio"))

    @task(task_id="between")
    def between() -> None:
        from lakebase_provider.hooks.lakebase import LakebaseHook

        asked, tell = os.pipe()
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell)
        hook = LakebaseHook()
        hook.run("insert into unfinished values (1)")
        # Until a signal has come, after whose handler this returns.
        os.read(asked, 1)
        hook.run("insert into unfinished values (2)")

    [between(), hook(), client(), by_asyncio()]
