"""The code location that the browser looks at: a table, the health of the way to it, and a job to launch.

Run as a program it materializes and checks the table as often as it is told to.
"""

import sys

import dagster as dg
import pandas as pd

from dagster_lakebase import LakebaseIOManager, LakebaseResource, build_lakebase_health_checks


@dg.asset(key_prefix="shop")
def orders() -> pd.DataFrame:
    return pd.DataFrame(
        {"order_id": [1, 2, 3], "item": ["chair", "table", "lamp"], "price": [49.5, 180.0, 25.0]}
    )


@dg.op
def count_tables(context: dg.OpExecutionContext, lakebase: LakebaseResource) -> None:
    context.log.info("%s", lakebase.fetch("SELECT count(*) FROM pg_catalog.pg_class"))


@dg.job
def count_tables_job() -> None:
    count_tables()


lakebase = LakebaseResource(client_secret=dg.EnvVar("DATABRICKS_CLIENT_SECRET"))
defs = dg.Definitions(
    assets=[orders],
    asset_checks=build_lakebase_health_checks([orders]),
    jobs=[count_tables_job],
    resources={"lakebase": lakebase, "io_manager": LakebaseIOManager(lakebase=lakebase)},
)

if __name__ == "__main__":
    job = defs.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        for _ in range(int(sys.argv[1])):
            job.execute_in_process(instance=instance)
