"""Is Lakebase reachable, and if not, which step fails and what helps: a check every 15 minutes.

The connection is ``lakebase_default``; its id is no DAG parameter, because whoever may trigger a run could
then have another connection's credentials used.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG

from lakebase_provider.operators.health import LakebaseHealthCheckOperator

with DAG(
    dag_id="lakebase_health",
    schedule=timedelta(minutes=15),
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["lakebase"],
) as dag:
    # [START lakebase_health]
    LakebaseHealthCheckOperator(
        task_id="check",
        checks=["resolve", "credential", "dns", "tcp", "tls", "login", "query", "write"],
        timeout=60,  # seconds for each stage; long enough for a suspended compute to wake
        limits={
            "max_connect_ms": 5000,
            "max_wake_seconds": 30,
            "min_token_seconds": 60,
            "max_connections_used": 0.9,  # of all that the server allows
        },
        fail_on="error",  # a limit that is passed is a warning here; with "warn" it fails the task too
        retries=1,
        retry_delay=timedelta(minutes=1),
    )
    # [END lakebase_health]
