"""A job of two steps for the command line, each in a process of its own, which is Dagster's default."""

import dagster as dg

from dagster_lakebase import LakebaseResource


class Nested(dg.ConfigurableResource["Nested"]):
    """Binds the resource a second time."""

    lakebase: LakebaseResource


@dg.asset
def first(lakebase: LakebaseResource) -> None:
    with lakebase.get_connection() as conn:
        conn.execute("DROP TABLE IF EXISTS dagster_two_steps")
        conn.execute("CREATE TABLE dagster_two_steps (n int)")


@dg.asset(deps=[first])
def second(lakebase: LakebaseResource, nested: Nested) -> None:
    for resource in (lakebase, nested.lakebase):
        with resource.get_connection() as conn:
            conn.execute("INSERT INTO dagster_two_steps VALUES (1)")


defs = dg.Definitions(
    assets=[first, second],
    jobs=[dg.define_asset_job("two_steps")],
    resources={
        "lakebase": LakebaseResource(client_secret=dg.EnvVar("DATABRICKS_CLIENT_SECRET")),
        "nested": Nested(lakebase=LakebaseResource(client_secret=dg.EnvVar("DATABRICKS_CLIENT_SECRET"))),
    },
)
