"""Functions that return SQL."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk import DAG, task

with DAG(dag_id="decorators", schedule=None, start_date=datetime(2025, 1, 1)) as dag:

    @task.lakebase_sql
    def templated() -> str:
        return "select '{{ dag.dag_id }}'"

    @task.lakebase_sql(return_last=False)
    def several() -> list[str]:
        return ["select 1", "select 2"]

    @task.lakebase_sql
    def mapped(n: int) -> str:
        return f"select {n:d}"

    @task.lakebase_sql(deferrable=True)
    def deferred() -> str:
        return "select generate_series(1, 3)"

    @task.lakebase_sql
    def no_statement() -> Any:
        return 1

    @task.lakebase_sql
    def empty() -> list[str]:
        return ["select 1", " "]

    templated()
    several()
    mapped.expand(n=[1, 2])
    deferred()
    no_statement()
    empty()
