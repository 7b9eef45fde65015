"""A change that is tried on a branch, shown to a person, and run once that person has approved it."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG

from lakebase_provider.operators.rehearse import LakebaseRehearseOperator
from lakebase_provider.operators.restore_rows import LakebaseRestoreRowsOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator

with DAG(
    dag_id="lakebase_approve",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["lakebase"],
) as dag:
    prices = LakebaseSqlOperator(
        task_id="prices",
        sql=[
            "DROP TABLE IF EXISTS prices",
            "CREATE TABLE prices (id int PRIMARY KEY, cents int NOT NULL)",
            "INSERT INTO prices SELECT n, 100 * n FROM generate_series(1, 100) AS n",
        ],
    )

    # [START lakebase_approve]
    raise_prices = LakebaseRehearseOperator(
        task_id="raise_prices",
        sql="UPDATE prices SET cents = cents * 102 / 100",
        checks=["SELECT max(cents) < 11000 FROM prices"],
        tables=["prices"],
        then="approve",
        approval={"subject": "Raise all prices by 2 %?", "response_timeout": timedelta(days=2)},
    )
    # [END lakebase_approve]

    # [START lakebase_restore_point]
    clean = LakebaseSqlOperator(task_id="clean", sql="DELETE FROM prices WHERE id > 90", restore_point=True)
    undo = LakebaseRestoreRowsOperator(
        task_id="undo", table="prices", at=clean.output["restore_point"], dry_run=False
    )
    # [END lakebase_restore_point]

    prices >> raise_prices >> clean >> undo
