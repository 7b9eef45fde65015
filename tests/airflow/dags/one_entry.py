"""Tasks that take one entry of what another one returns."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.sdk import DAG, task

from lakebase_provider.operators.health import LakebaseHealthCheckOperator
from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.transfer import LakebaseTransferOperator
from lakebase_provider.operators.unload import LakebaseUnloadOperator

FOLDER = os.environ.get("ONE_ENTRY_FOLDER", "/no/such/folder")

with DAG(dag_id="one_entry", schedule=None, start_date=datetime(2025, 1, 1)) as dag:

    @task
    def told(loaded: int, transferred: int, healthy: bool, alone: dict[str, object]) -> list[object]:
        return [loaded, transferred, healthy, alone["rows"]]

    unload = LakebaseUnloadOperator(task_id="unload", sql="select 1 as id", to=f"{FOLDER}/rows.parquet")
    load = LakebaseLoadOperator(
        task_id="load",
        source=unload.output["path"],
        table="one_entry",
        create=True,
    )
    transfer = LakebaseTransferOperator(
        task_id="transfer", source_conn_id="lakebase_default", sql="select 2 as id", table="one_entry"
    )
    alone = LakebaseUnloadOperator(
        task_id="alone", sql="select 1 as id", to=f"{FOLDER}/alone.csv", format="csv", multiple_outputs=False
    )
    check = LakebaseHealthCheckOperator(task_id="check", checks=["query"])
    load >> transfer
    told(
        loaded=load.output["rows"],
        transferred=transfer.output["inserted"],
        healthy=check.output["ok"],
        alone=alone.output,
    )
