"""The code location of the deployment: what a shop keeps in Lakebase.

Its credentials come from variables that the Lakebase documentation does not know, so that nothing but the
definitions says where they are.
"""

import dagster as dg
import pyarrow as pa

from dagster_lakebase import (
    LakebaseIOManager,
    LakebaseResource,
    build_lakebase_table_observation,
    build_lakebase_table_observation_sensor,
)


def connection() -> LakebaseResource:
    return LakebaseResource(
        client_id=dg.EnvVar("SHOP_CLIENT_ID"),
        client_secret=dg.EnvVar("SHOP_CLIENT_SECRET"),
    )


lakebase = connection()


@dg.op
def note_the_run(context: dg.OpExecutionContext, lakebase: LakebaseResource) -> None:
    lakebase.execute("INSERT INTO shop.noted (run_id) VALUES (%s)", [context.run_id])


@dg.job(executor_def=dg.multiprocess_executor)
def note() -> None:
    note_the_run()


def counting(table: str, io_manager_key: str) -> dg.JobDefinition:
    """A job that stores its run's id by an I/O manager."""

    @dg.op(
        name=f"count_{table}",
        out=dg.Out(io_manager_key=io_manager_key, metadata={"schema": "shop", "table": table}),
    )
    def count(context: dg.OpExecutionContext) -> pa.Table:
        return pa.table({"run_id": [context.run_id]})

    @dg.job(name=table.replace("counted", "stocktaking"), executor_def=dg.multiprocess_executor)
    def stocktaking() -> None:
        count()

    return stocktaking


@dg.asset(
    key_prefix="shop",
    partitions_def=dg.DailyPartitionsDefinition("2026-01-01", "2026-02-20"),  # 50 days
    metadata={"partition_expr": "day"},
    io_manager_key="tables",
)
def sales(context: dg.AssetExecutionContext) -> pa.Table:
    day = context.partition_time_window.start.date()
    return pa.table({"day": [day, day], "run_id": [context.run_id] * 2})


orders = dg.AssetSpec(["warehouse", "orders"], description="Written by something outside of Dagster.")
warehouse = build_lakebase_table_observation([orders], name="warehouse", timestamp_column="changed_at")


@dg.asset(key_prefix="shop", deps=[orders], automation_condition=dg.AutomationCondition.eager())
def report(context: dg.AssetExecutionContext, lakebase: LakebaseResource) -> None:
    total = "SELECT coalesce(sum(amount), 0) FROM warehouse.orders"
    lakebase.execute(f"INSERT INTO shop.reports (run_id, total) VALUES (%s, ({total}))", [context.run_id])


defs = dg.Definitions(
    assets=[sales, warehouse, report],
    jobs=[note, counting("counted", "tables"), counting("counted_apart", "tables_apart")],
    sensors=[
        dg.AutomationConditionSensorDefinition(
            "automation",
            target=dg.AssetSelection.all(),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=5,
        ),
        build_lakebase_table_observation_sensor(
            [dg.AssetKey(["shop", "reports"])],
            name="reports_observed",
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=10,
        ),
    ],
    # Half the processes of a backfill; the jobs above have Dagster's default.
    executor=dg.in_process_executor,
    resources={
        "lakebase": lakebase,
        "tables": LakebaseIOManager(lakebase=lakebase),
        "tables_apart": LakebaseIOManager(lakebase=connection()),
    },
)
