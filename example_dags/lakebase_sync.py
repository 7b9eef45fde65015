"""A synced table: declared, synced after the job that writes its source, and used when the rows are there."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG

from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.operators.sync import LakebaseSyncedTableOperator, LakebaseSyncOperator
from lakebase_provider.sensors.sync import LakebaseSyncedTableSensor

with DAG(
    dag_id="lakebase_sync",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # Airflow may fail a task that comes back from the triggerer at once: a retry mends it.
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["lakebase"],
) as dag:
    # [START lakebase_sync]
    declare = LakebaseSyncedTableOperator(
        task_id="declare",
        action="reconcile",
        table="main.served.trips",
        options={
            "source_table": "main.samples.trips",  # `lakebase local delta` writes it on a local Lakebase
            "primary_key": ["id"],
            "scheduling_policy": "TRIGGERED",
        },
        view="public.trips",  # what readers use, whichever table is in use
    )
    # Behind the job that writes the source. With its version, version=job.output, one update is enough.
    sync = LakebaseSyncOperator(
        task_id="sync", table=declare.output["name"], source="main.samples.trips", deferrable=True
    )
    use = LakebaseSqlOperator(
        task_id="use", sql="SELECT count(*) FROM public.trips WHERE fare > 10", read_only=True
    )
    # [END lakebase_sync]

    # [START lakebase_synced_table_sensor]
    synced_by_others = LakebaseSyncedTableSensor(
        task_id="synced_by_others",
        table=declare.output["name"],
        since="{{ dag_run.start_date }}",  # or version=job.output
        poke_interval=30,  # seconds
        timeout=3600,
        deferrable=True,
    )
    # [END lakebase_synced_table_sensor]

    declare >> sync >> [use, synced_by_others]
