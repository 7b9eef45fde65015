"""A run for each sync of a synced table, whoever has triggered it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from lakebase_provider.triggers.sync import LakebaseSyncEventTrigger

# [START lakebase_sync_watcher]
synced = Asset(
    "lakebase://ep-example.database.us-east-1.cloud.databricks.com/databricks_postgres/served/trips",
    watchers=[
        AssetWatcher(
            name="trips_synced",
            trigger=LakebaseSyncEventTrigger(table="main.served.trips", poke_interval=60),  # seconds
        )
    ],
)

with DAG(
    dag_id="lakebase_sync_watcher", schedule=[synced], start_date=datetime(2026, 1, 1), tags=["lakebase"]
) as dag:

    @task
    def versions(triggering_asset_events: Any = None) -> list[int]:
        """Versions of the source whose rows have come since the last run."""
        events = [event for of_asset in triggering_asset_events.values() for event in of_asset]
        return [event.extra["payload"]["version"] for event in events]

    versions()
# [END lakebase_sync_watcher]
