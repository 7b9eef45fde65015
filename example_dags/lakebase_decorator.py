"""SQL that a function writes."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import DAG, task

with DAG(
    dag_id="lakebase_decorator",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["lakebase"],
) as dag:
    # [START lakebase_decorator]
    @task.lakebase_sql(conn_id="lakebase_default", parameters={"least": 2}, statement_timeout=30)
    def numbers(columns: list[str]) -> str:
        """The statement; its values go as parameters, never into the text."""
        chosen = ", ".join(name for name in ("n", "square") if name in columns)
        return f"""
            SELECT {chosen} FROM (SELECT n, n * n AS square FROM generate_series(1, 4) AS n) AS numbers
            WHERE n >= %(least)s
        """  # noqa: S608 # of two names that stand above

    numbers(["n", "square"])
    # [END lakebase_decorator]
