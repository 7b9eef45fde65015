"""The local Unity Catalog's Delta tables: where they are, what columns they have, their rows and changes.

A table `main.src.trips` is the folder `main/src/trips` below the lakehouse's. The package deltalake is
imported when a table is asked for.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakebase_provider.local.contract.lakehouse import UC_TABLE, table_path
from lakebase_provider.local.workspace.settings import Errors

if TYPE_CHECKING:
    from deltalake import DeltaTable

#: Delta's type → Postgres' (docs.databricks.com, synced tables).
_TYPES = {
    "long": "bigint",
    "integer": "integer",
    "short": "smallint",
    "byte": "smallint",
    "boolean": "boolean",
    "float": "real",
    "double": "double precision",
    "string": "text",
    "binary": "bytea",
    "date": "date",
    "timestamp": "timestamptz",
    "timestamp_ntz": "timestamp",
}
#: Operations whose commits change no row, as a history calls them.
_MAINTENANCE = {"OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "FSCK", "REORG"}
_FEED = "delta.enableChangeDataFeed"


class SyncError(Exception):
    """Why an update of a pipeline fails: its text, as the pipeline's events tell it."""


@dataclass(frozen=True)
class Column:
    """A column of a Delta table.

    Attributes:
        name: Its name.
        type: Its type in Postgres.
        kind: Its type as Delta's schema has it.
    """

    name: str
    type: str
    kind: Any

    def value(self, value: Any) -> Any:
        """A value as a COPY takes it."""
        if value is None or isinstance(self.kind, str):
            return value
        return json.dumps(_plain(value, self.kind), ensure_ascii=False)


def require_deltalake(errors: Errors) -> None:
    """Refuse what needs the package deltalake where it is not installed.

    Raises:
        ApiError: It is not.
    """
    try:
        import deltalake
        import pyarrow
    except ModuleNotFoundError:
        raise errors.error("no_deltalake") from None
    del deltalake, pyarrow


class Source:
    """A Delta table as it is when it is opened.

    Args:
        lakehouse: Folder of all tables.
        name: Name in the Unity Catalog.

    Raises:
        SyncError: There is none.
    """

    def __init__(self, lakehouse: Path, name: str) -> None:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            self._table: DeltaTable = DeltaTable(table_path(lakehouse, name))
        except TableNotFoundError:
            raise SyncError(f"TABLE_DOES_NOT_EXIST: Table '{name}' does not exist.") from None
        self.name = name
        self.version: int = self._table.version()
        #: Another table that gets the name has another one.
        self.id = str(self._table.metadata().id)

    @property
    def commit_time(self) -> float:
        """When the version was committed, Unix time."""
        return float(self._table.history(1)[0].get("timestamp", 0)) / 1000

    @property
    def has_feed(self) -> bool:
        """Whether it keeps its changes."""
        return self._table.metadata().configuration.get(_FEED, "false").lower() == "true"

    def columns(self, overrides: list[dict[str, Any]]) -> list[Column]:
        """Its columns.

        Args:
            overrides: What the synced table's spec has as `type_overrides`.

        Raises:
            SyncError: One is of a type that is not supported.
        """
        fields = json.loads(self._table.schema().to_json())["fields"]
        types = {field["name"]: _postgres_type(field["name"], field["type"]) for field in fields}
        for one in overrides:
            word = str(one.get("pg_type", "")).removeprefix("PG_SPECIFIC_TYPE_").lower()
            types[str(one.get("column_name"))] = f"{word}({int(one['size'])})" if one.get("size") else word
        return [Column(field["name"], types[field["name"]], field["type"]) for field in fields]

    def rows(self, columns: list[Column]) -> Iterator[tuple[Any, ...]]:
        """All of its rows."""
        names = [column.name for column in columns]
        return _rows(self._table.scan(columns=names), columns)

    def changes(self, columns: list[Column], since: int) -> Iterator[tuple[Any, ...]]:
        """Its changes after a version: the type and the version of each, then the row.

        Raises:
            SyncError: It did not keep them.
        """
        if not self.has_feed:
            raise SyncError(
                f"DELTA_MISSING_CHANGE_DATA: The change data feed of '{self.name}' is not enabled."
            )
        meta = [Column("_change_type", "text", "string"), Column("_commit_version", "bigint", "long")]
        feed = self._table.load_cdf(since + 1, self.version, allow_out_of_range=True)
        return _rows(feed, [*meta, *columns])

    def has_data_since(self, version: int) -> bool:
        """Whether a commit after that version may have changed a row."""
        newer = [one for one in self._table.history(self.version - version) if one["version"] > version]
        return any(one.get("operation") not in _MAINTENANCE for one in newer)


def exists(lakehouse: Path, name: str) -> bool:
    """Whether there is a Delta table of that name."""
    from deltalake import DeltaTable

    return DeltaTable.is_deltatable(str(table_path(lakehouse, name)))


def catalog_view(lakehouse: Path, name: str) -> dict[str, Any] | None:
    """A Delta table as the Unity Catalog shows it; None if there is none of that name."""
    if not UC_TABLE.fullmatch(name) or not exists(lakehouse, name):
        return None
    catalog, schema, own = name.split(".")
    return {
        "name": own,
        "catalog_name": catalog,
        "schema_name": schema,
        "full_name": name,
        "table_type": "EXTERNAL",
        "data_source_format": "DELTA",
        "storage_location": table_path(lakehouse, name).as_uri(),
        "table_id": _id_of(name),
    }


def name_of_id(lakehouse: Path, identity: str) -> str | None:
    """The name of the table that the Unity Catalog shows with an id."""
    names = (".".join(one.relative_to(lakehouse).parts) for one in lakehouse.glob("*/*/*"))
    return next((name for name in names if _id_of(name) == identity), None)


def _id_of(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _postgres_type(name: str, kind: Any) -> str:
    if isinstance(kind, dict):
        return "jsonb"
    if str(kind).startswith("decimal"):
        return str(kind).replace("decimal", "numeric")
    if kind not in _TYPES:
        raise SyncError(f"UNSUPPORTED_DATATYPE: Column '{name}' is of type {str(kind).upper()}.")
    return _TYPES[kind]


def _rows(stream: Any, columns: list[Column]) -> Iterator[tuple[Any, ...]]:
    import pyarrow as pa

    reader = pa.RecordBatchReader.from_stream(stream)
    for batch in reader:
        values = [map(column.value, batch.column(column.name).to_pylist()) for column in columns]
        yield from zip(*values, strict=True)


def _plain(value: Any, kind: Any) -> Any:
    """A nested value as JSON has it."""
    if value is None:
        return None
    if isinstance(kind, dict) and kind["type"] == "struct":
        return {field["name"]: _plain(value.get(field["name"]), field["type"]) for field in kind["fields"]}
    if isinstance(kind, dict) and kind["type"] == "array":
        return [_plain(one, kind["elementType"]) for one in value]
    if isinstance(kind, dict):
        pairs = value.items() if isinstance(value, dict) else value
        return {str(key): _plain(one, kind["valueType"]) for key, one in pairs}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if isinstance(value, (bool, int, float, str)) else str(value)
