"""common-sql's own operators on a connection of type lakebase, one task each."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from airflow.providers.common.sql.operators.generic_transfer import GenericTransfer
from airflow.providers.common.sql.operators.sql import (
    BranchSQLOperator,
    SQLBulkLoadOperator,
    SQLCheckOperator,
    SQLColumnCheckOperator,
    SQLExecuteQueryOperator,
    SQLInsertRowsOperator,
    SQLIntervalCheckOperator,
    SQLTableCheckOperator,
    SQLThresholdCheckOperator,
    SQLValueCheckOperator,
)
from airflow.providers.common.sql.sensors.sql import SqlSensor
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

with DAG(
    dag_id="common_sql",
    schedule=None,
    start_date=datetime(2025, 1, 1),
    default_args={"conn_id": "lakebase_default"},
) as dag:
    create = SQLExecuteQueryOperator(
        task_id="execute",
        sql="""
            DROP TABLE IF EXISTS common_sql;
            CREATE TABLE common_sql (id int PRIMARY KEY, tags int[], day date DEFAULT current_date);
            DROP TABLE IF EXISTS common_sql_copy, common_sql_pages, common_sql_file;
            CREATE TABLE common_sql_copy (id int);
            CREATE TABLE common_sql_pages (id int);
            CREATE TABLE common_sql_file (id int, name text);
        """,
        split_statements=True,
    )
    insert = SQLInsertRowsOperator(
        task_id="insert_rows", table_name="common_sql", columns=["id", "tags"], rows=[(1, [1, 2]), (2, [3])]
    )
    replace = SQLInsertRowsOperator(
        task_id="replace_rows",
        table_name="common_sql",
        columns=["id", "tags"],
        rows=[(2, [4]), (3, [])],
        insert_args={"replace": True, "commit_every": 100},
    )
    checks = [
        SQLExecuteQueryOperator(
            task_id="query",
            sql="SELECT id, tags FROM common_sql WHERE id = ANY(%(ids)s) ORDER BY id",
            parameters={"ids": [1, 2, 3]},
        ),
        SQLColumnCheckOperator(
            task_id="column_check",
            table="common_sql",
            column_mapping={"id": {"null_check": {"equal_to": 0}, "max": {"equal_to": 3}}},
        ),
        SQLTableCheckOperator(
            task_id="table_check",
            table="common_sql",
            checks={"three": {"check_statement": "count(*) = 3"}},
        ),
        SQLCheckOperator(task_id="check", sql="SELECT count(*) = 3 FROM common_sql"),
        SQLValueCheckOperator(task_id="value_check", sql="SELECT count(*) FROM common_sql", pass_value=3),
        SQLThresholdCheckOperator(
            task_id="threshold_check",
            sql="SELECT count(*) FROM common_sql",
            min_threshold=1,
            max_threshold="SELECT 3",
        ),
        SQLIntervalCheckOperator(
            task_id="interval_check",
            table="common_sql",
            date_filter_column="day",
            days_back=0,
            metrics_thresholds={"count(*)": 1.5},
        ),
        SqlSensor(task_id="sensor", sql="SELECT count(*) FROM common_sql", poke_interval=1, timeout=30),
        GenericTransfer(
            task_id="transfer",
            sql="SELECT id FROM common_sql",
            destination_table="common_sql_copy",
            source_conn_id="lakebase_default",
            destination_conn_id="lakebase_default",
            preoperator="TRUNCATE common_sql_copy",
            insert_args={"target_fields": ["id"]},
        ),
        # Each page is read by common-sql's trigger.
        GenericTransfer(
            task_id="transfer_by_pages",
            sql="SELECT n FROM generate_series(1, 5) AS g (n) ORDER BY n",
            destination_table="common_sql_pages",
            source_conn_id="lakebase_default",
            destination_conn_id="lakebase_default",
            insert_args={"target_fields": ["id"]},
            page_size=2,
            deferrable=True,
        ),
        SQLBulkLoadOperator(
            task_id="bulk_load",
            table="common_sql_file",
            tmp_file=str(Path(os.environ["AIRFLOW_HOME"]) / "common_sql.tsv"),
        ),
        SQLExecuteQueryOperator(
            task_id="other_database", sql="SELECT current_database()", database="postgres"
        ),
    ]

    @task.sql(task_id="decorated", conn_id="lakebase_default")
    def decorated() -> str:
        return "SELECT count(*) FROM common_sql"

    branch = BranchSQLOperator(
        task_id="branch",
        sql="SELECT count(*) = 3 FROM common_sql",
        follow_task_ids_if_true="followed",
        follow_task_ids_if_false="not_followed",
    )
    ends = [EmptyOperator(task_id="followed"), EmptyOperator(task_id="not_followed")]
    create >> insert >> replace >> [*checks, decorated(), branch]
    branch >> ends
