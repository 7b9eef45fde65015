"""The checks of common-sql on a connection of type lakebase, as they are."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.sql.operators.sql import (
    SQLCheckOperator,
    SQLColumnCheckOperator,
    SQLTableCheckOperator,
    SQLThresholdCheckOperator,
)
from airflow.sdk import DAG

with DAG(
    dag_id="lakebase_checks",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"conn_id": "lakebase_default"},
    tags=["lakebase"],
) as dag:
    # [START lakebase_checks]
    has_tables = SQLCheckOperator(task_id="has_tables", sql="SELECT count(*) > 0 FROM pg_catalog.pg_tables")
    few_sessions = SQLThresholdCheckOperator(
        task_id="few_sessions",
        sql="SELECT count(*) FROM pg_catalog.pg_stat_activity",
        min_threshold=1,
        max_threshold="SELECT current_setting('max_connections')::int",
    )
    columns = SQLColumnCheckOperator(
        task_id="columns",
        table="pg_catalog.pg_class",
        column_mapping={"relname": {"null_check": {"equal_to": 0}}},
    )
    table = SQLTableCheckOperator(
        task_id="table",
        table="pg_catalog.pg_class",
        checks={"row_count": {"check_statement": "count(*) > 100"}},
    )
    # [END lakebase_checks]

    has_tables >> [few_sessions, columns, table]
