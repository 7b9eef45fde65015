"""From a Delta table to a synced table to who reads it, and from Postgres back to Delta.

Runs with the environment variables of the Lakebase documentation, and ``EXAMPLE_TRIPS``, the path or URI of
the Delta table that is ``main.src.example_trips`` in the Unity Catalog::

    dagster job execute -f synced_tables.py -j sync_trips

The table that Lakehouse sync follows is ``example_bookings``, by the configuration ``example_mirror``.
"""

import os

import dagster as dg

from dagster_lakebase import (
    LakebaseResource,
    LakebaseSyncConfig,
    build_lakebase_mirror_checks,
    build_lakebase_sync_asset,
    build_lakebase_sync_checks,
    build_lakebase_synced_table_observation,
    lakebase_sync_op,
)
from lakebase_provider.core import delta_version

# [START dagster_synced_table]
TRIPS = os.environ.get("EXAMPLE_TRIPS", "s3://lake/trips")


@dg.observable_source_asset
def raw_trips() -> dg.DataVersion:
    """A job of Databricks writes it; its version is that of the newest commit that may have changed a row."""
    return dg.DataVersion(str(delta_version(TRIPS)))


# To materialize it is to sync it: all is there then that the Delta table had. It is made if it is missing.
trips = build_lakebase_sync_asset(
    dg.AssetSpec(
        "trips",
        deps=[raw_trips],
        metadata={"lakebase/synced_table": "main.public.example_trips"},
        # When an observation has found another version.
        automation_condition=dg.AutomationCondition.eager(),
        kinds={"postgres"},
    ),
    source=TRIPS,
    declared={
        "source_table": "main.src.example_trips",
        "primary_key": ["id"],
        "scheduling_policy": "TRIGGERED",
    },
    retry_policy=dg.RetryPolicy(max_retries=2, delay=30),
)
# The last update did not fail, though the table be online; and it is not a day old.
synced = build_lakebase_sync_checks([trips], max_age=86_400)
observe_trips = dg.define_asset_job("observe_trips", selection=dg.AssetSelection.assets(raw_trips.key))
sync_trips = dg.define_asset_job("sync_trips", selection=[trips], executor_def=dg.in_process_executor)
# [END dagster_synced_table]


# [START dagster_synced_table_op]
@dg.job(
    config=dg.RunConfig(
        ops={"lakebase_sync_op": LakebaseSyncConfig(synced_table="main.public.example_trips", timeout=600)}
    )
)
def sync_alone() -> None:
    """Without an asset, such as after an op that starts the job of Databricks."""
    lakebase_sync_op()


# [END dagster_synced_table_op]

# [START dagster_synced_table_observation]
# Databricks syncs it on a schedule of its own. The data version is that of the Delta table.
stations = dg.AssetSpec("stations", metadata={"lakebase/synced_table": "main.public.example_stations"})
observed = build_lakebase_synced_table_observation([stations])
observe_stations = dg.define_asset_job("observe_stations", selection=[observed])


# Made anew when a sync has brought something, and only then.
@dg.asset(deps=[stations], automation_condition=dg.AutomationCondition.eager())
def station_report(lakebase: LakebaseResource) -> dg.MaterializeResult[None]:
    """How many stations there are."""
    [(count,)] = lakebase.fetch("SELECT count(*) FROM example_stations")
    return dg.MaterializeResult(metadata={"stations": count})


# [END dagster_synced_table_observation]


# [START dagster_mirror]
@dg.asset(kinds={"postgres"})
def example_bookings(lakebase: LakebaseResource) -> None:
    """What is written here, Lakehouse sync writes to Delta."""
    lakebase.execute("INSERT INTO example_bookings (booked_at) VALUES (now())")


# In the same run: whoever reads the Delta table begins when it has the booking.
mirrored = build_lakebase_mirror_checks(
    [example_bookings], config="example_mirror", max_lag=120, blocking=True
)


@dg.asset(deps=[example_bookings], kinds={"databricks"})
def bookings_of_today() -> None:
    """Such as a job of Databricks that reads ``main.mirror.lb_example_bookings_history``."""


book = dg.define_asset_job(
    "book", selection=[example_bookings, bookings_of_today], executor_def=dg.in_process_executor
)
# [END dagster_mirror]

defs = dg.Definitions(
    assets=[raw_trips, trips, observed, station_report, example_bookings, bookings_of_today],
    asset_checks=[*synced, *mirrored],
    jobs=[observe_trips, sync_trips, sync_alone, observe_stations, book],
    schedules=[
        dg.ScheduleDefinition(job=job, cron_schedule="*/10 * * * *")
        for job in (observe_trips, observe_stations)
    ],
    sensors=[dg.AutomationConditionSensorDefinition("automation", target=[trips, station_report])],
    resources={"lakebase": LakebaseResource()},
)
