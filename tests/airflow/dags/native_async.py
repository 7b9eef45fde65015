"""An async function as a task, which Airflow runs natively since 3.2."""

from __future__ import annotations

import asyncio
from datetime import datetime

from airflow.sdk import DAG, task

with DAG(dag_id="native_async", schedule=None, start_date=datetime(2025, 1, 1)) as dag:

    @task(task_id="reads")
    async def reads() -> list[int]:
        from lakebase_provider.hooks.lakebase import LakebaseHook

        hook = LakebaseHook()

        async def read(number: int) -> int:
            [(found,)] = await hook.aget_records("select %s::int * 2", (number,))
            return int(found)

        return await asyncio.gather(*(read(number) for number in range(8)))

    @task(task_id="fails")
    async def fails() -> None:
        from lakebase_provider.hooks.lakebase import LakebaseHook

        await LakebaseHook().arun(["create table never_kept (i int)", "select 1 / 0"])

    [reads(), fails()]
