"""Jobs for the command line whose steps do not come to their end."""

import os

import dagster as dg
import pandas as pd

from dagster_lakebase import (
    LakebaseIOManager,
    LakebaseRehearseConfig,
    LakebaseResource,
    build_lakebase_sync_asset,
    lakebase_rehearse_op,
)


@dg.op
def raises(lakebase: LakebaseResource) -> None:
    with lakebase.get_connection() as conn:
        conn.execute("SELECT 1")
        raise ZeroDivisionError


@dg.op(out=dg.Out(io_manager_key="io_manager"))
def stores_what_does_not_fit(lakebase: LakebaseResource) -> pd.DataFrame:
    lakebase.execute("DROP TABLE IF EXISTS public.result")  # another test's, of the same server
    lakebase.execute("CREATE TABLE public.result (other int)")
    return pd.DataFrame({"n": [1]})


@dg.op
def sleeps(lakebase: LakebaseResource) -> None:
    lakebase.fetch("SELECT pg_sleep(120)")


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def loads(lakebase: LakebaseResource) -> None:
    lakebase.client.load([(1,)], "slowly_filled", load_id="a load")


# Append, lest the table be made anew without what makes it slow.
@dg.op(
    out=dg.Out(io_manager_key="io_manager", metadata={"table": "slowly_filled", "lakebase/mode": "append"}),
    retry_policy=dg.RetryPolicy(max_retries=1),
)
def stores() -> pd.DataFrame:
    return pd.DataFrame({"n": [1]})


@dg.job(executor_def=dg.in_process_executor)
def loading() -> None:
    loads()


@dg.job(executor_def=dg.in_process_executor)
def storing() -> None:
    stores()


@dg.job
def failing() -> None:
    raises()
    stores_what_does_not_fit()


@dg.job(executor_def=dg.in_process_executor)
def sleeping() -> None:
    sleeps()


@dg.job(executor_def=dg.multiprocess_executor)
def sleeping_in_a_process() -> None:
    sleeps()


@dg.job(
    resource_defs={"lakebase": LakebaseResource()},
    config=dg.RunConfig(
        ops={
            "lakebase_rehearse_op": LakebaseRehearseConfig(
                statements=["INSERT INTO slowly_filled VALUES (1)"], then="run"
            )
        }
    ),
    executor_def=dg.in_process_executor,
)
def rehearsing() -> None:
    lakebase_rehearse_op()


synced = build_lakebase_sync_asset(
    os.environ.get("SYNCED_TABLE", "main.pub.none").split("."), retry_policy=dg.RetryPolicy(max_retries=1)
)
syncing = dg.define_asset_job("syncing", selection=[synced], executor_def=dg.multiprocess_executor)

defs = dg.Definitions(
    assets=[synced],
    jobs=[failing, loading, storing, sleeping, sleeping_in_a_process, rehearsing, syncing],
    resources={
        "lakebase": LakebaseResource(),
        "io_manager": LakebaseIOManager(lakebase=LakebaseResource()),
    },
)
