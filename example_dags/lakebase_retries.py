"""Retries where they help, for tasks that use the hook in their own code."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, task

from lakebase_provider.retries import lakebase_retries

with DAG(
    dag_id="lakebase_retries",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["lakebase"],
) as dag:
    # [START lakebase_retries]
    # A waking compute, a deadlock, a full server: again later. A missing table, a refused login: fail now.
    # Before Airflow 3.3, which brought policies, `lakebase_retries` is empty and all failures are retried.
    @task(retries=3, retry_delay=timedelta(seconds=30), **lakebase_retries)
    def count_tables() -> int:
        """What only Python can do."""
        from lakebase_provider.hooks.lakebase import LakebaseHook

        (tables,) = LakebaseHook("lakebase_default").get_first("SELECT count(*) FROM pg_catalog.pg_tables")
        return int(tables)

    count_tables()
    # [END lakebase_retries]
