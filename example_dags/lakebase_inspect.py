"""What is not well in the database, once a day: bloat, unused indexes, sequences near their end, and more.

The connection is ``lakebase_default``; its id is no DAG parameter, because whoever may trigger a run could
then have another connection's credentials used.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG

from lakebase_provider.operators.health import LakebaseInspectOperator

with DAG(
    dag_id="lakebase_inspect",
    schedule=timedelta(days=1),
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["lakebase"],
) as dag:
    # [START lakebase_inspect]
    LakebaseInspectOperator(
        task_id="inspect",
        limits={
            "connections": [0.5, 0.8],  # a warning from half of them on, bad from 80 %
            "partitions": [14, 3],  # days until the last one ends
            "database_size": 50 * 1024**3,  # bytes; a warning only
            "tables_without_primary_key": None,  # counted, and well whatever it is
        },
        fail_on="bad",  # what needs a look is a warning here; with "warn" it fails the task too
    )
    # [END lakebase_inspect]
