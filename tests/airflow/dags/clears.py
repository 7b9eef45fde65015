"""A run that empties its table and loads it again, once for all and by mapped tasks."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.sdk import DAG

from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator

FOLDER = os.environ.get("LOADS_FOLDER", "/no/such/folder")

with DAG(dag_id="clears", schedule=None, start_date=datetime(2025, 1, 1), default_args={"retries": 1}) as dag:
    LakebaseSqlOperator(task_id="empty", sql="truncate cleared") >> LakebaseLoadOperator(
        task_id="load", source=f"{FOLDER}/rows.csv", table="cleared"
    )
