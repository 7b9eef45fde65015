"""From observation to freshness to automation: a table that a shop writes, and a report that follows it.

Runs with the environment variables of the Lakebase documentation::

    dagster dev -f freshness.py

The table is ``example_visits`` with a column ``seen_at timestamptz NOT NULL DEFAULT now()``. Switch on the
schedule and the automation sensor under "Automation".
"""

from datetime import timedelta

import dagster as dg

from dagster_lakebase import LakebaseResource, build_lakebase_table_observation

# [START dagster_freshness]
visits = dg.AssetSpec("example_visits")

# 1. Observation: every ten minutes, what the database knows of the table. Its data version is another one
#    after a write; the column tells it where the server's own statistics were lost.
observed = build_lakebase_table_observation([visits], timestamp_column="seen_at")
observe_visits = dg.define_asset_job("observe_visits", selection=[observed])

# 2. Freshness: a table that nobody has written for two hours is overdue. Judged by the observed time.
fresh = dg.build_last_update_freshness_checks(
    assets=[visits.key], lower_bound_delta=timedelta(hours=2), severity=dg.AssetCheckSeverity.WARN
)


# 3. Automation: made anew when an observation has found another data version, and only then.
@dg.asset(deps=[visits], automation_condition=dg.AutomationCondition.eager())
def example_visit_report(lakebase: LakebaseResource) -> dg.MaterializeResult[None]:
    """How many visits there are."""
    [(count,)] = lakebase.fetch("SELECT count(*) FROM example_visits")
    return dg.MaterializeResult(metadata={"visits": count})


defs = dg.Definitions(
    assets=[observed, example_visit_report],
    asset_checks=fresh,
    jobs=[observe_visits],
    schedules=[dg.ScheduleDefinition(job=observe_visits, cron_schedule="*/10 * * * *")],
    sensors=[
        dg.build_sensor_for_freshness_checks(freshness_checks=fresh),
        dg.AutomationConditionSensorDefinition("automation", target=[example_visit_report]),
    ],
    resources={"lakebase": LakebaseResource()},
)
# [END dagster_freshness]
