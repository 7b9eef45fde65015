"""What runs at night: loads and branches that something ends, statements that wait, and crowds of tasks."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from airflow.sdk import DAG, task

from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.operators.branches import LakebaseCreateBranchOperator, LakebaseDeleteBranchOperator
from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator

FOLDER = os.environ.get("NIGHT_FOLDER", "/no/such/folder")
DEFAULTS = {"retries": 2, "retry_delay": timedelta(seconds=1)}
STARTED = datetime(2026, 1, 1)

# The tables' triggers let a load take as long as a test wants: see test_airflow_night.py.
for name in ("asked_to_end", "killed", "marked_failed"):
    with DAG(dag_id=f"night_{name}", schedule=None, start_date=STARTED, default_args=DEFAULTS):
        LakebaseLoadOperator(task_id="load", source=f"{FOLDER}/rows.csv", table=f"night_{name}")

with DAG(dag_id="night_cleared", schedule=None, start_date=STARTED, default_args=DEFAULTS):
    truncate = LakebaseSqlOperator(task_id="truncate", sql="TRUNCATE night_cleared")
    truncate >> LakebaseLoadOperator(task_id="load", source=f"{FOLDER}/rows.csv", table="night_cleared")

with DAG(dag_id="night_deferred", schedule=None, start_date=STARTED, default_args=DEFAULTS):
    LakebaseSqlOperator(
        task_id="insert",
        sql="INSERT INTO night_deferred SELECT 1 FROM pg_sleep((SELECT seconds FROM night_pace))",
        deferrable=True,
    )

with DAG(dag_id="night_branch", schedule=None, start_date=STARTED, default_args=DEFAULTS):
    create = LakebaseCreateBranchOperator(task_id="create", ttl=3600, deferrable=True).as_setup()
    there = create.output
    # Long enough to be killed in.
    work = LakebaseSqlOperator(
        task_id="work",
        sql=["DELETE FROM night_kept", "INSERT INTO night_kept SELECT 0 FROM pg_sleep(5)"],
        branch=there["name"],
    )
    delete = LakebaseDeleteBranchOperator(
        task_id="delete", branch=there["name"], uid=there["uid"], deferrable=True
    ).as_teardown(setups=create)
    create >> work >> delete

with DAG(
    dag_id="night_crowd",
    schedule=None,
    start_date=STARTED,
    max_active_tasks=60,
    default_args={"retries": 0},
):

    @task
    def hold(number: int) -> int:
        """Hold a connection for some seconds, as a query does.

        Args:
            number: Which of the mapped tasks this is.
        """
        hook = LakebaseHook("lakebase_crowd")
        with hook.get_conn() as connection:
            connection.execute("SELECT pg_sleep(3)")
        return number

    hold.expand(number=list(range(60)))
