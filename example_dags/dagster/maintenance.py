"""Maintenance in Dagster: a nightly job, and an op that a person launches.

Runs with the environment variables of the Lakebase documentation::

    dagster job execute -f maintenance.py -j nightly
"""

import dagster as dg

from dagster_lakebase import LakebaseResource, build_lakebase_maintenance_job, lakebase_maintenance_op

# [START dagster_maintenance]
nightly = build_lakebase_maintenance_job(
    [
        ("partitions", {"table": "example_events", "every": "month", "premake": 3, "keep": 12}),
        ("create_index", {"table": "example_events", "on": ["what"]}),
        ("repair_sequences", {"tables": ["example_events"]}),
        ("vacuum", {"dead_share": 0.2, "lock_timeout": 2}),
    ],
    name="nightly",
)


@dg.job(executor_def=dg.in_process_executor)
def maintain() -> None:
    """Any kind, with options from the launchpad."""
    lakebase_maintenance_op()


defs = dg.Definitions(
    jobs=[nightly, maintain],
    schedules=[dg.ScheduleDefinition(job=nightly, cron_schedule="0 2 * * *")],
    resources={"lakebase": LakebaseResource()},
)
# [END dagster_maintenance]
