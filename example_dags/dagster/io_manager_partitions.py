"""Assets whose partitions are rows of one table in Lakebase."""

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl

from dagster_lakebase import LakebaseIOManager, LakebaseResource, validate_table_owners

NEW_YORK = "America/New_York"


# [START dagster_partitions]
days = dg.DailyPartitionsDefinition("2026-01-01", timezone=NEW_YORK)
regions = dg.StaticPartitionsDefinition(["east", "west"])


@dg.asset(key_prefix="example_sales", partitions_def=days, metadata={"partition_expr": "sold_at"})
def sales(context: dg.AssetExecutionContext) -> pl.DataFrame:
    """A day of New York, of 23 to 25 hours: run it again, and exactly these rows are replaced."""
    start, end = context.partition_time_window
    first, last = start.astimezone(timezone.utc), end.astimezone(timezone.utc)
    hours = (last - first) // timedelta(hours=1)
    return pl.DataFrame(
        {"sold_at": [first + timedelta(hours=n) for n in range(hours)], "pieces": [1] * hours}
    )


@dg.asset(
    key_prefix="example_sales",
    partitions_def=dg.MultiPartitionsDefinition({"day": days, "region": regions}),
    metadata={"partition_expr": {"day": "sold_at", "region": "region"}},
)
def regional_sales(context: dg.AssetExecutionContext) -> pl.DataFrame:
    """A day in a region."""
    key = context.partition_key
    assert isinstance(key, dg.MultiPartitionKey)
    day = datetime.fromisoformat(key.keys_by_dimension["day"]).replace(tzinfo=ZoneInfo(NEW_YORK))
    return pl.DataFrame({"sold_at": [day], "region": [key.keys_by_dimension["region"]], "pieces": [1]})


# [END dagster_partitions]

defs = validate_table_owners(
    dg.Definitions(
        assets=[sales, regional_sales],
        resources={"io_manager": LakebaseIOManager(lakebase=LakebaseResource())},
    )
)
