"""Tasks that defer, whichever way they end."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG

from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.sensors.sql import LakebaseSqlSensor

with DAG(dag_id="deferrals", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
    polls = LakebaseSqlOperator(
        task_id="polls", sql=["drop sequence if exists deferral_polls", "create sequence deferral_polls"]
    )
    # Untrue at the poll in the worker and at the first one in the triggerer.
    waits = LakebaseSqlSensor(
        task_id="waits", sql="select nextval('deferral_polls') > 2", poke_interval=0.1, deferrable=True
    )
    # A retry would take a minute.
    LakebaseSqlOperator(
        task_id="wrong",
        sql="select * from no_such_table",
        deferrable=True,
        retries=1,
        retry_delay=timedelta(minutes=1),
    )
    LakebaseSqlOperator(
        task_id="out_of_time",
        sql="select pg_sleep(55) /* out_of_time */",
        deferrable=True,
        execution_timeout=timedelta(seconds=2),
    )
    polls >> waits
