"""Groups on branches of their own: a mapped one, of whose instances one fails, and one with mapped tasks."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.sdk import DAG, task

from lakebase_provider.decorators.branches import lakebase_branch
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.operators.sql import LakebaseSqlOperator

CREATE = "CREATE TABLE of_a_branch (n int)"

with DAG("branches", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)) as dag:

    @lakebase_branch(ttl=3600)
    def work(number: int, branch: str) -> None:
        write = LakebaseSqlOperator(task_id="write", sql=CREATE)

        @task
        def count(number: int, branch: str) -> str:
            [rows] = LakebaseHook(branch=branch).get_first("SELECT count(*) FROM of_a_branch")
            assert (rows, number) == (0, 1)
            return branch

        write >> count(number, branch=branch)

    @lakebase_branch
    def wide() -> None:
        write = LakebaseSqlOperator(task_id="write", sql=CREATE)
        rows = LakebaseSqlOperator.partial(task_id="rows", sql="SELECT %(n)s::int, count(*) FROM of_a_branch")

        @task.lakebase_sql
        def look(n: int) -> str:
            return f"SELECT {n}, count(*) FROM of_a_branch"

        write >> [rows.expand(parameters=[{"n": 1}, {"n": 2}]), look.expand(n=[1])]

    work.expand(number=[1, 2])
    wide()
