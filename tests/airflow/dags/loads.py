"""Tasks that move rows until something ends them; each that loads has a table of its own name."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from airflow.sdk import DAG

from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.transfer import LakebaseTransferOperator
from lakebase_provider.operators.unload import LakebaseUnloadOperator

FOLDER = os.environ.get("LOADS_FOLDER", "/no/such/folder")
ROWS = "select n as id, 'x' as name from generate_series(1, 30000) as n"
#: The first rows come at once, the others do not.
SLOW_ROWS = f"{ROWS} where n <= 20000 or pg_sleep(55) is null"

with DAG(
    dag_id="loads",
    schedule=None,
    start_date=datetime(2025, 1, 1),
    default_args={"execution_timeout": timedelta(minutes=10), "retries": 1},
) as dag:
    for mode in ("append", "merge"):
        LakebaseLoadOperator(
            task_id=f"load_{mode}",
            source=f"{FOLDER}/rows.csv",
            table=f"load_{mode}",
            mode=mode,  # type: ignore[arg-type] # mypy takes it for any text
        )
    LakebaseLoadOperator(task_id="load_fenced", source=f"{FOLDER}/rows.csv", table="load_fenced", fence=True)
    LakebaseUnloadOperator(task_id="unload", sql=SLOW_ROWS, to=f"{FOLDER}/unload.csv", format="csv")
    LakebaseUnloadOperator(
        task_id="unload_parts", sql=SLOW_ROWS, to=f"{FOLDER}/unload_parts", parallel=2, by="id"
    )
    for waits, sql in (("source", SLOW_ROWS), ("target", ROWS)):
        LakebaseTransferOperator(
            task_id=f"transfer_{waits}",
            source_conn_id="lakebase_default",
            sql=sql,
            table=f"transfer_{waits}",
        )
