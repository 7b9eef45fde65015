"""A task that uses the hook and then ends as the environment says."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk import DAG, BaseOperator, Context
from airflow.triggers.base import BaseTrigger, TriggerEvent

OPEN = "select count(*) from pg_stat_activity where application_name like 'task_ends.%'"


class OpenTrigger(BaseTrigger):
    """Tells how many connections of the task are open while it is deferred."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "task_ends.OpenTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        dsn = os.environ["TASK_ENDS_SUPERUSER"]
        async with await psycopg.AsyncConnection.connect(dsn) as observer:
            row = await (await observer.execute(OPEN.encode())).fetchone()
        yield TriggerEvent(row[0] if row else None)


class Ends(BaseOperator):
    def execute(self, context: Context) -> int | None:
        from lakebase_provider.hooks.lakebase import LakebaseHook

        kind = os.environ["TASK_ENDS"]
        if kind == "is retried" and context["ti"].try_number == 2:
            with psycopg.connect(os.environ["TASK_ENDS_SUPERUSER"]) as observer:
                row = observer.execute(OPEN.encode()).fetchone()
            return row[0] if row else None
        hook = LakebaseHook()
        backend = hook.get_first("select pg_backend_pid()")
        assert LakebaseHook().get_first("select pg_backend_pid()") == backend
        if kind == "is retried":
            raise RuntimeError("as told")
        if kind == "fails":
            raise AirflowFailException("as told")
        if kind == "is skipped":
            raise AirflowSkipException("as told")
        if kind == "defers":
            self.defer(trigger=OpenTrigger(), method_name="resume")
        return None

    def resume(self, context: Context, event: int) -> int:
        return event


with DAG(dag_id="task_ends", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
    Ends(task_id="ends", retries=1, retry_delay=timedelta(0))
