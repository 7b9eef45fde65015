"""Delta tables of the local Lakebase, and synced tables of them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from lakebase_provider.core.workspace.objects.sync.synced_tables import SyncedTable, SyncedTables
from lakebase_provider.local import LocalLakebase

FEED = {"delta.enableChangeDataFeed": "true"}
DATABASE = "databricks_postgres"


@dataclass
class Shop:
    """A Delta table and the name of a synced table of it, which no other test has."""

    lake: LocalLakebase
    name: str
    source: str

    @property
    def path(self) -> str:
        return str(self.lake.table_path(self.source))

    @property
    def table(self) -> DeltaTable:
        return DeltaTable(self.path)

    def write(self, rows: Mapping[str, Sequence[Any]], **options: Any) -> int:
        """Write rows, and return the version with them."""
        options.setdefault("configuration", FEED)
        write_deltalake(self.path, pa.table(dict(rows)), **{"mode": "append", **options})
        return self.table.version()

    def declared(self, policy: str = "TRIGGERED", **options: Any) -> dict[str, Any]:
        return {
            "source_table": self.source,
            "primary_key": ["id"],
            "scheduling_policy": policy,
            "postgres_database": DATABASE,
            **options,
        }

    def create(self, tables: SyncedTables, policy: str = "TRIGGERED", **options: Any) -> SyncedTable:
        return tables.create(self.name, **self.declared(policy, **options))

    def rows(self, columns: str = "id, name") -> list[tuple[Any, ...]]:
        """What is in Postgres."""
        schema, table = self.name.split(".")[1:]
        return self.lake.admin.execute(f"SELECT {columns} FROM {schema}.{table} ORDER BY 1")


def shop(lake: LocalLakebase) -> Shop:
    """A shop with two rows at version 0."""
    number = uuid.uuid4().hex[:8]
    made = Shop(lake, f"main.pub.trips_{number}", f"main.src.trips_{number}")
    made.write({"id": [1, 2], "name": ["a", "b"]})
    return made
