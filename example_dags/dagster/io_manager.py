"""Assets that return frames, stored as tables in Lakebase.

Runs as it stands with the environment variables of the Lakebase documentation::

    dagster job execute -f io_manager.py -j lakebase_io_manager_job
"""

from collections.abc import Iterator
from decimal import Decimal

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa

from dagster_lakebase import LakebaseIOManager, LakebaseResource, validate_table_owners


# [START dagster_io_manager]
@dg.asset(key_prefix="example_shop", metadata={"lakebase/schema_evolution": "add"})
def products() -> pl.DataFrame:
    """The table example_shop.products, replaced by each run; a new column is added to it."""
    return pl.DataFrame(
        {"id": [1, 2], "price": [Decimal("9.50"), Decimal("3.00")]},
        schema={"id": pl.Int64, "price": pl.Decimal(10, 2)},
    )


@dg.asset(key_prefix="example_shop", metadata={"lakebase/mode": "merge", "lakebase/keys": ["id"]})
def stock() -> pd.DataFrame:
    """Rows with a known id are changed, the others added; the id is the primary key."""
    return pd.DataFrame({"id": [1, 2], "pieces": [10, 0]})


@dg.asset(key_prefix="example_shop")
def offers(products: pl.DataFrame, stock: pd.DataFrame) -> pa.RecordBatchReader:
    """Each input is loaded as it is annotated; the output is a stream of any size."""
    available = set(stock.loc[stock["pieces"] > 0, "id"])
    chosen = products.filter(pl.col("id").is_in(available)).to_arrow()

    def batches() -> Iterator[pa.RecordBatch]:
        yield from chosen.to_batches(max_chunksize=10_000)

    return pa.RecordBatchReader.from_batches(chosen.schema, batches())


# [END dagster_io_manager]

# [START dagster_table_owners]
defs = validate_table_owners(
    dg.Definitions(
        assets=[products, stock, offers],
        jobs=[dg.define_asset_job("lakebase_io_manager_job", executor_def=dg.in_process_executor)],
        resources={"io_manager": LakebaseIOManager(lakebase=LakebaseResource())},
    )
)
# [END dagster_table_owners]
