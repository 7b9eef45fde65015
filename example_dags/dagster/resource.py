"""Statements and queries in Lakebase, from assets.

Runs as it stands with the environment variables of the Lakebase documentation::

    dagster job execute -f resource.py -j lakebase_resource_job
"""

import dagster as dg

from dagster_lakebase import LakebaseResource


# [START dagster_resource]
@dg.asset(kinds={"postgres"})
def example_events(lakebase: LakebaseResource) -> dg.MaterializeResult:
    """One transaction: all of it, or nothing."""
    with lakebase.get_connection() as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS example_events (id bigint PRIMARY KEY, name text NOT NULL)")
        conn.execute("DELETE FROM example_events")
        conn.cursor().executemany("INSERT INTO example_events VALUES (%s, %s)", [(1, "start"), (2, "end")])
    return dg.MaterializeResult(metadata={"dagster/row_count": 2})


@dg.asset(kinds={"postgres"}, deps=[example_events])
async def example_names(lakebase: LakebaseResource) -> dg.MaterializeResult:
    """Parameters are bound by the server; a frame keeps integers and decimals exact."""
    lakebase.execute("UPDATE example_events SET name = %(name)s WHERE id = %(id)s", {"name": "stop", "id": 2})
    frame = lakebase.fetch("SELECT id, name FROM example_events ORDER BY id", as_="polars")
    async with lakebase.get_async_connection() as conn:
        cursor = await conn.execute("SELECT count(*) FROM example_events")
        rows = await cursor.fetchone()
    assert rows == (len(frame),)
    return dg.MaterializeResult(metadata={"names": ", ".join(frame["name"])})


# [END dagster_resource]

defs = dg.Definitions(
    assets=[example_events, example_names],
    jobs=[dg.define_asset_job("lakebase_resource_job", executor_def=dg.in_process_executor)],
    resources={"lakebase": LakebaseResource(client_secret=dg.EnvVar("DATABRICKS_CLIENT_SECRET"))},
)
