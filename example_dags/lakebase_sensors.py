"""Waiting for the database, and for data in it, without holding a worker."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG

from lakebase_provider.sensors.health import LakebaseHealthSensor
from lakebase_provider.sensors.sql import LakebaseSqlSensor

with DAG(
    dag_id="lakebase_sensors",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # Airflow may fail a task that comes back from the triggerer at once: a retry mends it.
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["lakebase"],
) as dag:
    # [START lakebase_health_sensor]
    healthy = LakebaseHealthSensor(
        task_id="healthy",
        checks=["query"],
        limits={"max_connections_used": 0.9},  # not while others use up nearly all connections
        poke_interval=30,  # seconds
        timeout=600,
        deferrable=True,
    )
    # [END lakebase_health_sensor]

    # [START lakebase_sql_sensor]
    landed = LakebaseSqlSensor(
        task_id="landed",
        # The condition is in the SQL: a Python function could not be sent to the triggerer.
        sql="SELECT count(*) >= %(tables)s FROM pg_catalog.pg_tables",
        parameters={"tables": 1},
        poke_interval=30,
        timeout=600,
        deferrable=True,
    )
    # [END lakebase_sql_sensor]

    # [START lakebase_sql_sensor_functions]
    enough = LakebaseSqlSensor(
        task_id="enough",
        sql="SELECT count(*) FROM pg_catalog.pg_tables",
        success=lambda count: count >= 1,
        mode="reschedule",
        poke_interval=60,
        timeout=600,
    )
    # [END lakebase_sql_sensor_functions]

    healthy >> [landed, enough]
