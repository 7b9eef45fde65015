"""Rows of a query as a file, where they are too many for XCom: CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from lakebase_provider.core.bulk.locations import locate, protocol_of, shown
from lakebase_provider.core.bulk.plain_files import NewFile
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath
    from pyarrow import DataType

#: Rows that are fetched, encoded and written at a time.
CHUNK_ROWS = 1000


class RowFile(ABC):
    """A file that rows are appended to. Its calls block: asyncio makes them in a thread.

    Args:
        place: Where it is to be.
        columns: The query's columns, as psycopg describes them.
    """

    def __init__(self, place: _Place, columns: Sequence[Any]) -> None:
        self._place = place
        self._columns = columns
        self._file = place.file
        self.rows = 0

    def write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Append rows."""
        self._write(rows)
        self.rows += len(rows)

    @abstractmethod
    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None: ...

    def close(self) -> None:
        """End the file; it is there for readers."""
        self._place.finish()

    def discard(self) -> None:
        """Remove the file: half a result must not pass for a whole one."""
        self._place.discard()


class _Place(Protocol):
    """A file that is written."""

    file: Any

    def finish(self) -> None: ...

    def discard(self) -> None: ...


class _StoredFile:
    """A file of a store, which shows it when it is whole."""

    def __init__(self, path: ObjectStoragePath) -> None:
        self._path = path
        self.file = path.open("wb")  # type: ignore[no-untyped-call] # Airflow annotates it not

    def finish(self) -> None:
        self.file.close()

    def discard(self) -> None:
        self.file.close()
        self._path.unlink(missing_ok=True)


class _LocalFile(NewFile):
    """A file of this machine, under another name until it is whole."""

    def __init__(self, path: ObjectStoragePath, local: Path) -> None:
        super().__init__(local, "output_path")
        self._told_as = path
        # What a task leaves when it fails, or is killed, must not be taken for its result.
        local.unlink(missing_ok=True)

    def finish(self) -> None:
        from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

        super().finish()
        # As Airflow tells of a file that is written through its object storage.
        collector: Any = get_hook_lineage_collector()  # type: ignore[no-untyped-call] # not annotated
        collector.add_output_asset(context=self._told_as, uri=str(self._told_as))


class _CsvFile(RowFile):
    def __init__(self, place: _Place, columns: Sequence[Any]) -> None:
        super().__init__(place, columns)
        self._write_texts([[column.name for column in columns]])

    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self._write_texts([["" if value is None else _text(value) for value in row] for row in rows])

    def _write_texts(self, rows: Iterable[list[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())


class _JsonLinesFile(RowFile):
    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        names = [column.name for column in self._columns]
        lines = (json.dumps(dict(zip(names, row, strict=True)), default=_text) for row in rows)
        self._file.write("".join(f"{line}\n" for line in lines).encode())


class _ParquetFile(RowFile):
    def __init__(self, place: _Place, columns: Sequence[Any]) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise ConfigError(
                "A Parquet file needs pyarrow, which is not installed.",
                remedy="Install lakebase-provider[arrow], or end output_path in .csv or .jsonl.",
            ) from None
        super().__init__(place, columns)
        self._schema = pa.schema([(column.name, _arrow_type(column)) for column in columns])
        self._is_text = [pa.types.is_string(kind) for kind in self._schema.types]
        self._writer = pq.ParquetWriter(self._file, self._schema)

    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        import pyarrow as pa

        columns = [
            [None if value is None else _text(value) for value in values] if is_text else list(values)
            for values, is_text in zip(zip(*rows, strict=True), self._is_text, strict=True)
        ]
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()
        super().close()

    def discard(self) -> None:
        # The writer would else write the end of the file when it is collected, into a file that is closed.
        with suppress(Exception):
            self._writer.close()
        super().discard()


_FORMATS: dict[str, type[RowFile]] = {
    ".csv": _CsvFile,
    ".jsonl": _JsonLinesFile,
    ".ndjson": _JsonLinesFile,
    ".parquet": _ParquetFile,
}


def check_path(path: str) -> None:
    """Refuse a path whose format is unknown, or to which nothing may be written.

    Args:
        path: A path or URL; of a template of one it is the end that counts.

    Raises:
        ConfigError: The path ends in none of the known formats, or is of a protocol that is not allowed.
    """
    if "{{" not in path and "{%" not in path:
        protocol_of(path, "output_path")
    _format_of(path)


def open_rows(path: str, columns: Sequence[Any]) -> RowFile:
    """A new file at a path that Airflow's object storage knows; one that is there goes.

    Args:
        path: A local path, or a URL as ``s3://connection@bucket/key.csv``; its end says which format.
        columns: The query's columns, as psycopg describes them.

    Raises:
        ConfigError: The format is unknown, or needs what is not installed; the protocol is not allowed; or
            something else than a file is there, such as a pipe or a symbolic link.
    """
    from airflow.sdk import ObjectStoragePath

    protocol_of(path, "output_path")  # before Airflow has it, whose object looks for a file system at once
    kind = _format_of(path)
    storage_path = ObjectStoragePath(path)
    local = locate(storage_path, "output_path").local
    place: _Place
    if local is None:
        place = _StoredFile(storage_path)
    else:
        local.parent.mkdir(parents=True, exist_ok=True)
        place = _LocalFile(storage_path, local)
    try:
        return kind(place, columns)
    except BaseException:
        place.discard()
        raise


def _format_of(path: str) -> type[RowFile]:
    name = urlsplit(path).path if "://" in path else path
    for suffix, kind in _FORMATS.items():
        if name.endswith(suffix):
            return kind
    raise ConfigError(
        f"output_path {shown(path)!r} ends in no known format.",
        remedy=f"End it in one of: {', '.join(_FORMATS)}.",
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"  # as Postgres writes it
    if isinstance(value, dict | list):
        return json.dumps(value, default=_text)
    isoformat = getattr(value, "isoformat", None)
    return str(value if isoformat is None else isoformat())


def _arrow_type(column: Any) -> DataType:
    import pyarrow as pa

    # By Postgres' fixed type numbers. What is not here is written as text, arrays and JSON among it.
    kinds = {
        16: pa.bool_(),
        17: pa.binary(),
        20: pa.int64(),
        21: pa.int16(),
        23: pa.int32(),
        700: pa.float32(),
        701: pa.float64(),
        1082: pa.date32(),
        1114: pa.timestamp("us"),
        1184: pa.timestamp("us", tz="UTC"),
    }
    if column.type_code == 1700 and column.precision is not None and column.scale is not None:
        return pa.decimal128(column.precision, column.scale)
    return kinds.get(column.type_code, pa.string())
