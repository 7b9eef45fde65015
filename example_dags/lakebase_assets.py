"""A table as an asset: who writes it says so, and who reads it runs when it was written."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import DAG, Asset

from lakebase_provider.operators.sql import LakebaseSqlOperator

# [START lakebase_assets]
# lakebase://host[:port]/database/schema/table, the host as the database has it; never a user or a password.
totals = Asset(
    "lakebase://ep-example.database.us-east-1.cloud.databricks.com/databricks_postgres/public/totals"
)

with DAG(dag_id="lakebase_assets", schedule=None, start_date=datetime(2026, 1, 1), tags=["lakebase"]) as dag:
    LakebaseSqlOperator(
        task_id="write_totals",
        sql="""
            CREATE TABLE IF NOT EXISTS public.totals (day date PRIMARY KEY, total numeric NOT NULL);
            INSERT INTO public.totals VALUES (%(day)s, 1)
            ON CONFLICT (day) DO UPDATE SET total = excluded.total
        """,
        parameters={"day": "2026-01-01"},
        split_statements=True,
        outlets=[totals],
    )

with DAG(dag_id="lakebase_assets_reader", schedule=[totals], start_date=datetime(2026, 1, 1)) as reader:
    LakebaseSqlOperator(
        task_id="read_totals", sql="SELECT day, total FROM public.totals", read_only=True, inlets=[totals]
    )
# [END lakebase_assets]
