"""A change that is tried on a branch first, and reaches production only if it did there what it should."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import DAG

from lakebase_provider.operators.rehearse import LakebaseRehearseOperator
from lakebase_provider.operators.restore_rows import LakebaseRestorePointOperator, LakebaseRestoreRowsOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator

with DAG(
    dag_id="lakebase_rehearse",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["lakebase"],
) as dag:
    bills = LakebaseSqlOperator(
        task_id="bills",
        sql=[
            "DROP TABLE IF EXISTS bills",
            "CREATE TABLE bills (id int PRIMARY KEY, paid boolean NOT NULL DEFAULT false)",
            "INSERT INTO bills SELECT generate_series(1, 100)",
        ],
    )

    # [START lakebase_rehearse]
    change = LakebaseRehearseOperator(
        task_id="change",
        sql="UPDATE bills SET paid = true WHERE id <= 10",
        checks=["SELECT count(*) = 10 FROM bills WHERE paid", {"table": "bills", "min_rows": 100}],
        tables=["bills"],
        then="run",
    )
    # [END lakebase_rehearse]

    # [START lakebase_restore_rows]
    before = LakebaseRestorePointOperator(task_id="before")
    clean = LakebaseSqlOperator(task_id="clean", sql="DELETE FROM bills WHERE id < 50")

    look = LakebaseRestoreRowsOperator(task_id="look", table="bills", at=before.output)
    undo = LakebaseRestoreRowsOperator(
        task_id="undo", table="bills", at=before.output, where="paid", dry_run=False
    )
    # [END lakebase_restore_rows]

    bills >> change >> before >> clean >> look >> undo
