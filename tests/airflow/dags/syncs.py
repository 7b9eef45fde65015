"""A sync whose worker is killed, and an asset that is told of syncs; the table is the test's."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.sdk import DAG, Asset, AssetWatcher, task

from lakebase_provider.operators.sync import LakebaseSyncOperator
from lakebase_provider.triggers.sync import LakebaseSyncEventTrigger

TABLE = os.environ["SYNCED_TABLE"]
watcher = AssetWatcher(name="synced", trigger=LakebaseSyncEventTrigger(table=TABLE, poke_interval=0.2))
synced = Asset("synced_table", watchers=[watcher])

with DAG(
    dag_id="syncs",
    schedule=[synced],
    start_date=datetime(2026, 1, 1),
    default_args={"retries": 1},
    is_paused_upon_creation=False,
) as dag:
    LakebaseSyncOperator(task_id="sync", table=TABLE, version=1, outlets=[Asset("synced_by_task")])

    @task
    def told() -> None:
        """Run when a sync has ended."""

    told()
