"""Loads that take place once: at a retry within a run, and at another run anew."""

# No "from __future__ import annotations": Dagster looks at the context's annotation.

import dagster as dg

from dagster_lakebase import LakebaseResource
from lakebase_provider.local import LocalLakebase


@dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
def loaded_once(context: dg.AssetExecutionContext, lakebase: LakebaseResource) -> dg.MaterializeResult[None]:
    result = lakebase.client.load(
        [(1,), (2,)], "loaded_once", load_id=f"{context.run.run_id}/{context.asset_key.to_user_string()}"
    )
    if context.op_execution_context.retry_number == 0:
        raise dg.RetryRequested(max_retries=1)
    return dg.MaterializeResult(metadata={"skipped": result.skipped, "rows": result.rows})


def test_a_retry_within_a_run_is_skipped_and_another_run_loads(lake: LocalLakebase) -> None:
    lakebase = LakebaseResource()
    lakebase.execute("DROP TABLE IF EXISTS loaded_once, lakebase_load")
    lakebase.execute("CREATE TABLE loaded_once (n int)")
    with dg.DagsterInstance.ephemeral() as instance:
        for run in (1, 2):
            done = dg.materialize([loaded_once], instance=instance, resources={"lakebase": lakebase})
            [event] = done.get_asset_materialization_events()
            assert event.materialization.metadata["skipped"] == dg.BoolMetadataValue(True)
            assert lakebase.fetch("SELECT count(*) FROM loaded_once") == [(2 * run,)]
