"""A change that is tried on a branch before it runs, and rows that are put back from before it.

Runs as it stands with the environment variables of the Lakebase documentation, and a table
``example_prices (id int PRIMARY KEY, price numeric)``::

    dagster job execute -f rehearse.py -j lakebase_prices_job
"""

import dagster as dg

from dagster_lakebase import (
    LakebaseResource,
    build_lakebase_rehearsal_asset,
    lakebase_restore_point_op,
    lakebase_restore_rows_op,
)

# [START dagster_rehearse]
raised = build_lakebase_rehearsal_asset(
    ["UPDATE example_prices SET price = price * 1.1"],
    asset="example_prices_raised",
    checks=[
        "SELECT min(price) > 0 FROM example_prices",
        {"table": "example_prices", "min_rows": 1},
    ],
    tables=["example_prices"],
)


@dg.job
def note_prices() -> None:
    """Before risky work: a moment to come back to, which costs nothing."""
    lakebase_restore_point_op()


@dg.job
def put_prices_back() -> None:
    """Launched by a person, whose configuration says which table, and as of when."""
    lakebase_restore_rows_op()


defs = dg.Definitions(
    assets=[raised],
    jobs=[
        dg.define_asset_job("lakebase_prices_job", executor_def=dg.in_process_executor),
        note_prices,
        put_prices_back,
    ],
    resources={"lakebase": LakebaseResource()},
)
# [END dagster_rehearse]
