"""Rows of another database into a table.

The other database is the same one here, so that the example runs as it stands.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG

from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.operators.transfer import LakebaseTransferOperator

with DAG(
    dag_id="lakebase_transfer",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["lakebase"],
) as dag:
    create = LakebaseSqlOperator(
        task_id="create",
        sql="CREATE TABLE IF NOT EXISTS transferred (day date, id bigint, amount numeric(12, 2))",
    )

    # [START lakebase_transfer]
    transfer = LakebaseTransferOperator(
        task_id="transfer",
        source_conn_id="lakebase_default",  # any connection to a database: postgres, mysql, snowflake …
        sql="SELECT date '2026-01-01' AS day, n AS id, n * 0.5 AS amount FROM generate_series(1, 20000) AS n",
        table="transferred",
        mode="replace",
        where={"day": "2026-01-01"},  # readers see the old rows of the day, or the new ones
    )
    # [END lakebase_transfer]

    create >> transfer
