"""Long statements in the triggerer: no worker waits while the database works."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, task

from lakebase_provider.operators.sql import LakebaseSqlOperator

with DAG(
    dag_id="lakebase_deferrable",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # Airflow may fail a task that comes back from the triggerer at once: a retry mends it.
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["lakebase"],
) as dag:
    # [START lakebase_deferrable]
    rebuild = LakebaseSqlOperator(
        task_id="rebuild",
        # One transaction: readers see the old rows until the new ones are complete, and a second run of the
        # task, whatever ended the first, gives the same rows.
        sql="""
            CREATE TABLE IF NOT EXISTS deferrable_squares (n bigint PRIMARY KEY, square bigint NOT NULL);
            DELETE FROM deferrable_squares;
            INSERT INTO deferrable_squares SELECT n, n * n FROM generate_series(1, %(count)s::bigint) AS n
        """,
        parameters={"count": 1000},
        deferrable=True,
        execution_timeout=timedelta(hours=2),
    )

    @task
    def report(result: dict[str, list[int]]) -> int:
        """The rows that the last statement inserted: it is counts that the task returns, never rows."""
        return result["rows"][-1]

    report(rebuild.output)
    # [END lakebase_deferrable]
