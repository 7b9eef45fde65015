"""Lakehouse sync: what a task commits in Postgres is waited for until it is in Delta."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, task

from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.sensors.sync import LakebaseInDeltaSensor

with DAG(
    dag_id="lakebase_mirror",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["lakebase"],
) as dag:
    create = LakebaseSqlOperator(
        task_id="create",
        sql=[
            "CREATE SCHEMA IF NOT EXISTS shop",
            "CREATE TABLE IF NOT EXISTS shop.orders (id bigserial PRIMARY KEY, note text)",
            "ALTER TABLE shop.orders REPLICA IDENTITY FULL",
        ],
    )

    @task
    def follow() -> None:
        """Have the schema's changes written to Delta tables from now on."""
        from lakebase_provider.hooks.lakebase import LakebaseHook

        configs = LakebaseHook().client.workspace.cdf_configs
        configs.ensure("orders_mirror", catalog="main", schema="shop_mirror", postgres_schema="shop")

    # [START lakebase_in_delta_sensor]
    commit = LakebaseSqlOperator(
        task_id="commit",
        # Each statement is its own transaction: the position is that after the commit.
        sql="INSERT INTO shop.orders (note) VALUES ('new'); SELECT pg_current_wal_lsn()::text",
        split_statements=True,
        autocommit=True,
    )
    in_delta = LakebaseInDeltaSensor(
        task_id="in_delta",
        lsn="{{ ti.xcom_pull('commit')[0][0] }}",
        cdf_config="orders_mirror",
        tables=["orders"],
        poke_interval=5,  # seconds
        timeout=600,
        deferrable=True,
    )
    # [END lakebase_in_delta_sensor]

    create >> follow() >> commit >> in_delta
