"""Tables that something outside of Dagster writes, as observable assets.

Runs with the environment variables of the Lakebase documentation::

    dagster job execute -f observation.py -j observe_tables
"""

import dagster as dg

from dagster_lakebase import LakebaseResource, build_lakebase_table_observation

# [START dagster_observation]
tables = build_lakebase_table_observation(
    [
        # Of asset pg_catalog/pg_class, the table is pg_class in the schema pg_catalog.
        dg.AssetSpec(["pg_catalog", "pg_class"]),
        dg.AssetSpec("column_catalog", metadata={"dagster/table_name": "pg_catalog.pg_attribute"}),
    ]
)
observe_tables = dg.define_asset_job("observe_tables", selection=[tables])

defs = dg.Definitions(
    assets=[tables],
    jobs=[observe_tables],
    schedules=[dg.ScheduleDefinition(job=observe_tables, cron_schedule="@hourly")],
    resources={"lakebase": LakebaseResource()},
)
# [END dagster_observation]
