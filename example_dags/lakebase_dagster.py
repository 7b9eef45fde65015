"""Orders and what each customer spent, as Dagster assets in Lakebase.

Runs as it stands with the environment variables of the Lakebase documentation::

    export DATABRICKS_HOST=https://<workspace>.databricks.com
    export DATABRICKS_CLIENT_ID=… DATABRICKS_CLIENT_SECRET=…
    export ENDPOINT_NAME=projects/<project>/branches/<branch>/endpoints/<endpoint>
    dagster job execute -f lakebase_dagster.py -j lakebase_etl_job
"""

import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import dagster as dg

from dagster_lakebase import LakebaseResource, build_lakebase_health_checks, lakebase_health_check_op

FIRST_ORDER_AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def order_count() -> int:
    """How many orders to load."""
    return int(os.environ.get("LAKEBASE_EXAMPLE_ORDERS", "1000"))


def generated_orders(count: int) -> Iterator[tuple[int, str, Decimal, datetime]]:
    """Orders 1 to `count`, the same at every run.

    Order i is of customer i % 50, costs (i * 37 % 10000) / 100, and was placed i minutes into 2026 (UTC).
    """
    for i in range(1, count + 1):
        amount = Decimal(i * 37 % 10000) / 100
        yield i, f"customer-{i % 50:03d}", amount, FIRST_ORDER_AT + timedelta(minutes=i)


# [START dagster_assets]
@dg.asset(kinds={"postgres"})
def orders(lakebase: LakebaseResource) -> dg.MaterializeResult:
    """The orders, loaded by COPY and merged in one transaction, so that a rerun changes nothing."""
    count = order_count()
    with lakebase.get_connection() as conn, conn.cursor() as cur:
        cur.execute("CREATE SCHEMA IF NOT EXISTS etl_dagster")
        cur.execute(
            "CREATE TABLE IF NOT EXISTS etl_dagster.orders (order_id bigint PRIMARY KEY,"
            " customer text NOT NULL, amount numeric(12,2) NOT NULL, ordered_at timestamptz NOT NULL)"
        )
        cur.execute("CREATE TEMPORARY TABLE incoming (LIKE etl_dagster.orders) ON COMMIT DROP")
        with cur.copy("COPY incoming (order_id, customer, amount, ordered_at) FROM STDIN") as copy:
            for order in generated_orders(count):
                copy.write_row(order)
        cur.execute(
            "INSERT INTO etl_dagster.orders SELECT * FROM incoming ON CONFLICT (order_id) DO UPDATE"
            " SET customer = excluded.customer, amount = excluded.amount, ordered_at = excluded.ordered_at"
        )
    return dg.MaterializeResult(metadata={"dagster/row_count": count})


@dg.asset(kinds={"postgres"}, deps=[orders])
def customer_revenue(lakebase: LakebaseResource) -> dg.MaterializeResult:
    """Orders and revenue of each customer, computed where the orders are."""
    with lakebase.get_connection() as conn:
        conn.execute(
            "CREATE TABLE IF NOT EXISTS etl_dagster.customer_revenue (customer text PRIMARY KEY,"
            " orders bigint NOT NULL, revenue numeric(14,2) NOT NULL, updated_at timestamptz NOT NULL)"
        )
        merged = conn.execute(
            "INSERT INTO etl_dagster.customer_revenue (customer, orders, revenue, updated_at)"
            " SELECT customer, count(*), sum(amount), now() FROM etl_dagster.orders GROUP BY customer"
            " ON CONFLICT (customer) DO UPDATE"
            " SET orders = excluded.orders, revenue = excluded.revenue, updated_at = excluded.updated_at"
        ).rowcount
    return dg.MaterializeResult(metadata={"dagster/row_count": merged})


# [END dagster_assets]


# [START dagster_asset_checks]
@dg.asset_check(asset=orders, blocking=True)
def orders_are_complete(lakebase: LakebaseResource) -> dg.AssetCheckResult:
    """Every generated order has arrived."""
    expected = order_count()
    with lakebase.get_connection() as conn:
        [(found,)] = conn.execute(
            "SELECT count(*) FROM etl_dagster.orders WHERE order_id BETWEEN 1 AND %s", [expected]
        ).fetchall()
    return dg.AssetCheckResult(passed=found == expected, metadata={"found": found, "expected": expected})


@dg.asset_check(asset=orders, blocking=True)
def orders_have_no_negative_amount(lakebase: LakebaseResource) -> dg.AssetCheckResult:
    """Nobody is paid for ordering."""
    with lakebase.get_connection() as conn:
        [(negative,)] = conn.execute("SELECT count(*) FROM etl_dagster.orders WHERE amount < 0").fetchall()
    return dg.AssetCheckResult(passed=negative == 0, metadata={"negative": negative})


@dg.asset_check(asset=customer_revenue)
def revenue_adds_up(lakebase: LakebaseResource) -> dg.AssetCheckResult:
    """The customers' revenue is the orders' amount, to the cent."""
    with lakebase.get_connection() as conn:
        [(amount, revenue)] = conn.execute(
            "SELECT (SELECT coalesce(sum(amount), 0) FROM etl_dagster.orders),"
            " (SELECT coalesce(sum(revenue), 0) FROM etl_dagster.customer_revenue)"
        ).fetchall()
    return dg.AssetCheckResult(
        passed=amount == revenue, metadata={"amount": float(amount), "revenue": float(revenue)}
    )


# [END dagster_asset_checks]


# [START dagster_health]
@dg.job
def lakebase_health_job() -> None:
    """Check the way to the database, stage by stage."""
    lakebase_health_check_op()


health_checks = build_lakebase_health_checks([orders, customer_revenue])
# [END dagster_health]

# [START dagster_definitions]
# One process for all steps: they are shorter than a process takes to start, and share a pool and a token.
lakebase_etl_job = dg.define_asset_job(
    "lakebase_etl_job",
    selection=dg.AssetSelection.assets(orders, customer_revenue),
    config={"execution": {"config": {"in_process": {}}}},
)

defs = dg.Definitions(
    assets=[orders, customer_revenue],
    asset_checks=[orders_are_complete, orders_have_no_negative_amount, revenue_adds_up, *health_checks],
    jobs=[lakebase_etl_job, lakebase_health_job],
    schedules=[dg.ScheduleDefinition(job=lakebase_etl_job, cron_schedule="0 3 * * *")],
    resources={"lakebase": LakebaseResource()},
)
# [END dagster_definitions]
