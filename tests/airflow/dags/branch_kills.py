"""Work on a branch, in a process that is killed: each task says when it begins."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.sdk import DAG

from lakebase_provider.operators.branches import LakebaseCreateBranchOperator, LakebaseDeleteBranchOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator
from tests.airflow.test_branch_kills import said_by
from tests.core.upkeep.leases import WORK

with DAG("branch_kills", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)) as dag:
    create = LakebaseCreateBranchOperator(task_id="create", ttl=3600, pre_execute=said_by).as_setup()
    there = create.output
    work = LakebaseSqlOperator(
        task_id="work", sql=[*WORK], autocommit=True, branch=there["name"], pre_execute=said_by
    )
    delete = LakebaseDeleteBranchOperator(
        task_id="delete", branch=there["name"], uid=there["uid"], pre_execute=said_by
    ).as_teardown(setups=create)
    create >> work >> delete
