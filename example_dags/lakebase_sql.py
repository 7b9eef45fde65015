"""One statement each: limits of time, a transaction that may only read, and what happens to many rows."""

from __future__ import annotations

import os
import tempfile
from datetime import datetime, timedelta

from airflow.sdk import DAG

from lakebase_provider.operators.sql import LakebaseSqlOperator

# A bucket in earnest, such as s3://aws_default@reports; a worker's own disk is gone with the worker.
REPORTS = os.environ.get("LAKEBASE_EXAMPLE_REPORTS", f"file://{tempfile.gettempdir()}/lakebase_reports")

with DAG(
    dag_id="lakebase_sql", schedule=None, start_date=datetime(2026, 1, 1), catchup=False, tags=["lakebase"]
) as dag:
    # [START lakebase_sql_timeouts]
    limited = LakebaseSqlOperator(
        task_id="limited",
        sql="SELECT count(*) FROM pg_catalog.pg_class",
        statement_timeout=30,  # seconds; the server cancels a statement that takes longer
        lock_timeout=5,  # seconds that a statement waits for a lock
        execution_timeout=timedelta(minutes=2),  # for the whole task; it ends on the server too
    )
    # [END lakebase_sql_timeouts]

    # [START lakebase_sql_read_only]
    read_only = LakebaseSqlOperator(
        task_id="read_only",
        sql="SELECT relname FROM pg_catalog.pg_class WHERE relkind = %(kind)s ORDER BY relname LIMIT 10",
        parameters={"kind": "r"},
        read_only=True,
        max_xcom_rows=100,
    )
    # [END lakebase_sql_read_only]

    # [START lakebase_sql_output]
    report = LakebaseSqlOperator(
        task_id="report",
        sql="SELECT n AS id, n * 0.5 AS amount FROM generate_series(1, 50000) AS n",
        output_path=REPORTS + "/{{ run_id | replace(':', '_') }}/amounts.csv",
    )
    # [END lakebase_sql_output]

    limited >> read_only >> report
