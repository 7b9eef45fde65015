"""A statement that outlives its task's time."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG

from lakebase_provider.operators.sql import LakebaseSqlOperator

with DAG(dag_id="kills", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
    LakebaseSqlOperator(task_id="too_long", sql="select pg_sleep(55)", execution_timeout=timedelta(seconds=2))
