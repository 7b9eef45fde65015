"""Orders into Lakebase, revenue per customer out of them, and checks on both.

It runs as it stands with a connection ``lakebase_default``. Each task may be run again: the same rows result.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from airflow.providers.common.sql.operators.sql import SQLColumnCheckOperator, SQLTableCheckOperator
from airflow.sdk import DAG, task

from lakebase_provider.operators.health import LakebaseHealthCheckOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator

CONN_ID = "lakebase_default"
ORDERS = int(os.environ.get("LAKEBASE_EXAMPLE_ORDERS", "1000"))
CUSTOMERS = 50

Order = tuple[int, str, Decimal, datetime]


def orders(count: int) -> Iterator[Order]:
    """Orders 1 to `count`, the same in every run: plain arithmetic on their number.

    Args:
        count: How many.
    """
    new_year = datetime(2026, 1, 1, tzinfo=timezone.utc)
    for i in range(1, count + 1):
        yield (
            i,
            f"customer-{i % CUSTOMERS:03d}",
            Decimal(i * 37 % 10_000) / 100,
            new_year + timedelta(minutes=i),
        )


with DAG(
    dag_id="lakebase_etl",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["lakebase"],
) as dag:
    # [START lakebase_etl_health]
    health = LakebaseHealthCheckOperator(task_id="health", conn_id=CONN_ID)
    # [END lakebase_etl_health]

    # [START lakebase_etl_create]
    create_tables = LakebaseSqlOperator(
        task_id="create_tables",
        conn_id=CONN_ID,
        sql=[
            "CREATE SCHEMA IF NOT EXISTS etl_airflow",
            """
            CREATE TABLE IF NOT EXISTS etl_airflow.orders (
                order_id bigint PRIMARY KEY,
                customer text NOT NULL,
                amount numeric(12, 2) NOT NULL,
                ordered_at timestamptz NOT NULL
            )
            """,
            """
            CREATE TABLE IF NOT EXISTS etl_airflow.customer_revenue (
                customer text PRIMARY KEY,
                orders bigint NOT NULL,
                revenue numeric(14, 2) NOT NULL,
                updated_at timestamptz NOT NULL
            )
            """,
        ],
        lock_timeout=10,
    )
    # [END lakebase_etl_create]

    # [START lakebase_etl_load]
    @task
    def load_orders() -> int:
        """Copy the orders into a staging table and merge them, in one transaction.

        Returns:
            The number of rows of the table afterwards.
        """
        # Imported here, so that parsing the DAG does not import the driver.
        from lakebase_provider.hooks.lakebase import LakebaseHook

        with LakebaseHook(CONN_ID).client.connection() as conn, conn.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE staging (LIKE etl_airflow.orders) ON COMMIT DROP")
            with cursor.copy("COPY staging FROM STDIN") as copy:
                for order in orders(ORDERS):
                    copy.write_row(order)
            cursor.execute(
                """
                INSERT INTO etl_airflow.orders SELECT * FROM staging
                ON CONFLICT (order_id) DO UPDATE
                SET customer = excluded.customer, amount = excluded.amount, ordered_at = excluded.ordered_at
                """
            )
            row = cursor.execute("SELECT count(*) FROM etl_airflow.orders").fetchone()
        assert row is not None
        return int(row[0])

    # [END lakebase_etl_load]

    # [START lakebase_etl_upsert]
    upsert_revenue = LakebaseSqlOperator(
        task_id="upsert_revenue",
        conn_id=CONN_ID,
        sql="""
            INSERT INTO etl_airflow.customer_revenue AS serving (customer, orders, revenue, updated_at)
            SELECT customer, count(*), sum(amount), now()
            FROM etl_airflow.orders WHERE ordered_at >= %(since)s
            GROUP BY customer
            ON CONFLICT (customer) DO UPDATE
            SET orders = excluded.orders, revenue = excluded.revenue, updated_at = excluded.updated_at
        """,
        parameters={"since": "2026-01-01T00:00:00+00:00"},
        statement_timeout=300,
    )
    # [END lakebase_etl_upsert]

    # [START lakebase_etl_checks]
    check_tables = SQLTableCheckOperator(
        task_id="check_tables",
        conn_id=CONN_ID,
        table="etl_airflow.orders",
        checks={
            "all_orders": {"check_statement": f"count(*) >= {ORDERS}"},
            "no_order_lost": {
                "check_statement": "sum(amount) = (SELECT sum(revenue) FROM etl_airflow.customer_revenue)"
            },
        },
    )
    check_columns = SQLColumnCheckOperator(
        task_id="check_columns",
        conn_id=CONN_ID,
        table="etl_airflow.customer_revenue",
        column_mapping={
            "customer": {"null_check": {"equal_to": 0}, "unique_check": {"equal_to": 0}},
            "revenue": {"min": {"greater_than": 0}},
        },
    )
    # [END lakebase_etl_checks]

    health >> create_tables >> load_orders() >> upsert_revenue >> [check_tables, check_columns]
