"""Snapshots that outlive the history, earlier data on new branches, and a bigger endpoint for a job."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import DAG

from lakebase_provider.operators.branches import (
    LakebaseDeleteBranchOperator,
    LakebaseEndpointOperator,
    LakebaseRestoreOperator,
    LakebaseSnapshotOperator,
)
from lakebase_provider.operators.sql import LakebaseSqlOperator

with DAG(
    dag_id="lakebase_restore",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["lakebase"],
) as dag:
    # [START lakebase_restore]
    snapshot = LakebaseSnapshotOperator(
        task_id="snapshot", source="production", ttl=30 * 86_400, deferrable=True
    )
    month_end = LakebaseRestoreOperator(
        task_id="month_end", branch_id="month-end", snapshot=snapshot.output["name"], ttl=86_400
    )
    before = LakebaseRestoreOperator(
        task_id="before", branch_id="before", at_time="{{ dag_run.start_date }}", ttl=86_400, deferrable=True
    )
    # [END lakebase_restore]

    # [START lakebase_endpoint]
    grow = LakebaseEndpointOperator(
        task_id="grow", action="resize", size={"min_cu": 2, "max_cu": 4}
    ).as_setup()
    reader = LakebaseEndpointOperator(
        task_id="reader", action="replica", endpoint="reader", size={"min_cu": 0.5, "max_cu": 2}
    ).as_setup()
    warm = LakebaseEndpointOperator(task_id="warm", action="warm", tables=["pg_catalog.pg_class"])
    job = LakebaseSqlOperator(task_id="job", sql="SELECT count(*) FROM pg_class")
    shrink = LakebaseEndpointOperator(task_id="shrink", action="resize", size={"min_cu": 0.5, "max_cu": 1})
    no_reader = LakebaseEndpointOperator(task_id="no_reader", action="delete", endpoint="reader")

    grow >> warm >> job >> shrink.as_teardown(setups=grow)
    reader >> job >> no_reader.as_teardown(setups=reader)
    # [END lakebase_endpoint]

    delete_before = LakebaseDeleteBranchOperator(
        task_id="delete_before", branch=before.output["name"], deferrable=True
    )
    month_end >> LakebaseDeleteBranchOperator(task_id="delete_month_end", branch=month_end.output["name"])
    before >> delete_before >> [grow, reader]
