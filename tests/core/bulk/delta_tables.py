"""Delta tables with what the library reads and does not write: deletion vectors, renamed columns."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
#: How a serialized deletion vector begins.
_MAGIC = 1681511377
_NO_RUNS = 12346


def log_file(table: Path, version: int) -> Path:
    """The file of a version in a table's log."""
    return table / "_delta_log" / f"{version:020}.json"


def actions_of(table: Path, version: int) -> list[dict[str, Any]]:
    """What a version of a table did."""
    return [json.loads(line) for line in log_file(table, version).read_text().splitlines()]


def commit(table: Path, version: int, *actions: dict[str, Any]) -> None:
    """Write a version of a table."""
    info = {"commitInfo": {"timestamp": 1_800_000_000_000 + version, "operation": "WRITE"}}
    log_file(table, version).parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(action) for action in (info, *actions)]
    log_file(table, version).write_text("\n".join(lines) + "\n")


def protocol(*features: str, also: Sequence[str] = ()) -> dict[str, Any]:
    """The action that asks readers and writers for features; `also` for more of writers alone."""
    both = list(features)
    return {
        "protocol": {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": both,
            "writerFeatures": [*both, *also],
        }
    }


def deletion_vector(rows: Sequence[int]) -> dict[str, Any]:
    """The deletion vector of rows of a file, by number, within the log."""
    numbers = sorted(rows)
    assert numbers[-1] < 1 << 16
    values = struct.pack(f"<{len(numbers)}H", *numbers)
    bitmap = struct.pack("<IIHHI", _NO_RUNS, 1, 0, len(numbers) - 1, 16) + values
    data = struct.pack("<IQI", _MAGIC, 1, 0) + bitmap
    padded = data + b"\0" * (-len(data) % 4)
    text = "".join(_five(struct.unpack(">I", padded[at : at + 4])[0]) for at in range(0, len(padded), 4))
    return {
        "storageType": "i",
        "pathOrInlineDv": text,
        "sizeInBytes": len(data),
        "cardinality": len(numbers),
    }


def _five(word: int) -> str:
    found = ""
    for _ in range(5):
        word, digit = divmod(word, 85)
        found = _Z85[digit] + found
    return found


def delete_by_vector(table: Path, version: int, rows: Sequence[int], *, feeds: bool = False) -> None:
    """As version `version`, mark rows of the only file of version 0 as deleted."""
    added = next(action["add"] for action in actions_of(table, 0) if "add" in action)
    removed = {
        "path": added["path"],
        "deletionTimestamp": 1_800_000_000_000,
        "dataChange": True,
        "extendedFileMetadata": True,
        "partitionValues": added["partitionValues"],
        "size": added["size"],
    }
    commit(
        table,
        version,
        protocol("deletionVectors", also=("changeDataFeed",) if feeds else ()),
        {"remove": removed},
        {"add": {**added, "deletionVector": deletion_vector(rows)}},
    )


def mapped_table(
    table: Path, rows: pa.Table, *, feeds: bool = False, partitioned_by: str | None = None
) -> None:
    """Write a table whose columns have other names in its files, as after a column was renamed."""
    table.mkdir(parents=True)
    kinds = {"int64": "long", "string": "string", "int32": "integer", "double": "double"}
    fields = [
        {
            "name": field.name,
            "type": kinds[str(field.type)],
            "nullable": True,
            "metadata": {
                "delta.columnMapping.id": number,
                "delta.columnMapping.physicalName": f"col-{number}",
            },
        }
        for number, field in enumerate(rows.schema, 1)
    ]
    physical = {field["name"]: field["metadata"]["delta.columnMapping.physicalName"] for field in fields}  # type: ignore[index]
    configuration = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": str(len(fields))}
    if feeds:
        configuration["delta.enableChangeDataFeed"] = "true"
    metadata = {
        "id": "6d6170-0001",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": fields}),
        "partitionColumns": [] if partitioned_by is None else [partitioned_by],
        "configuration": configuration,
        "createdTime": 1_800_000_000_000,
    }
    files = []
    parts = [None] if partitioned_by is None else rows[partitioned_by].unique().to_pylist()
    for number, part in enumerate(parts):
        own = rows
        if partitioned_by is not None:
            own = rows.filter(pa.compute.equal(rows[partitioned_by], part)).drop_columns([partitioned_by])
        own = own.rename_columns([physical[name] for name in own.column_names])
        schema = pa.schema(
            [
                field.with_metadata({"PARQUET:field_id": field.name.removeprefix("col-")})
                for field in own.schema
            ]
        )
        file = table / f"part-{number}.parquet"
        parquet.write_table(own.cast(schema), file)
        values = {} if partitioned_by is None else {physical[partitioned_by]: str(part)}
        files.append(
            {
                "add": {
                    "path": file.name,
                    "partitionValues": values,
                    "size": file.stat().st_size,
                    "modificationTime": 1_800_000_000_000,
                    "dataChange": True,
                }
            }
        )
    commit(
        table,
        0,
        protocol("columnMapping", also=("changeDataFeed",) if feeds else ()),
        {"metaData": metadata},
        *files,
    )
