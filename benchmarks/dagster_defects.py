"""Known defects of Dagster's database I/O managers: the same case on dagster-duckdb and on dagster_lakebase.

Run it as ``python -m benchmarks.dagster_defects`` where ``make bench`` has installed its peers. Each case is
the same assets, run by the same calls; only the I/O manager differs.
"""

# No "from __future__ import annotations": Dagster reads the annotations of assets as objects.

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import duckdb
import polars as pl
from dagster_duckdb_polars import DuckDBPolarsIOManager

from dagster_lakebase import LakebaseIOManager, LakebaseResource
from lakebase_provider.local import LocalLakebase


@dataclass
class Bed:
    """Where a case runs.

    Attributes:
        io_manager: The contender.
        instance: Dagster's instance.
        count: Rows of a table, or None if there is no such table.
        connections: Connections of this process that are open.
    """

    io_manager: Any
    instance: dg.DagsterInstance
    count: Callable[[str, str], int | None]
    connections: Callable[[], int]

    def run(self, *assets: Any, **arguments: Any) -> Any:
        """The result of a run, failed or not."""
        return dg.materialize(
            list(assets),
            instance=self.instance,
            resources={"io_manager": self.io_manager},
            raise_on_error=False,
            **arguments,
        )


def orders(frame: pl.DataFrame, key_prefix: str = "shop", **arguments: Any) -> dg.AssetsDefinition:
    """An asset that returns the frame."""

    @dg.asset(key_prefix=key_prefix, **arguments)
    def orders() -> pl.DataFrame:
        return frame

    return orders


def a_failed_write_keeps_the_rows(bed: Bed) -> tuple[bool, str]:
    bed.run(orders(pl.DataFrame({"id": [1, 2, 3]})))
    bed.run(orders(pl.DataFrame({"id": [1, 2, 3], "extra": [1, 2, 3]})))
    rows = bed.count("shop", "orders")
    return rows == 3, f"3 rows -> {rows}"


def a_day_of_new_york_written_twice(bed: Bed) -> tuple[bool, str]:
    new_york = ZoneInfo("America/New_York")

    @dg.asset(
        key_prefix="shop",
        partitions_def=dg.DailyPartitionsDefinition("2026-01-01", timezone="America/New_York"),
        metadata={"partition_expr": "moment"},
    )
    def hours(context: dg.AssetExecutionContext) -> pl.DataFrame:
        first = datetime.fromisoformat(context.partition_key).replace(tzinfo=new_york)
        first = first.astimezone(timezone.utc)
        return pl.DataFrame({"moment": [first + timedelta(hours=n) for n in range(24)]})

    for _ in range(2):
        bed.run(hours, partition_key="2026-01-15")
    rows = bed.count("shop", "hours")
    return rows == 24, f"24 rows twice -> {rows}"


def a_schema_with_a_hyphen(bed: Bed) -> tuple[bool, str]:
    result = bed.run(orders(pl.DataFrame({"id": [1]}), key_prefix="my-shop"))
    return result.success, "stored" if result.success else "the run fails"


def cells_that_are_no_rectangle(bed: Bed) -> tuple[bool, str]:
    loaded: list[int] = []
    grid = dg.MultiPartitionsDefinition(
        {
            "part": dg.StaticPartitionsDefinition(["a", "b", "c"]),
            "region": dg.StaticPartitionsDefinition(["x", "y", "z"]),
        }
    )

    @dg.asset(
        key_prefix="shop",
        partitions_def=grid,
        metadata={"partition_expr": {"part": "part", "region": "region"}},
    )
    def cells(context: dg.AssetExecutionContext) -> pl.DataFrame:
        part, region = context.partition_key.split("|")
        return pl.DataFrame({"part": [part], "region": [region]})

    @dg.asset(
        partitions_def=dg.StaticPartitionsDefinition(["all"]),
        ins={
            "cells": dg.AssetIn(
                key=["shop", "cells"],
                partition_mapping=dg.SpecificPartitionsPartitionMapping(["a|x", "c|z"]),
            )
        },
    )
    def corners(cells: pl.DataFrame) -> None:
        loaded.append(len(cells))

    for part in "abc":
        for region in "xyz":
            bed.run(cells, partition_key=f"{part}|{region}")
    bed.run(cells.to_source_asset(), corners, partition_key="all", selection=[corners])
    return loaded == [2], f"2 of 9 cells asked for, {loaded[0] if loaded else 'none'} loaded"


def a_frame_without_rows_creates_its_table(bed: Bed) -> tuple[bool, str]:
    bed.run(orders(pl.DataFrame({"id": pl.Series([], dtype=pl.Int64)})))
    rows = bed.count("shop", "orders")
    return rows == 0, "no table" if rows is None else f"a table of {rows} rows"


def columns_are_told_where_dagster_looks(bed: Bed) -> tuple[bool, str]:
    result = bed.run(orders(pl.DataFrame({"id": [1]})))
    [event] = result.get_asset_materialization_events()
    keys = sorted(key for key in event.materialization.metadata if "column" in key)
    return "dagster/column_schema" in keys, ", ".join(keys)


def a_step_that_raises_leaves_no_connection(bed: Bed) -> tuple[bool, str]:
    bed.run(orders(pl.DataFrame({"id": [1]})))
    held: list[BaseException] = []
    for _ in range(3):
        try:
            dg.materialize(
                [orders(pl.DataFrame({"id": [1], "extra": [1]}))],
                instance=bed.instance,
                resources={"io_manager": bed.io_manager},
            )
        except Exception as error:  # whose frames stay alive, as in a log handler or a debugger
            held.append(error)
    left = bed.connections()
    return left == 0, f"{left} open after {len(held)} failed runs"


CASES = (
    a_failed_write_keeps_the_rows,
    a_day_of_new_york_written_twice,
    a_schema_with_a_hyphen,
    cells_that_are_no_rectangle,
    a_frame_without_rows_creates_its_table,
    columns_are_told_where_dagster_looks,
    a_step_that_raises_leaves_no_connection,
)


@contextmanager
def duckdb_bed(folder: Path) -> Iterator[Bed]:
    """dagster-duckdb-polars on a new file."""
    file = folder / "peer.duckdb"

    def count(schema: str, table: str) -> int | None:
        # As dagster-duckdb connects: a connection that it has leaked refuses one that differs.
        with duckdb.connect(str(file), config={"custom_user_agent": "dagster"}) as connection:
            tables = connection.execute("SELECT table_schema, table_name FROM information_schema.tables")
            if (schema, table) not in tables.fetchall():
                return None
            row = connection.execute(f'SELECT count(*) FROM "{schema}"."{table}"').fetchone()  # noqa: S608 # the names are this file's
            return row[0] if row else None

    def connections() -> int:
        # DuckDB runs in this process: an open connection holds its file.
        handles = Path("/proc/self/fd").iterdir()
        return sum(os.path.realpath(handle) == str(file) for handle in handles)

    with dg.DagsterInstance.ephemeral() as instance:
        yield Bed(DuckDBPolarsIOManager(database=str(file)), instance, count, connections)


@contextmanager
def lakebase_bed(lake: LocalLakebase) -> Iterator[Bed]:
    """dagster_lakebase on the local Lakebase, without what earlier cases left."""
    lake.admin.execute('DROP SCHEMA IF EXISTS shop CASCADE; DROP SCHEMA IF EXISTS "my-shop" CASCADE')

    def count(schema: str, table: str) -> int | None:
        [(found,)] = lake.admin.execute("SELECT to_regclass(%s)::text", [f'"{schema}"."{table}"'])
        if found is None:
            return None
        return int(lake.admin.execute(f"SELECT count(*) FROM {found}")[0][0])  # noqa: S608 # quoted by the server

    def connections() -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lakebase-provider%'"
        return int(lake.admin.execute(query)[0][0])

    with dg.DagsterInstance.ephemeral() as instance:
        manager = LakebaseIOManager(lakebase=LakebaseResource())
        yield Bed(manager, instance, count, connections)


def main() -> int:
    """Run the cases and print the table.

    Returns:
        0 if all of them hold on dagster_lakebase.
    """
    logging.disable(logging.CRITICAL)
    print(f"{'case':<44}{'dagster-duckdb':<44}dagster_lakebase")
    held = True
    with LocalLakebase() as lake:
        os.environ.update(lake.env())
        for case in CASES:
            with tempfile.TemporaryDirectory() as folder, duckdb_bed(Path(folder).resolve()) as bed:
                peer = case(bed)
            with lakebase_bed(lake) as bed:
                ours = case(bed)
            held = held and ours[0]
            cells = [f"{'holds' if ok else 'FAILS'}: {seen}" for ok, seen in (peer, ours)]
            print(f"{case.__name__.replace('_', ' '):<44}{cells[0]:<44}{cells[1]}", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
