"""Health in Dagster: before what depends on it, between runs, and by hand.

Runs with the environment variables of the Lakebase documentation::

    dagster job execute -f health.py -j lakebase_health_job
"""

import dagster as dg

from dagster_lakebase import (
    LakebaseResource,
    build_lakebase_health_checks,
    build_lakebase_health_sensor,
    build_lakebase_inspection_checks,
    lakebase_health_check_op,
)
from lakebase_provider.core import HealthLimits

# [START dagster_health]
LIMITS = HealthLimits(max_connections_used=0.9, min_token_seconds=60)


@dg.asset(kinds={"postgres"})
def customers(lakebase: LakebaseResource) -> dg.MaterializeResult:
    """A table that reports depend on."""
    with lakebase.get_connection() as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS example_customers (id bigint PRIMARY KEY, name text)")
    return dg.MaterializeResult(metadata={"dagster/table_name": "public.example_customers"})


@dg.job
def lakebase_health_job() -> None:
    """The check as an op."""
    lakebase_health_check_op()


defs = dg.Definitions(
    assets=[customers],
    # Blocking: what depends on customers is not materialized unless the database is healthy.
    asset_checks=[
        *build_lakebase_health_checks([customers], limits=LIMITS),
        # Not blocking: what needs a look, such as bloat, stops no run.
        *build_lakebase_inspection_checks([customers], limits={"connections": [0.5, 0.9]}),
    ],
    # Observes every ten minutes, so that latency is plotted between runs too.
    sensors=[build_lakebase_health_sensor([customers], limits=LIMITS, minimum_interval_seconds=600)],
    jobs=[lakebase_health_job],
    resources={"lakebase": LakebaseResource()},
)
# [END dagster_health]
