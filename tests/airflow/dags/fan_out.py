"""Many mapped tasks on the one branch of their run."""

from __future__ import annotations

import os
from datetime import datetime, timezone

from airflow.sdk import DAG

from lakebase_provider.decorators.branches import lakebase_branch
from lakebase_provider.operators.sql import LakebaseSqlOperator

with DAG("fan_out", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)) as dag:

    @lakebase_branch(ttl=3600, wait_for_budget=600)
    def work() -> None:
        table = LakebaseSqlOperator(task_id="table", sql="CREATE TABLE fanned (n int)")
        part = LakebaseSqlOperator.partial(task_id="part", sql="INSERT INTO fanned VALUES (%(n)s)")
        parts = part.expand(parameters=[{"n": n} for n in range(int(os.environ["FAN"]))])
        table >> parts >> LakebaseSqlOperator(task_id="count", sql="SELECT count(*) FROM fanned")

    work()
