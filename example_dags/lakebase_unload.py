"""A query into a Parquet file, for those who read files."""

from __future__ import annotations

import os
import tempfile
from datetime import datetime, timedelta

from airflow.sdk import DAG

from lakebase_provider.operators.unload import LakebaseUnloadOperator

# A bucket in earnest, such as s3://aws_default@reports; a worker's own disk is gone with the worker.
FILES = os.environ.get("LAKEBASE_EXAMPLE_REPORTS", f"file://{tempfile.gettempdir()}/lakebase_unloads")

with DAG(
    dag_id="lakebase_unload",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["lakebase"],
) as dag:
    # [START lakebase_unload]
    unload = LakebaseUnloadOperator(
        task_id="unload",
        sql="SELECT n AS id, n * 0.5 AS amount FROM generate_series(1, %(count)s) AS n",
        parameters={"count": 50000},
        to=FILES + "/amounts.parquet",
        format="parquet",
    )
    # [END lakebase_unload]
