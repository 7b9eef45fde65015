"""What the tests of the I/O manager have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa
from psycopg import sql

from dagster_lakebase import LakebaseIOManager, LakebaseResource
from lakebase_provider.local import LocalLakebase


def _batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    # An empty table has no batches; a stream tells its columns by its first one.
    return iter(table.to_batches(max_chunksize=2) or [pa.RecordBatch.from_pylist([], schema=table.schema)])


#: By name: the type with which assets are annotated, and how it is made of an Arrow table.
FORMS: dict[str, tuple[Any, Callable[[pa.Table], Any]]] = {
    "pandas": (pd.DataFrame, lambda table: table.to_pandas()),
    "polars": (pl.DataFrame, pl.from_arrow),
    "lazy": (pl.LazyFrame, lambda table: pl.DataFrame(table).lazy()),
    "arrow": (pa.Table, lambda table: table),
    "reader": (pa.RecordBatchReader, lambda table: table.to_reader(max_chunksize=2)),
    "iterator": (Any, _batches),
}


def to_rows(value: Any) -> list[dict[str, Any]]:
    """The rows of a frame of any kind, NULL as None."""
    if isinstance(value, pd.DataFrame):
        return [
            {
                name: None if pd.api.types.is_scalar(item) and pd.isna(item) else item
                for name, item in row.items()
            }
            for row in value.to_dict("records")
        ]
    if isinstance(value, pl.LazyFrame):
        value = value.collect()
    if isinstance(value, pl.DataFrame):
        return value.to_dicts()
    if isinstance(value, pa.RecordBatchReader):
        value = value.read_all()
    rows: list[dict[str, Any]] = value.to_pylist()
    return rows


class Run:
    """Materializes assets on one instance with one I/O manager, and looks at the tables.

    Args:
        lake: The server.
        instance: Dagster's.
    """

    def __init__(self, lake: LocalLakebase, instance: dg.DagsterInstance) -> None:
        self._lake = lake
        self.instance = instance

    def materialize(self, *assets: Any, manager: LakebaseIOManager | None = None, **arguments: Any) -> Any:
        """The result of a run that succeeds."""
        io_manager = manager or LakebaseIOManager(lakebase=LakebaseResource())
        return dg.materialize(
            list(assets), instance=self.instance, resources={"io_manager": io_manager}, **arguments
        )

    def rows(self, table: str, schema: str = "io", order: str = "1") -> list[tuple[Any, ...]]:
        """The table's rows, in the order of its first column."""
        query = f"SELECT * FROM {sql.Identifier(schema, table).as_string(None)} ORDER BY {order}"
        return self._lake.admin.execute(query)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement as the server's administrator."""
        return self._lake.admin.execute(statement)


def metadata_of(result: Any) -> dict[str, Any]:
    """The metadata of the run's last materialization, in plain values."""
    events = result.get_asset_materialization_events()
    return {key: entry.value for key, entry in events[-1].materialization.metadata.items()}
