"""A branch for each pull request: with production's rows, and nothing of it reaches production.

Runs as it stands with the environment variables of the Lakebase documentation, here as a branch deployment::

    export DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT=1 DAGSTER_CLOUD_GIT_BRANCH=faster-pages
    dagster job execute -f branches.py -j lakebase_site_job
    dagster job execute -f branches.py -j pull_request_closed
"""

from pathlib import Path

import dagster as dg
import pandas as pd

from dagster_lakebase import (
    LakebaseBranchDeployment,
    LakebaseIOManager,
    build_lakebase_migration_asset,
    build_lakebase_sweep_sensor,
    lakebase_create_branch_op,
    lakebase_delete_branch_op,
    lakebase_sweep_branches_op,
    validate_table_owners,
)

# [START dagster_branches]
# In production the connection that the environment describes; in a branch deployment a branch of it.
lakebase = LakebaseBranchDeployment(ttl=3 * 86_400)

migrations = build_lakebase_migration_asset(
    Path(__file__).parent / "migrations", asset="example_site_migrations"
)


@dg.asset(deps=[migrations], kinds={"postgres"})
def example_site_visits(lakebase: LakebaseBranchDeployment) -> None:
    """Written to the branch alone."""
    lakebase.execute("INSERT INTO example_site.visits VALUES (current_date, '/', 1)")


@dg.asset(key_prefix="example_site", deps=[example_site_visits])
def pages(lakebase: LakebaseBranchDeployment) -> pd.DataFrame:
    """Counts what production has, too: the branch began with its rows."""
    query = "SELECT page, sum(visitors)::int AS visitors FROM example_site.visits GROUP BY page"
    return lakebase.fetch(query, as_="pandas")


@dg.job
def pull_request_opened() -> None:
    """Makes the branch, which the first run would make otherwise."""
    lakebase_create_branch_op()


@dg.job
def pull_request_closed() -> None:
    """Deletes the branch; what is forgotten goes by its ttl."""
    lakebase_delete_branch_op()


@dg.job
def sweep_leases() -> None:
    """What the sensor does each hour, now: its configuration says of what age."""
    lakebase_sweep_branches_op()


defs = validate_table_owners(
    dg.Definitions(
        assets=[migrations, example_site_visits, pages],
        jobs=[
            dg.define_asset_job("lakebase_site_job", executor_def=dg.in_process_executor),
            pull_request_opened,
            pull_request_closed,
            sweep_leases,
        ],
        # What leases of killed runs left behind, each hour.
        sensors=[build_lakebase_sweep_sensor()],
        resources={"lakebase": lakebase, "io_manager": LakebaseIOManager(lakebase=lakebase)},
    )
)
# [END dagster_branches]
