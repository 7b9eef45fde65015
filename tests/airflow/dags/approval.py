"""A change that a person approves, whose statement follows from what is set meanwhile."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from lakebase_provider.operators.rehearse import LakebaseRehearseOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator

with DAG(
    "approval",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    user_defined_macros={"highest": lambda: os.environ["HIGHEST"]},
) as dag:
    change = LakebaseRehearseOperator(
        task_id="change",
        sql="UPDATE bills SET paid = true WHERE id <= {{ highest() }}",
        checks=["SELECT count(*) < 10 FROM bills WHERE paid"],
        then="approve",
        approval={"subject": "Pay {{ highest() }}?", "response_timeout": timedelta(hours=8)},
    )
    change >> LakebaseSqlOperator(task_id="after", sql="SELECT 1")
