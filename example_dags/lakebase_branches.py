"""Branches for what is risky: work on a copy of the database, which goes whatever becomes of the work."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from airflow.sdk import DAG, task

from lakebase_provider.decorators.branches import lakebase_branch
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.operators.branches import (
    LakebaseCreateBranchOperator,
    LakebaseDeleteBranchOperator,
    LakebaseResetBranchOperator,
    LakebaseSweepBranchesOperator,
)
from lakebase_provider.operators.migrate import LakebaseMigrateOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.sensors.branches import LakebaseBranchSensor

MIGRATIONS = os.environ.get("LAKEBASE_EXAMPLE_MIGRATIONS", "/opt/airflow/migrations")

with DAG(
    dag_id="lakebase_branches",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # Airflow may fail a task that comes back from the triggerer at once: a retry mends it.
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["lakebase"],
) as dag:
    # [START lakebase_branch]
    @lakebase_branch(ttl=4 * 3600)
    def try_it(branch: str) -> None:
        """Nothing in here happens on production."""
        rebuild = LakebaseSqlOperator(task_id="rebuild", sql="CREATE TABLE tried AS SELECT 1 AS n")

        @task
        def look(where: str) -> int:
            """A function says itself where it works."""
            return int(
                LakebaseHook("lakebase_default", branch=where).get_first("SELECT sum(n) FROM tried")[0]
            )

        rebuild >> look(branch)

    # [END lakebase_branch]

    # [START lakebase_branch_tasks]
    create = LakebaseCreateBranchOperator(task_id="create", ttl=4 * 3600, deferrable=True).as_setup()
    there = create.output["name"]

    ready = LakebaseBranchSensor(task_id="ready", branch=there, poke_interval=30)
    migrate_there = LakebaseMigrateOperator(task_id="migrate_there", folder=MIGRATIONS, branch=there)
    again = LakebaseResetBranchOperator(task_id="again", branch=there)
    delete = LakebaseDeleteBranchOperator(task_id="delete", branch=there).as_teardown(setups=create)
    # [END lakebase_branch_tasks]

    # [START lakebase_migrate]
    migrate = LakebaseMigrateOperator(task_id="migrate", folder=MIGRATIONS, lock_timeout=5)
    # [END lakebase_migrate]

    create >> ready >> migrate_there >> again >> delete
    try_it() >> migrate
    again >> migrate

# [START lakebase_sweep]
with DAG(
    dag_id="lakebase_sweep", schedule="@daily", start_date=datetime(2026, 1, 1), catchup=False
) as sweep_dag:
    LakebaseSweepBranchesOperator(task_id="sweep", older_than=2 * 86_400)
# [END lakebase_sweep]
