"""A file into a table: a day's orders, merged by their key.

Each run writes its own file first, so that the example runs as it stands; in earnest somebody else does.
"""

from __future__ import annotations

import os
import tempfile
from datetime import datetime, timedelta

from airflow.sdk import DAG, ObjectStoragePath, task

from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator

# A bucket in earnest, such as s3://aws_default@orders; a worker's own disk is gone with the worker.
FILES = os.environ.get("LAKEBASE_EXAMPLE_REPORTS", f"file://{tempfile.gettempdir()}/lakebase_orders")
ORDERS = int(os.environ.get("LAKEBASE_EXAMPLE_ORDERS", "1000"))

with DAG(
    dag_id="lakebase_load",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["lakebase"],
) as dag:
    create = LakebaseSqlOperator(
        task_id="create",
        sql="CREATE TABLE IF NOT EXISTS load_orders (id bigint PRIMARY KEY, amount numeric(12, 2) NOT NULL)",
    )

    @task
    def extract(uri: str) -> str:
        """Write a file of this run's own.

        Args:
            uri: Where.

        Returns:
            The same.
        """
        path = ObjectStoragePath(uri)
        if path.protocol == "file":
            path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            file.write("id,amount\n")
            file.writelines(f"{i},{i * 37 % 10_000 / 100}\n" for i in range(1, ORDERS + 1))
        return uri

    orders = extract(FILES + "/{{ run_id | replace(':', '_') }}/orders.csv")

    # [START lakebase_load]
    load = LakebaseLoadOperator(
        task_id="load",
        source=orders,  # a task's output; or a path or URI: "s3://aws_default@orders/{{ ds }}.parquet"
        table="load_orders",
        mode="merge",
        keys=["id"],
    )
    # [END lakebase_load]

    # [START lakebase_load_reject]
    tolerant = LakebaseLoadOperator(
        task_id="tolerant",
        source="{{ ti.xcom_pull(task_ids='extract') }}",
        table="load_orders",
        mode="replace",
        on_error="reject",
        reject_to="load_orders_rejected",
    )
    # [END lakebase_load_reject]

    create >> load >> tolerant
